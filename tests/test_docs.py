"""What the pages for users quote is what the program says, and the examples run as they stand."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import snakemake

from dfeat.config.files import read_settings

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


def test_the_index_has_every_page_and_says_whom_it_is_for() -> None:
    index = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Documentation")[2]
    users, _, maintainers = index.partition("| For maintainers |")
    for path in DOCS.glob("*.md"):
        marked = path.read_text(encoding="utf-8").split("\n")[2].startswith("*For maintainers")
        assert f"](docs/{path.name})" in (maintainers if marked else users), path.name


def test_every_word_of_the_glossary_is_said_once_and_in_a_sentence_or_two() -> None:
    entries = re.findall(
        r"^- \*\*(.+?)\.\*\* ((?:.|\n  )+)", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    words = [word.strip("`").lower() for head, _ in entries for word in head.split(", ")]
    asked = {
        "view",
        "shard",
        "twin",
        "level",
        "none",
        "run",
        "stage",
        "point",
        "recipe",
        "overlay",
        "set",
        "adopt",
        "drop:40",
    }
    assert len(words) == len(set(words)) and asked <= {*words}
    assert all(len(text.split()) < 60 for _, text in entries)


@pytest.mark.parametrize("page", ["results.md", "my-test-set.md"])
def test_the_overlays_of_the_pages_are_valid(page: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        (tmp_path / "overlay.yaml").write_text(block)
        assert read_settings([ROOT / "config.yaml", tmp_path / "overlay.yaml"]) != read_settings([ROOT / "config.yaml"])
    assert blocks
