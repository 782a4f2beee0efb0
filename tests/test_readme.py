"""The example in README runs as it stands there, and what the pages point to exists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "dfeat").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_points_to_exists(page: Path) -> None:
    """Its relative links and pictures, and the files of the project that it names."""
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    linked = [page.parent / link for link in links if link and not link.startswith(("http://", "https://", "mailto:"))]
    named = re.findall(r"`((?:config|docs|dfeat|profiles|tests|workflow)/[\w./-]+)`", text)
    for path in (*linked, *(ROOT / name for name in named)):
        assert path.exists(), path


def test_the_library_example_runs(rng: np.random.Generator) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    images = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    masks = np.zeros((2, 64, 64), bool)
    masks[:, 16:40, 20:50] = True
    names = {"images": images, "masks": masks}
    exec(compile(example, "README.md", "exec"), names)
    features, filled = names["features"], names["filled"]
    assert features.shape[0] == 2 and features.ndim == 2
    assert filled.shape == images.shape and filled.dtype == np.uint8
    assert not (filled[masks] == 0).all()
    exact = np.stack(names["exact"])
    assert (exact[~masks] == images[~masks]).all() and (exact[masks] == filled[masks]).all()
