"""The summary of `make gpu`: what each part found so far, as text and as JSON, written anew as parts go on.

What enters: the parts, and the folder in which each leaves its output. What leaves: `summary.txt`, `summary.json` and
`logs.txt`. A part that was stopped or broke off has in it what it had written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

OUTCOME = re.compile(r"^(?P<test>\S+::.+?) (?P<outcome>PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)
REASON = re.compile(r"^(?:FAILED|ERROR) (?P<line>\S+::.+)$", re.MULTILINE)


@dataclass
class Part:
    """A part of the run: how it ended, and the seconds it took."""

    name: str
    ended: str = "not begun"
    seconds: float = 0.0


def found(parts: Sequence[Part], work: Path) -> dict[str, Any]:
    """Everything that the parts found so far."""
    return {
        "date": datetime.now().isoformat(" ", "seconds"),
        "machine": _json(work / "machine.out"),
        "parts": [asdict(part) for part in parts],
        "tests": tests(_text(work / "tests.out")),
        "bench": (_json(work / "bench.json") or {}).get("figures", {}).get("gpu", []),
    }


def tests(said: str) -> dict[str, Any]:
    """The number of tests by outcome, the failed ones by name, and pytest's line about each, from its output."""
    outcomes = {match["test"]: match["outcome"].lower() for match in OUTCOME.finditer(said)}
    counts = {kind: list(outcomes.values()).count(kind) for kind in ("passed", "failed", "skipped", "error")}
    failed = [test for test, outcome in outcomes.items() if outcome in ("failed", "error")]
    return counts | {"which failed": failed, "reasons": [match["line"] for match in REASON.finditer(said)]}


def as_text(content: dict[str, Any], work: Path) -> str:
    """The summary as a page of text."""
    machine = content["machine"] or {}
    packages = ", ".join(f"{name} {number}" for name, number in machine.get("packages", {}).items() if number)
    driver = ", ".join(f"{name} {value}" for name, value in machine.get("driver", {}).items())
    counts = content["tests"]
    lines = [
        f"{machine.get('card') or 'no CUDA device'}, {content['date']}",
        f"driver: {driver or 'none'}; CUDA {machine.get('cuda')}, cuDNN {machine.get('cudnn')}",
        f"Python {machine.get('python')}: {packages}; {machine.get('cores')} cores, {machine.get('memory_gb')} GB",
        "",
        *(f"{part['name']:8} {part['ended']}, {part['seconds']:.0f} s" for part in content["parts"]),
        "",
        f"tests: {', '.join(f'{counts[kind]} {kind}' for kind in ('passed', 'failed', 'skipped', 'error'))}",
        *(f"  {line[:300]}" for line in counts["reasons"] or counts["which failed"]),
        "",
        _text(work / "bench.out").strip() or "bench: nothing measured",
    ]
    for part in content["parts"]:
        if part["ended"] not in ("done", "not begun", "under way"):
            last = "\n".join(_text(work / f"{part['name']}.err").splitlines()[-12:])
            lines += ["", f"The end of what {part['name']} logged:", last]
    return "\n".join(lines) + "\n"


def write(parts: Sequence[Part], work: Path, out: Path) -> str:
    """Write all three files, each whole under its name, and return the text."""
    content = found(parts, work)
    text = as_text(content, work)
    logs = "".join(f"==> {file.name}\n{_text(file)}\n" for file in sorted((*work.glob("*.out"), *work.glob("*.err"))))
    for name, written in (("summary.txt", text), ("summary.json", json.dumps(content, indent=1)), ("logs.txt", logs)):
        new = out / f".{name}.tmp"
        new.write_text(written)
        new.replace(out / name)
    return text


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError:
        return None
