"""Several inpaintings of each image: what they share, what they do not, and which one a training step sees."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfeat.data.crops import image_key, view_key
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache, cache_inpainted
from dfeat.diffusion.inpaint import inpaint_shard
from dfeat.diffusion.settings import InpaintStage
from dfeat.errors import UserError
from dfeat.occlusion.parts import read_parts
from dfeat.report.figures.examples import read_inpainted
from dfeat.section import parse
from dfeat.storage.origin import origin_bytes
from dfeat.storage.provenance import settings_text
from dfeat.storage.shards import Shard, read_shard
from dfeat.training.dataset import TrainingBatches, cut
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Inputs, read_sources
from dfeat.verify import verify_run
from tests.conftest import DEVICE, World

K = 3
SETTINGS = TrainingSettings(image_size=64, batch_size=16, epochs=4)


def inpainted(world: World, copies: int, out: Path, shard: tuple[int, int] = (0, 1)) -> Shard:
    """The world's training images, each inpainted so many times."""
    stage = world.stage("inpaint")
    assert isinstance(stage, InpaintStage)
    several = stage.model_copy(update={"inpaint": stage.inpaint.model_copy(update={"copies": copies})})
    inpaint_shard(world.train, world.parts, several, out, DEVICE, shard)
    return read_shard(out, "inpaint")


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shard and the cache of one inpainting an image (`one/`), and of K (`train/`)."""
    folder = tmp_path_factory.mktemp("copies") / "diffusion" / "inpaint"
    for name, copies in (("one", 1), ("train", K)):
        shard = folder / name / "0-of-1.h5"
        inpainted(world, copies, shard)
        cache_inpainted([shard], world.stage("pixels"), folder / name / "pixels.h5")
    return folder.parents[1]


def shard_of(run: Path, name: str) -> Shard:
    return read_shard(run / "diffusion/inpaint" / name / "0-of-1.h5", "inpaint")


def batches_of(world: World, run: Path, name: str, **changes: object) -> TrainingBatches:
    settings = SETTINGS.model_copy(update=changes)
    cache = run / "diffusion/inpaint" / name / "pixels.h5"
    sources = read_sources("sd_inpaint", Inputs(world.train, world.train / "pixels.h5", world.parts, cache), settings)
    return TrainingBatches("sd_inpaint", sources, settings, 0, 0)


def test_the_first_copy_is_the_only_one_byte_for_byte_and_the_others_differ_where_it_is_hidden(
    world: World, run: Path
) -> None:
    one, several = shard_of(run, "one"), shard_of(run, "train")
    assert several.keys == [view_key(key, number) for key in one.keys for number in range(K)]
    assert several.payload[::K] == one.payload
    assert several.extras["seed"][::K].tolist() == one.extras["seed"].tolist()
    assert len(set(several.extras["seed"].tolist())) == len(several.keys)
    parts = read_parts(world.parts)
    for row in range(0, len(several.keys), K):
        copies = [np.asarray(Image.open(io.BytesIO(encoded))) for encoded in several.payload[row : row + K]]
        hidden = parts.mask(image_key(several.keys[row]))
        for number in range(1, K):
            assert (copies[0] != copies[number])[hidden].any()
            assert (copies[0] == copies[number])[~hidden].all()


def test_one_copy_goes_without_saying_in_what_a_stage_is_given(world: World) -> None:
    """So that shards made before there could be several are those of today's settings, byte for byte."""
    stage = world.stage("inpaint")
    assert '"copies"' not in settings_text(stage)
    more = stage.model_copy(update={"inpaint": stage.inpaint.model_copy(update={"copies": 2})})
    assert '"copies":2' in settings_text(more)
    assert parse(InpaintStage, settings_text(more)) == more and parse(InpaintStage, settings_text(stage)) == stage
    with pytest.raises(UserError, match=r"'inpaint\.copies' is 0"):
        parse(InpaintStage, {"inpaint": {"copies": 0}})


def test_shards_hold_all_copies_of_their_images(world: World, run: Path, tmp_path: Path) -> None:
    whole = shard_of(run, "train")
    rows: dict[str, bytes] = {}
    for number in range(2):
        shard = inpainted(world, K, tmp_path / f"{number}.h5", (number, 2))
        assert set(Counter(map(image_key, shard.keys)).values()) == {K}
        rows |= dict(zip(shard.keys, shard.payload, strict=True))
    assert rows == dict(zip(whole.keys, whole.payload, strict=True))


def test_the_cache_says_how_many_there_are_and_refuses_shards_that_disagree(
    world: World, run: Path, tmp_path: Path
) -> None:
    one, several = (PixelCache(run / "diffusion/inpaint" / name / "pixels.h5") for name in ("one", "train"))
    assert (one.copies, several.copies) == (1, K)
    assert (several[view_key(one.keys[0], 0)] == one[one.keys[0]]).all()
    shards = [run / "diffusion/inpaint" / name / "0-of-1.h5" for name in ("one", "train")]
    with pytest.raises(UserError, match=r"another number of copies of each image \(diffusion\.inpaint\.copies\)"):
        cache_inpainted(shards, world.stage("pixels"), tmp_path / "pixels.h5")


