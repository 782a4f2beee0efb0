"""Levels of an evaluation set that one job makes: the bytes of a job each, one decoding, and none made twice."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dfeat.cli.common import app
from dfeat.data.index import Index
from dfeat.storage.provenance import as_argument
from tests.conftest import World

LEVELS = (0, 40, 80)


class Set:
    """A set of the world in a folder of its own, and what its levels are encoded to."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.index = folder / "index"
        shutil.copytree(world.root / "data" / "dfeat_real", self.index)

    def file(self, kind: str, level: int, name: str = "together") -> Path:
        return self.folder / name / kind / f"dfeat_real@{level}" / "0-of-1.h5"

    def encode(self, *levels: int, name: str = "together", **changed: Any) -> None:
        stage = self.world.stage("latents").model_copy(update=changed)
        outs = [self.file("latents", level, name) for level in levels]
        views = [word for level in levels for word in ("--view", f"drop:{level}")]
        invoke("latents", "--index", self.index, *views, "--settings", as_argument(stage), *repeated("--out", outs))

    def extract(self, *levels: int, name: str = "together") -> None:
        latents = repeated("--latents", [self.file("latents", level, name) for level in levels])
        outs = repeated("--out", [self.file("features", level, name) for level in levels])
        invoke("features", *latents, "--settings", as_argument(self.world.stage("features")), *outs)

    def standing(self, kind: str) -> dict[int, int]:
        """Which file stands for each level: its inode."""
        return {level: self.file(kind, level).stat().st_ino for level in LEVELS if self.file(kind, level).exists()}


def repeated(option: str, paths: list[Path]) -> list[Any]:
    return [word for path in paths for word in (option, path)]


def invoke(verb: str, *words: Any) -> str:
    done = CliRunner().invoke(app, [verb, *map(str, words), "--threads", "1", "--gpus", "0", "--keep"])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


@pytest.fixture(scope="module")
def encoded(world: World, tmp_path_factory: pytest.TempPathFactory) -> Set:
    chosen = Set(world, tmp_path_factory.mktemp("levels"))
    chosen.encode(*LEVELS)
    chosen.extract(*LEVELS)
    return chosen


@pytest.fixture
def made(encoded: Set, tmp_path: Path) -> Set:
    """A copy of the set and its levels, which a test may change."""
    shutil.copytree(encoded.folder, tmp_path, dirs_exist_ok=True)
    copy = Set.__new__(Set)
    copy.world, copy.folder, copy.index = encoded.world, tmp_path, tmp_path / "index"
    return copy


def test_the_levels_of_one_job_are_byte_for_byte_those_of_a_job_each(encoded: Set) -> None:
    for level in LEVELS:
        encoded.encode(level, name="alone")
        encoded.extract(level, name="alone")
        for kind in ("latents", "features"):
            assert encoded.file(kind, level).read_bytes() == encoded.file(kind, level, "alone").read_bytes()


def test_an_image_is_decoded_once_for_all_levels(encoded: Set, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: Counter[str] = Counter()
    load = Index.load

    def counting(index: Index, record: Any) -> Any:
        decoded[record.key] += 1
        return load(index, record)

    monkeypatch.setattr(Index, "load", counting)
    Set(encoded.world, tmp_path).encode(*LEVELS)
    assert set(decoded.values()) == {1}


def test_a_further_level_makes_no_standing_one_again(made: Set) -> None:
    for kind in ("latents", "features"):
        made.file(kind, 40).unlink()
    before = {kind: made.standing(kind) for kind in ("latents", "features")}
    made.encode(*LEVELS)
    made.extract(*LEVELS)
    for kind, standing in before.items():
        now = made.standing(kind)
        assert set(now) == set(LEVELS) and {level: now[level] for level in standing} == standing
    latest = max(made.file("latents", level).stat().st_mtime_ns for level in LEVELS)
    assert all(made.file("features", level).stat().st_mtime_ns >= latest for level in LEVELS)  # else planned again


@pytest.mark.parametrize("change", ["damaged", "index", "settings", "of another level"])
def test_a_level_that_is_not_whole_or_not_from_the_same_is_made_again(made: Set, change: str) -> None:
    before, whole = made.standing("latents"), made.file("latents", 40).read_bytes()
    changed: dict[str, Any] = {}
    if change == "damaged":
        made.file("latents", 40).write_bytes(whole[:-1])
    elif change == "of another level":
        shutil.copy(made.file("latents", 80), made.file("latents", 40))
    elif change == "index":
        os.utime(made.index / "index.csv")
    else:
        changed = {"crop_pct": 0.5}
    made.encode(*LEVELS, **changed)
    now = made.standing("latents")
    again = {level for level in LEVELS if now[level] != before[level]}
    assert again == (set(LEVELS) if change in ("index", "settings") else {40})
    assert (made.file("latents", 40).read_bytes() == whole) == (change != "settings")


def test_features_of_latents_that_were_made_otherwise_are_made_again(made: Set) -> None:
    before = made.standing("features")
    made.encode(40, crop_pct=0.5)
    made.extract(*LEVELS)
    now = made.standing("features")
    assert [level for level in LEVELS if now[level] != before[level]] == [40]


def test_views_and_outputs_that_do_not_pair_are_a_sentence(encoded: Set, tmp_path: Path) -> None:
    words = ["latents", "--index", str(encoded.index), "--settings", as_argument(encoded.world.stage("latents"))]
    out = ["--out", str(tmp_path / "a.h5")]
    one = CliRunner().invoke(app, [*words, "--view", "drop:0", "--view", "drop:20", *out])
    assert "2 --view and 1 --out are given; give one --out for each" in str(one.exception)
    two = CliRunner().invoke(
        app, [*words, "--view", "clean", "--view", "drop:20", *out, "--out", str(tmp_path / "b.h5")]
    )
    assert "the view 'clean' is encoded alone; several views are all drop:P" in str(two.exception)
    assert np.array_equal(list(tmp_path.iterdir()), [])
