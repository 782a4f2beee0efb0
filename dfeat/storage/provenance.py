"""Where an artifact comes from: digests of inputs and weights, versions, and the recipe of each stage."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

from dfeat.errors import UserError
from dfeat.shortage import pass_on


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as hex. Raises UserError if it cannot be read."""
    try:
        return unguarded_file_digest(path)
    except OSError as error:
        pass_on(error, str(path))
        raise UserError(f"cannot read {path}: {error.strerror}; check that it exists and is readable") from None


def unguarded_file_digest(path: Path) -> str:
    """SHA-256 of a file, as hex. Raises OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_digest(content: bytes | memoryview) -> str:
    """SHA-256 of bytes, as hex."""
    return hashlib.sha256(content).hexdigest()


def combined_digest(named_digests: dict[str, str]) -> str:
    """One SHA-256 for several named files, independent of their order."""
    return bytes_digest(json.dumps(named_digests, sort_keys=True).encode())


def settings_text(settings: Any) -> str:
    """Settings as canonical JSON (sorted keys, no spaces): what artifacts carry and readers compare."""
    plain = settings.model_dump(mode="json") if hasattr(settings, "model_dump") else settings
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')


def as_argument(settings: Any) -> str:
    """The text of settings as a rule hands it to a verb: no string in it has a brace, which Snakemake would expand.

    JSON reads `\\u007b` as a brace too, so the verb is given the same settings, and those without braces the same text.
    """

    def without_braces(string: re.Match[str]) -> str:
        return string[0].replace("{", "\\u007b").replace("}", "\\u007d")

    return _STRING.sub(without_braces, settings_text(settings))


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that shape a result."""
    return {package: importlib.metadata.version(package) for package in packages}


def revision() -> str | None:
    """The commit of the checkout this package runs from, followed by "with changes" if files differ; None without one."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").split("\n")
        if Path(commit[0]).resolve() != root:
            return None
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError) as error:
        pass_on(error, "git")
        return None
    return f"{commit[1]} with changes" if changed else commit[1]


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def files_digest(package: str, folder: str) -> str:
    """One SHA-256 for the files of a package's folder; as a rule's parameter it reruns the rule if a template changes."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None, f"no package {package}"
    root = Path(spec.origin).parent / folder
    return combined_digest({path.name: file_digest(path) for path in sorted(root.iterdir()) if path.is_file()})


def declared_recipe(module: str) -> int:
    """The `RECIPE` that a stage's module declares, read without importing it; its rules rerun when it is raised."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, f"no module {module}"
    for node in ast.parse(Path(spec.origin).read_text()).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "RECIPE":
            assert isinstance(node.value, ast.Constant)
            assert isinstance(node.value.value, int)
            return node.value.value
    raise AssertionError(f"{module} declares no RECIPE")
