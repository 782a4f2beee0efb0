"""A stage whose output changes must raise its RECIPE, or artifacts of the old kind would be reused; and every stream of
random numbers is one that some golden is made of, so that none can change unseen.

How to record anew, where a change is meant, stands in `stages`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dfeat.storage.provenance import declared_recipe
from tests.golden import kept
from tests.golden.stages import PIECES, RECORDED, Made, make_all
from tests.golden.streams import PACKAGE, families, watched


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    """Everything made once, and the folder of the tiny run."""
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return make_all(folder), folder


@pytest.mark.parametrize("name", PIECES)
def test_output_and_recipe_change_together(name: str, made: tuple[Made, Path]) -> None:
    recorded, piece = json.loads(RECORDED.read_text())[name], PIECES[name]
    assert kept.differing(recorded["values"], made[0].values[name], piece.within) == []
    assert recorded["recipe"] == [piece.module, declared_recipe(piece.module)]


def test_every_recorded_piece_is_made() -> None:
    assert set(json.loads(RECORDED.read_text())) == set(PIECES)


def test_every_module_with_a_recipe_has_a_golden() -> None:
    declaring = set()
    for path in PACKAGE.rglob("*.py"):
        if "\nRECIPE: Final = " in path.read_text():
            words = path.relative_to(PACKAGE.parent).with_suffix("").parts
            declaring.add(".".join(words).removesuffix(".__init__"))
    assert {piece.module for piece in PIECES.values()} == declaring


def test_every_stream_of_random_numbers_is_in_a_golden(made: tuple[Made, Path]) -> None:
    assert set().union(*made[0].asked.values()) == families()


@pytest.mark.parametrize("family", sorted(families()))
def test_other_random_numbers_change_a_golden(
    family: str, made: tuple[Made, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the pieces that ask for this stream, the quickest first, until one is another."""
    whole, folder = made
    monkeypatch.chdir(folder)
    asking = sorted((name for name, asked in whole.asked.items() if family in asked), key=whole.seconds.__getitem__)
    for name in asking:
        with watched(disturbed=family):
            other = PIECES[name].make(tmp_path / name)
        if kept.differing(whole.values[name], other, PIECES[name].within):
            return
    pytest.fail(f"no golden is made of {family!r}: {', '.join(asking) or 'nothing'} asks for it and stays the same")


def test_sums_tell_apart_what_digests_would_and_not_the_last_bits(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (40, 16, 16, 3)).astype(np.float64)
    other = images.copy()
    other[7] = other[8]
    assert kept.same(kept.numbers(images), kept.numbers(images * (1 + 1e-5)))
    assert not kept.same(kept.numbers(images), kept.numbers(other))
    assert not kept.same(kept.numbers(images), kept.numbers(images[::-1]))
    assert not kept.same(kept.numbers(images), kept.numbers(images[1:]))


def test_a_record_without_a_piece_is_a_difference() -> None:
    assert kept.differing({"a": "1", "b": "2"}, {"a": "1", "c": [1.0, 2.0]}) == ["b", "c"]
