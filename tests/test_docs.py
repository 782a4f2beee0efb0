"""What the pages for users quote is what the program says, and the examples run as they stand."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import snakemake

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@cache
def said() -> str:
    """The sources, with texts that go on in the next line in one piece."""
    own = Path(snakemake.__file__).parent
    files = [*(ROOT / "dfeat").rglob("*.py"), *(ROOT / "workflow/rules").glob("*.smk")]
    files += [own / "exceptions.py", own / "common/__init__.py"]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in files))


MESSAGES = [
    message
    for row in re.findall(
        r"^\| (`.*?) \| .*\|$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    for message in re.findall(r"`([^`]+)`", row)
]


def test_troubleshooting_quotes_what_the_program_says() -> None:
    unknown = {part: m for m in MESSAGES for part in re.split(r" ?… ?", m) if part and part not in said()}
    assert len(MESSAGES) > 40 and unknown == {}
