"""The packages that a bare machine lacks, as wheels of the locked versions in one folder; `python -m tools.gpu.wheels`.

What enters: the names of packages, and the Python and processor of the machine they are for. What leaves: `.wheels/`, to
be copied there with the repository, where `make gpu` unpacks it for its own processes alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

FOLDER: Final = Path(".wheels")
LACKING: Final = (
    "diffusers", "importlib-metadata", "lazy-importer", "pycocotools", "pydantic", "pydantic-core", "annotated-types", "typing-inspection",
)  # fmt: skip
"""What an image with torch, transformers and timm was found to lack: diffusers and pydantic, each with what it imports."""
IMPORTED: Final = (
    "torch", "torchvision", "diffusers", "transformers", "timm", "safetensors", "pycocotools", "numpy", "scipy", "PIL",
    "h5py", "pydantic", "typer", "tqdm", "yaml", "matplotlib", "pytest",
)  # fmt: skip
"""Modules that the tests and the benchmark import."""
GLIBC: Final = (17, 24, 27, 28, 31, 34, 35)


def lacking() -> list[str]:
    """Those of IMPORTED that this Python does not have."""
    return [name for name in IMPORTED if importlib.util.find_spec(name) is None]


def unpack(folder: Path, site: Path) -> list[str]:
    """Unpack all wheels of a folder to `site`, to be put on the path; returns their names and versions."""
    wheels = sorted(folder.glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        # A wheel may keep its modules in NAME.data/purelib or platlib (PEP 427).
        for inner in (*site.glob("*.data/purelib"), *site.glob("*.data/platlib")):
            shutil.copytree(inner, site, dirs_exist_ok=True)
            shutil.rmtree(inner)
    return [" ".join(wheel.name.split("-")[:2]) for wheel in wheels]


def pack(names: Sequence[str], python: str, processor: str, lock: Path = Path("requirements.lock")) -> None:
    """Download the wheels of `names` at the lock's versions into FOLDER, anew, and print what they need besides.

    Exits with a sentence for a package that the lock does not have, and where pip finds no wheel of one.
    """
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;\n]+)", lock.read_text(), re.MULTILINE))
    unknown = [name for name in names if name not in locked]
    if unknown:
        sys.exit(f"{lock} has no {', '.join(unknown)}; name packages as they stand there")
    shutil.rmtree(FOLDER, ignore_errors=True)
    platforms = [f"manylinux_2_{number}_{processor}" for number in GLIBC] + [f"manylinux2014_{processor}"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", f"--dest={FOLDER}",
               *(f"--platform={name}" for name in platforms), *(f"{name}=={locked[name]}" for name in names)]  # fmt: skip
    if subprocess.run(command).returncode:
        sys.exit(f"the wheels for Python {python} on {processor} could not be had; nothing was packed")
    size = sum(wheel.stat().st_size for wheel in FOLDER.glob("*.whl"))
    print(f"{FOLDER} has {len(names)} wheels for Python {python} on {processor}, {size / 1e6:.0f} MB")
    print(f"they need there: {'; '.join(needs(FOLDER))}")


def needs(folder: Path) -> list[str]:
    """What the wheels of a folder need that is not among them, with the versions they ask for."""
    carried, wanted = set(), set()
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = archive.read(name).decode()
        carried |= set(map(_plain, re.findall(r"^Name: (\S+)", metadata, re.MULTILINE)))
        found = re.findall(r"^Requires-Dist: (.+)$", metadata, re.MULTILINE)
        wanted |= {need for need in found if "extra ==" not in need}
    return sorted(need for need in wanted if _plain(re.split(r"[^\w.-]", need)[0]) not in carried)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"packages; default: {' '.join(LACKING)}")
    parser.add_argument("--python", default="3.12", help="version of Python there")
    parser.add_argument("--processor", default="x86_64", help="processor there: x86_64 or aarch64")
    given = parser.parse_args()
    pack(given.names or LACKING, given.python, given.processor)