def test_every_epoch_draws_a_copy_and_all_are_drawn(world: World, run: Path) -> None:
    one, several = (batches_of(world, run, name, epochs=40) for name in ("one", "train"))
    assert len(one) == len(several)
    drawn: dict[str, set[str]] = {}
    for step in range(len(several)):
        for single, item in zip(one._items(step), several._items(step), strict=True):
            assert (single.key, single.twin, single.crop) == (item.key, item.twin, item.crop)
            assert single.copy == (item.key if item.twin else None)
            if item.twin:
                assert item.copy is not None and image_key(item.copy) == item.key
                drawn.setdefault(item.key, set()).add(item.copy)
    assert set().union(*drawn.values()) == set(shard_of(run, "train").keys)
    twins = batches_of(world, run, "train", twins=1.0)
    alike = [
        twins._item(key, 0, epoch).copy == twins._item(key, 1, epoch).copy
        for key in twins.keys
        for epoch in range(SETTINGS.epochs)
    ]
    assert 0 < sum(alike) < len(alike)  # an image that is there twice an epoch is drawn twice


def test_batches_do_not_depend_on_workers_or_on_what_was_read_before(world: World, run: Path) -> None:
    plain = batches_of(world, run, "train")
    straight = [plain[step] for step in range(len(plain))]
    loader = torch.utils.data.DataLoader(
        batches_of(world, run, "train"), batch_size=None, num_workers=2, collate_fn=None
    )
    for step, batch in enumerate(loader):
        assert torch.equal(batch.images, straight[step].images)
    again = batches_of(world, run, "train")
    assert torch.equal(again[len(again) - 1].images, straight[-1].images)
    originals, copies = PixelCache(world.train / "pixels.h5"), PixelCache(run / "diffusion/inpaint/train/pixels.h5")
    for item, image in zip(plain._items(7), straight[7].images.numpy(), strict=True):
        seen = copies[item.copy] if item.copy else originals[item.key]
        assert (image == cut(seen, item.crop, SETTINGS.image_size)).all()


def write_verdicts(path: Path, lines: list[str], world: World) -> None:
    """Verdicts as `dfeat judge` writes them, with what they say of themselves beside them."""
    contents = {path: ("\n".join(lines) + "\n").encode()}
    path.write_bytes(contents[path])
    path.with_suffix(".json").write_bytes(origin_bytes({"index": read_index(world.train).digest}, contents))


def test_rejected_copies_are_not_drawn_and_an_image_without_others_is_its_own_twin(
    world: World, run: Path, tmp_path: Path
) -> None:
    keys = [record.key for record in read_index(world.train).records if record.key in read_parts(world.parts).rows]
    rejected = {view_key(keys[0], 1), *(view_key(keys[1], number) for number in range(K))}
    rows = [f"{view_key(key, n)},0,1,1,0,1,{int(view_key(key, n) not in rejected)}" for key in keys for n in range(K)]
    head = "key,label,models,original,black_out,inpainted,accepted"
    verdicts = tmp_path / "verdicts.csv"
    cache = run / "diffusion/inpaint/train/pixels.h5"
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts, cache, verdicts=verdicts)
    settings = SETTINGS.model_copy(update={"inpainted": "accepted", "epochs": 30})
    write_verdicts(verdicts, [head, *rows], world)
    batches = TrainingBatches("sd_inpaint", read_sources("sd_inpaint", inputs, settings), settings, 0, 0)
    drawn = [{batches._item(key, 1, epoch).copy for epoch in range(settings.epochs)} for key in keys[:3]]
    assert drawn == [
        {view_key(keys[0], 0), view_key(keys[0], 2)}, {None}, {view_key(keys[2], number) for number in range(K)},
    ]  # fmt: skip
    assert batches.steps_per_epoch == batches_of(world, run, "one").steps_per_epoch
    write_verdicts(verdicts, [head, *rows[:-1]], world)
    with pytest.raises(UserError, match=f"no verdict on 1 inpainted images .{keys[-1]}#2"):
        read_sources("sd_inpaint", inputs, settings)


def test_pictures_show_the_first_copy_and_verify_finds_all_whole(run: Path, world: World) -> None:
    index, parts = read_index(world.train), read_parts(world.parts)
    one, keys = shard_of(run, "one"), {*shard_of(run, "one").keys[:4]}
    shown = read_inpainted(run, keys, index, parts)
    assert shown.keys() == keys
    for key in keys:
        assert (shown[key] == np.asarray(Image.open(io.BytesIO(one.payload[one.keys.index(key)])))).all()
    with pytest.raises(UserError, match="lacks 1 images"):
        read_inpainted(run, {"nobody"}, index, parts)
    assert {finding.state for finding in verify_run(run)} == {"whole"}
