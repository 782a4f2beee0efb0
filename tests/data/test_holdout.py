"""Held-out images are in no training: drawn by their keys, never of the training index, at most half of a class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfeat.data.index import Index, read_index
from dfeat.data.indexing import _held_out, build_train_index
from dfeat.data.pixels import cache_index
from dfeat.data.records import Problems, Record
from dfeat.data.settings import TrainSet
from dfeat.errors import UserError
from dfeat.occlusion.parts import choose_all, read_parts
from dfeat.occlusion.settings import PartsStage
from dfeat.occlusion.views import read_masks
from dfeat.storage.provenance import settings_text
from dfeat.training.dataset import TrainingBatches
from dfeat.training.sources import Inputs, read_sources
from tests.conftest import World
from tests.golden.run import dfeat

from .conftest import MACAQUE, TENCH, coco, encoded, problems_of, train_set, write

Classes = dict[int, set[int]]
CLASSES = st.dictionaries(st.integers(0, 4), st.sets(st.integers(0, 40), min_size=1, max_size=14), min_size=1)


def records_of(classes: Classes) -> list[Record]:
    return [
        Record(f"n{label:08}_{number}", "x.jpg", label, f"n{label:08}", 9, 9)
        for label, numbers in sorted(classes.items())
        for number in sorted(numbers)
    ]


def held_out(classes: Classes, most: int) -> frozenset[str]:
    records = records_of(classes)
    return _held_out(records, {record.key for record in records}, most, Problems("train"))


@given(CLASSES, st.integers(1, 9))
def test_of_each_class_so_many_are_held_out_and_at_least_half_is_trained_on(classes: Classes, most: int) -> None:
    chosen = held_out(classes, most)
    for label, numbers in classes.items():
        own = {key for key in chosen if key.startswith(f"n{label:08}_")}
        assert own <= {f"n{label:08}_{number}" for number in numbers}
        assert len(own) == min(most, len(numbers) // 2)
    assert held_out(dict(reversed(classes.items())), most) == chosen


@given(CLASSES, st.integers(1, 9), st.data())
def test_an_image_more_or_less_moves_at_most_one_image_of_its_own_class(
    classes: Classes, most: int, data: st.DataObject
) -> None:
    label, number = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 50))
    before, after = held_out(classes, most), held_out(classes | {label: classes.get(label, set()) | {number}}, most)
    assert {key for key in before ^ after if not key.startswith(f"n{label:08}_")} == set()
    assert len(before - after) <= 1 and len(after - before) <= 1
    assert held_out(classes, most + 1) >= before  # a larger holdout keeps those of a smaller one


def files(macaques: int, tenches: int) -> tuple[dict[str, object], list[str]]:
    names = [f"{MACAQUE}_{n}.JPEG" for n in range(macaques)] + [f"{TENCH}_{n}.JPEG" for n in range(tenches)]
    return {f"train/{name}": encoded() for name in names}, names


def built(root: Path, out: Path, holdout: int) -> tuple[Index, Index]:
    build_train_index(train_set(root, holdout=holdout), out / "train", out / "holdout")
    return read_index(out / "train"), read_index(out / "holdout")


@pytest.fixture
def set_of_thirteen(tmp_path: Path) -> Path:
    """Nine macaques, one without parts, and four tenches."""
    pictures, names = files(9, 4)
    annotations = coco(names)
    annotations["annotations"] = [one for one in annotations["annotations"] if one["image_id"] != 0]
    return write(tmp_path / "set", {**pictures, "train.json": annotations})


def test_the_two_indexes_share_the_classes_and_no_image_and_no_annotation(
    set_of_thirteen: Path, tmp_path: Path
) -> None:
    train, holdout = built(set_of_thirteen, tmp_path, 3)
    whole = build_train_index(train_set(set_of_thirteen), tmp_path / "whole")
    trained, kept = ({record.key for record in index.records} for index in (train, holdout))
    assert not trained & kept and trained | kept == {record.key for record in whole.records}
    assert train.classes == holdout.classes == whole.classes
    assert sorted(record.wnid for record in holdout.records) == [TENCH] * 2 + [MACAQUE] * 3
    assert f"{MACAQUE}_0" in trained  # without parts: nothing of it could be hidden
    assert all(record in whole.records for record in (*train.records, *holdout.records))
    for index in (train, holdout):
        annotated = json.loads((index.folder / "annotations.json").read_text())["images"]
        assert {image["key"] for image in annotated} == {record.key for record in index.records}
    assert set(read_masks(holdout)) == kept and holdout.load(holdout.records[0]).shape == (16, 24, 3)
    source = json.loads((tmp_path / "train/source.json").read_text())
    assert (source["images"], source["held_out"], source["images_without_parts"]) == (8, 5, 1)
    (row,) = [row for row in problems_of(tmp_path / "train") if row["field"] == "holdout"]
    assert (row["record"], row["what"]) == (TENCH, "has 4 images, 4 of them with parts; 2 are held out, not 3")
    assert problems_of(tmp_path / "holdout") == []


def test_no_part_of_a_held_out_image_is_chosen_so_none_is_inpainted_or_replaced(
    set_of_thirteen: Path, tmp_path: Path
) -> None:
    train, holdout = built(set_of_thirteen, tmp_path, 3)
    choose_all(train.folder, PartsStage(), tmp_path / "parts.json")
    assert set(read_parts(tmp_path / "parts.json").rows) == {r.key for r in train.records} - {f"{MACAQUE}_0"}
    with pytest.raises(UserError, match="another index"):
        read_parts(tmp_path / "parts.json", index=holdout.digest)


@pytest.mark.parametrize("method", ["none", "black_out", "replace", "cutmix"])
def test_no_batch_of_any_epoch_has_a_held_out_image_nor_pixels_of_one(
    method: str, world: World, tmp_path: Path
) -> None:
    """Two drawn images a class, one of them held out."""
    settings = TrainSet(root=world.settings.data.train.root, holdout=1)
    train = build_train_index(settings, tmp_path / "train", tmp_path / "holdout")
    kept = {record.key for record in read_index(tmp_path / "holdout").records}
    choose_all(train.folder, PartsStage(), tmp_path / "parts.json")
    cache_index(train.folder, world.stage("pixels"), tmp_path / "pixels.h5")
    training = world.settings.training
    sources = read_sources(method, Inputs(train.folder, tmp_path / "pixels.h5", tmp_path / "parts.json"), training)
    batches = TrainingBatches(method, sources, training, 0, 0)
    seen = {key for step in range(len(batches)) for key in batches.keys_of(step)} | set(batches.partner.values())
    assert len(kept) == len(seen) == 20 and not kept & seen
    assert not kept & set(sources.pixels.keys) and set(sources.labels) == seen


def test_a_set_of_one_image_a_class_is_refused_with_the_remedy(two_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none can be held out; set data\.train\.holdout to 0"):
        built(two_images, tmp_path, 1)
    assert not (tmp_path / "train/index.csv").exists()


@pytest.mark.parametrize(
    ("holdout", "words", "sentence"),
    [(1, (), "hold out 1 images a class; give --holdout"), (0, ("--holdout", "x"), "hold no image out; leave it out")],
)
def test_the_verb_wants_the_folder_of_held_out_images_where_some_are_held_out(
    two_images: Path, tmp_path: Path, holdout: int, words: tuple[str, ...], sentence: str
) -> None:
    settings = settings_text(train_set(two_images, holdout=holdout))
    with pytest.raises(UserError, match=sentence):
        dfeat("index", "train", "--settings", settings, "--out", tmp_path / "train", *words)


def test_a_run_based_on_another_links_both_indexes_where_it_holds_out_as_many(
    set_of_thirteen: Path, tmp_path: Path
) -> None:
    def folders(run: str, holdout: int, *base: object) -> list[Path]:
        made = [tmp_path / "results" / run / "data" / name for name in ("train", "holdout")]
        settings = settings_text(train_set(set_of_thirteen, holdout=holdout))
        dfeat("index", "train", "--settings", settings, "--out", made[0], "--holdout", made[1], *base)
        return made

    folders("first", 3)
    base = ("--base", tmp_path / "results/first")
    alike, other = folders("alike", 3, *base), folders("other", 2, *base)
    assert all((folder / "index.csv").is_symlink() for folder in alike)
    assert not any((folder / "index.csv").is_symlink() for folder in other)


def test_an_index_without_a_holdout_is_given_what_it_was_given_before_there_was_one() -> None:
    assert "holdout" not in settings_text(TrainSet()) and '"holdout":3' in settings_text(TrainSet(holdout=3))
    assert [TrainSet(holdout=n).expected_holdout for n in (0, 10, 100)] == [0, 1580, 24_095 // 2]
