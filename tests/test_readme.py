"""The example in README runs as it stands there, what the pages point to exists, and the map of the house is whole."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from jinja2 import Environment, StrictUndefined

from dfeat.config import Settings
from dfeat.config.files import PINNED
from dfeat.report.catalogue import catalogue

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "dfeat").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_points_to_exists(page: Path) -> None:
    """Its relative links and pictures, and the files of the project that it names."""
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    linked = [page.parent / link for link in links if link and not link.startswith(("http://", "https://", "mailto:"))]
    named = re.findall(r"`((?:config|docs|dfeat|profiles|tests|workflow)/[\w./-]+)`", text)
    for path in (*linked, *(ROOT / name for name in named if name != str(PINNED))):  # which `dfeat fetch` writes
        assert path.exists(), path


@pytest.mark.parametrize(
    "room",
    sorted({path.parent for path in (ROOT / "dfeat").rglob("*.py")}),
    ids=lambda room: room.relative_to(ROOT).as_posix(),
)
def test_the_architecture_page_names_every_module_and_no_other(room: Path) -> None:
    own = room.relative_to(ROOT / "dfeat")
    (row,) = re.findall(rf"^\| `{own.parts[0]}/` \|.*$", ARCHITECTURE, re.MULTILINE) if own.parts else [ARCHITECTURE]
    assert all(f"{part}/`" in row for part in own.parts[1:])
    if own.parts and own.parts[0] in ("cli", "methods"):  # a file for each group of verbs, a file for each method
        return
    named = set(re.findall(r"`(\w+)(?:\.py)?`", row))
    assert {path.stem for path in room.glob("*.py")} - {"__init__", "settings"} <= named
    if own.parts:
        assert named <= {path.stem for path in (ROOT / "dfeat" / own.parts[0]).rglob("*.py")}


def test_the_architecture_page_has_the_import_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    (order,) = re.findall(r"^    cli > .*\n.*$", ARCHITECTURE, re.MULTILINE)
    assert " ".join(order.split()) == " > ".join(layers).replace(" | ", ", ")


def test_every_table_and_figure_has_a_caption_that_snakemake_can_fill_in() -> None:
    for made in catalogue(Settings()):
        text = (ROOT / "workflow/report" / made.caption_file).read_text(encoding="utf-8")
        job = SimpleNamespace(config={}, params=SimpleNamespace(command=made.command))  # what each rule gives it
        shown = Environment(undefined=StrictUndefined).from_string(text).render(snakemake=job)
        assert not made.caption or made.name.removeprefix("ablation_") in shown


def test_the_library_example_runs(rng: np.random.Generator) -> None:
    example, _ = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    images = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    masks = np.zeros((2, 64, 64), bool)
    masks[:, 16:40, 20:50] = True
    names = {"images": images, "masks": masks}
    exec(compile(example, "README.md", "exec"), names)
    features, filled = names["features"], names["filled"]
    assert features.shape[0] == 2 and features.ndim == 2
    assert filled.shape == images.shape and filled.dtype == np.uint8
    assert not (filled[masks] == 0).all() and (filled[~masks] == images[~masks]).all()


LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    "page",
    [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "config/README.md"],
    ids=lambda page: page.name,
)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        found = page.parent / target if target else page
        assert found.exists(), f"{page.name}: {target} is not there"
        assert not anchor or anchor in anchors(found), f"{page.name}: {target} has no heading #{anchor}"
