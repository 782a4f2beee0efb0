"""What twins hide of their objects: counted, and bounded by `occlusion.min_visible`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache
from dfeat.diffusion.latents import encode_view
from dfeat.errors import UserError
from dfeat.methods import METHODS
from dfeat.methods.runs import Runs
from dfeat.occlusion.hidden import BINS, hidden_shares
from dfeat.occlusion.parts import Parts, choose_all, read_parts, visible_share
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import record_path
from dfeat.storage.shards import Rows, read_rows
from dfeat.training.dataset import TrainingBatches, cut, cut_mask
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Sources
from tests.conftest import CPU, World

LEAST = 0.1
ONE_PART = 7
"""Images of the small world that keep a single part."""


@pytest.fixture(scope="module")
def one_part(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world's index, in which the first images have one part each, and the next one none."""
    folder = tmp_path_factory.mktemp("one_part") / "train"
    shutil.copytree(world.train, folder)
    path = folder / "annotations.json"
    coco = json.loads(path.read_text())
    names = [image["id"] for image in sorted(coco["images"], key=lambda image: image["key"])]
    single, bare = set(names[:ONE_PART]), names[ONE_PART]
    kept = {}
    for annotation in coco["annotations"]:
        kept.setdefault(
            (annotation["image_id"], annotation["id"] if annotation["image_id"] not in single else 0), annotation
        )
    coco["annotations"] = [annotation for annotation in kept.values() if annotation["image_id"] != bare]
    path.write_text(json.dumps(coco))
    source = json.loads((folder / "source.json").read_text())
    source["files"][path.name] = file_digest(path)
    (folder / "source.json").write_text(json.dumps(source))
    for changed in (path, folder / "source.json"):
        record_path(changed).unlink()
    return folder


def chosen(index: Path, world: World, least: float, out: Path) -> Parts:
    choose_all(index, world.stage("parts").model_copy(update={"min_visible": least}), out / "parts.json")
    return read_parts(out / "parts.json")


def keys_of(index: Path) -> list[str]:
    return sorted(record.key for record in read_index(index).records)


def test_an_image_that_would_show_too_little_stands_apart(one_part: Path, world: World, tmp_path: Path) -> None:
    every, enough = (chosen(one_part, world, least, tmp_path) for least in (0, LEAST))
    keys = keys_of(one_part)
    assert list(enough.own_twins) == keys[:ONE_PART]
    assert list(enough.rows) == keys[ONE_PART + 1 :]
    assert {**enough.own_twins, **enough.rows} == every.rows
    assert not every.own_twins
    assert enough.mask(keys[0], "object").sum() == every.rows[keys[0]]["object_area"]


def test_without_a_minimum_the_file_is_what_it_was(one_part: Path, world: World, tmp_path: Path) -> None:
    chosen(one_part, world, 0, tmp_path)
    content = json.loads((tmp_path / "parts.json").read_text())
    assert content.keys() == {"recipe", "settings", "index", "categories", "images"}
    assert content["settings"] == {"unit": "category", "share": 0.5}


@settings(max_examples=40, deadline=None)
@given(least=st.floats(0, 1))
def test_a_twin_shows_the_least_share_or_there_is_none(
    least: float, one_part: Path, world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("least")
    every = chosen(one_part, world, 0, folder)
    largest = max(map(visible_share, every.rows.values()))
    if least > largest:
        with pytest.raises(UserError, match=r"occlusion.min_visible is .* the largest share is"):
            chosen(one_part, world, least, folder)
        return
    parts = chosen(one_part, world, least, folder)
    assert all(visible_share(row) >= least for row in parts.rows.values())
    assert all(visible_share(row) < least for row in parts.own_twins.values())
    assert parts.rows.keys() | parts.own_twins.keys() == every.rows.keys()
    hidden = hidden_shares(parts)
    assert (hidden.twins, hidden.own_twins) == (len(parts.rows), len(parts.own_twins))


areas = st.integers(1, 400).flatmap(lambda whole: st.tuples(st.integers(1, whole), st.just(whole)))


@given(st.lists(areas, min_size=1, max_size=30))
def test_the_summary_counts_every_twin_once(drawn: list[tuple[int, int]]) -> None:
    rows = {str(number): {"area": area, "object_area": whole} for number, (area, whole) in enumerate(drawn)}
    shares = np.array([area / whole for area, whole in drawn])
    hidden = hidden_shares(Parts(rows, {}))
    assert hidden.whole == (shares == 1).sum()
    assert len(hidden.histogram) == BINS and sum(hidden.histogram) + hidden.whole == hidden.twins == len(drawn)
    assert hidden.mean == pytest.approx(shares.mean())
    assert hidden.quartiles == pytest.approx(np.quantile(shares, [0.25, 0.5, 0.75]))
    for number, count in enumerate(hidden.histogram):
        assert count == sum(number * whole <= BINS * area < (number + 1) * whole for area, whole in drawn)


@pytest.mark.parametrize("method", [one.name for one in METHODS if one.parts and (not one.mix or one.name == "cutmix")])
def test_training_leaves_such_an_image_its_own_twin(method: str, one_part: Path, world: World, tmp_path: Path) -> None:
    """Only CutMix, which hides no parts, changes its picture; its features are those of the original."""
    parts, keys = chosen(one_part, world, LEAST, tmp_path), keys_of(one_part)
    records, cache = read_index(one_part).records, PixelCache(world.train / "pixels.h5")
    own, occluded = ({key: row for row, key in enumerate(of)} for of in (keys, parts.rows))
    features = Rows(np.zeros((len(own), 3), np.float16), own, "{}", "")
    twins = Rows(np.ones((len(occluded), 3), np.float16), occluded, "{}", "")
    labels = {record.key: record.label for record in records}
    sources = Sources(cache, keys, labels, [str(n) for n in range(20)], parts, cache, features, twins)
    alike = TrainingSettings(image_size=64, batch_size=16, epochs=1, crop_scale=(1.0, 1.0), flip=0.0)
    batches = TrainingBatches(method, sources, alike, 0, 0)
    seen = set()
    for step in range(len(batches)):
        batch = batches[step]
        for row, item in enumerate(batches._items(step)):
            if item.key not in keys[: ONE_PART + 1]:
                continue
            seen.add(item.key)
            assert item.copy is None
            assert batch.features is None or (batch.features[row] == 0).all()
            if method != "cutmix":
                assert (batch.images[row].numpy() == cut(cache[item.key], item.crop, 64)).all()
            if batch.masks is not None:
                drawn = batch.masks[row].numpy()
                whole = parts.mask(item.key, "object") if item.key in parts.own_twins else np.zeros((64, 64), bool)
                assert (drawn == cut_mask(Runs.of(whole), item.crop, 64)).all()
    assert seen == set(keys[: ONE_PART + 1])


def test_nothing_is_made_of_an_image_that_is_its_own_twin(one_part: Path, world: World, tmp_path: Path) -> None:
    parts = chosen(one_part, world, LEAST, tmp_path)
    out = tmp_path / "0-of-1.h5"
    encode_view(one_part, "parts", world.stage("latents"), out, CPU, tmp_path / "parts.json")
    assert read_rows([out], "latents").row_of.keys() == parts.rows.keys()
