"""Training: Eq. 1, the batches of each method, fusion, and a resumption that changes no bit."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file
from timm import create_model

from dfeat.data.classes import imagenet_wnids
from dfeat.data.crops import Crop
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache
from dfeat.errors import UserError
from dfeat.methods import NAMES
from dfeat.methods.runs import Runs
from dfeat.occlusion.parts import choose_all, read_parts
from dfeat.section import parse
from dfeat.storage.shards import Rows
from dfeat.training import loop
from dfeat.training.dataset import Batch, TrainingBatches, _Item, cut, cut_mask
from dfeat.training.fusion import FEATURE_NORMS, FUSIONS
from dfeat.training.losses import eq1
from dfeat.training.network import FusionNetwork, build_backbone, start_from_pretrained_head
from dfeat.training.settings import Backbone, TrainingSettings, TrainStage
from dfeat.training.sources import Inputs, Sources, read_sources
from tests.conftest import DEVICE, TINY_BACKBONE, World


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(value) for value in row))
    return [value - total for value in row]


def test_eq1_equals_a_hand_computation() -> None:
    images, masks, labels = [[2.0, 0.5, -1.0], [0.1, 0.2, 0.3]], [[1.0, 0.0, 0.0], [0.0, 3.0, 1.0]], [0, 2]
    expected_images = -sum(log_softmax(row)[label] for row, label in zip(images, labels, strict=True)) / 2
    expected_masks = -sum(log_softmax(row)[label] for row, label in zip(masks, labels, strict=True)) / 2
    arguments = torch.tensor(images), torch.tensor(labels), torch.tensor(masks)
    assert float(eq1(*arguments, alpha=0.7, beta=0.3)) == pytest.approx(0.7 * expected_images + 0.3 * expected_masks)
    assert float(eq1(*arguments[:2], None, alpha=0.7, beta=0.3)) == pytest.approx(expected_images)


@pytest.fixture(scope="module")
def sources(world: World) -> Sources:
    index, parts, cache = read_index(world.train), read_parts(world.parts), PixelCache(world.train / "pixels.h5")
    keys = [record.key for record in index.records]
    rows = {key: row for row, key in enumerate(keys)}
    clean, twin = np.zeros((40, 5), np.float16), np.ones((40, 5), np.float16)
    return Sources(
        cache, keys, {r.key: r.label for r in index.records}, [info.wnid for info in index.classes], parts, cache,
        Rows(clean, rows, "{}", ""), Rows(twin, rows, "{}", ""),
    )  # fmt: skip


SETTINGS = TrainingSettings(image_size=64, batch_size=16, epochs=2, crop_scale=(1.0, 1.0), flip=0.0)


def test_every_method_takes_the_same_number_of_steps_over_originals_and_twins(sources: Sources) -> None:
    for method in NAMES:
        batches = TrainingBatches(method, sources, SETTINGS, 0, 0)
        assert len(batches) == 2 * 5
        order = batches._epoch_order(0)
        assert sorted(order.tolist()) == list(range(80))


@pytest.mark.parametrize("method", NAMES)
def test_batches_are_functions_of_seed_and_step(sources: Sources, method: str) -> None:
    one, other = (
        TrainingBatches(method, sources, TrainingSettings(image_size=64, batch_size=16), 3, 0) for _ in range(2)
    )
    other[7]
    first, second = one[2], other[2]
    assert (first.images == second.images).all()
    assert (first.targets == second.targets).all()
    assert (TrainingBatches(method, sources, SETTINGS, 4, 0)[2].images != first.images).any()


def row_of(sources: Sources, method: str, key: str, twin: bool) -> Batch:
    """The batch of one item, uncropped."""
    batches = TrainingBatches(method, sources, SETTINGS, 0, 0)
    rows = batches._rows(key, twin)
    feature = None if rows is None else rows.row_of[key]
    batches._items = lambda _step: [_Item(key, twin, Crop((0.0, 0.0, 1.0, 1.0), False), feature)]
    return batches[0]


def test_twins_are_painted_as_their_method_says(sources: Sources) -> None:
    key = sources.keys[0]
    original, hidden = sources.pixels[key], sources.parts.mask(key)

    def picture(method: str, twin: bool) -> np.ndarray:
        return row_of(sources, method, key, twin).images[0].numpy()

    assert (picture("none", True) == original).all()
    assert (picture("black_out", False) == original).all()
    black = picture("black_out", True)
    assert (black[hidden] == 0).all()
    assert (black[~hidden] == original[~hidden]).all()
    replaced = row_of(sources, "replace", key, True)
    partner = sources.pixels[TrainingBatches("replace", sources, SETTINGS, 0, 0).partner[key]]
    assert (replaced.images[0].numpy()[hidden] == partner[hidden]).all()
    assert (replaced.mask_images()[0].numpy()[..., 0] == 255 * sources.parts.mask(key, "object")).all()
    features = row_of(sources, "sd_features", key, True)
    assert (features.images[0].numpy() == black).all()
    assert (features.features == 1).all()
    assert (row_of(sources, "sd_features", key, False).features == 0).all()


def test_without_originals_an_epoch_is_as_long_and_has_each_twin_twice(sources: Sources) -> None:
    alone = SETTINGS.model_copy(update={"twins": 1.0, "crop_scale": (0.3, 0.9)})
    batches = TrainingBatches("black_out", sources, alone, 0, 0)
    items = [item for step in range(batches.steps_per_epoch) for item in batches._items(step)]
    assert len(items) == 2 * len(sources.keys)
    assert all(item.twin for item in items)
    assert len({(item.key, item.crop.box) for item in items}) == len(items)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.7, 1.0])
def test_a_share_of_the_images_are_twins_the_second_of_an_image_first(sources: Sources, share: float) -> None:
    settings = SETTINGS.model_copy(update={"twins": share, "epochs": 20})
    batches = TrainingBatches("black_out", sources, settings, 0, 0)
    twins = [[batches._is_twin(second, f"{key} {second} {epoch}") for second in (0, 1)]
             for key in batches.keys for epoch in range(20)]  # fmt: skip
    first, second = np.mean(twins, axis=0)
    assert abs((first + second) / 2 - share) < 0.03
    assert first == 0 if share <= 0.5 else second == 1


def test_the_former_setting_is_understood_and_recorded_as_before() -> None:
    for former, share in ((True, 0.5), (False, 1.0)):
        given = parse(TrainingSettings, {"originals": former})
        assert given.twins == share
        recorded = TrainStage(backbone=Backbone(name="x"), training=given).model_dump()["training"]
        assert recorded["originals"] is former and "twins" not in recorded
        assert parse(TrainingSettings, recorded) == given
    other = parse(TrainingSettings, {"twins": 0.25})
    recorded = TrainStage(backbone=Backbone(name="x"), training=other).model_dump()["training"]
    assert parse(TrainingSettings, recorded) == other


def test_with_clean_features_a_twin_is_the_original_and_needs_no_features_of_its_own(sources: Sources) -> None:
    clean = TrainingSettings(**SETTINGS.model_dump() | {"twin_features": "clean"})
    alone = Sources(**vars(sources) | {"twin_features": None})
    batch = TrainingBatches("sd_features", alone, clean, 0, 0)[1]
    assert (batch.features == 0).all()
    assert (batch.images == TrainingBatches("none", sources, SETTINGS, 0, 0)[1].images).all()


def test_a_pretrained_head_starts_as_the_rows_of_the_runs_classes(sources: Sources, tmp_path: Path) -> None:
    pretrained = create_model(TINY_BACKBONE["name"], num_classes=1000, **TINY_BACKBONE["kwargs"])
    save_file(pretrained.state_dict(), tmp_path / "weights.safetensors")
    backbone = Backbone(**TINY_BACKBONE, weights=str(tmp_path / "weights.safetensors"))
    rows = [imagenet_wnids().index(wnid) for wnid in sources.wnids]
    for feature_width in (0, 5):
        model = FusionNetwork(build_backbone(backbone), 20, feature_width)
        new = model.head.weight.detach().clone()
        start_from_pretrained_head(model, backbone, sources.wnids)
        width = pretrained.num_features
        assert torch.equal(model.head.weight[:, :width], pretrained.get_classifier().weight[rows])
        assert torch.equal(model.head.weight[:, width:], new[:, width:])
        assert torch.equal(model.head.bias, pretrained.get_classifier().bias[rows])
    with pytest.raises(UserError, match="lack n02958343"):
        start_from_pretrained_head(model, backbone, [*sources.wnids[:-1], "n02958343"])


def test_cutmix_mixes_twins_only_and_labels_in_proportion(sources: Sources) -> None:
    plain, mixed = (TrainingBatches(method, sources, SETTINGS, 0, 0) for method in ("none", "cutmix"))
    a, b = plain[0], mixed[0]
    changed = (a.images != b.images).flatten(1).any(1).numpy()
    twins = mixed._epoch_order(0)[:16] % 2 == 1
    assert not changed[~twins].any()
    assert changed[twins].any()
    np.testing.assert_allclose(b.targets.sum(1), 1, rtol=1e-6)
    assert ((b.targets.amax(1).numpy() < 1) <= twins).all()


def test_crops_are_those_of_pillow_to_two_levels(rng: np.random.Generator) -> None:
    coarse = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((341, 256), Image.Resampling.BICUBIC))
    for box in ((0.1, 0.2, 0.9, 0.85), (0.0, 0.0, 1.0, 1.0), (0.4, 0.3, 0.6, 0.7)):
        left, top, right, bottom = (round(x) for x in np.array(box) * (341, 256, 341, 256))
        crop = Image.fromarray(image).crop((left, top, right, bottom))
        wanted = np.asarray(crop.resize((224, 224), Image.Resampling.BICUBIC))
        apart = np.abs(cut(image, Crop(box, False), 224).astype(int) - wanted)
        assert apart.max() <= 2
        assert apart.mean() < 0.1
        assert (cut(image, Crop(box, True), 224)[:, ::-1] == cut(image, Crop(box, False), 224)).all()


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.01, 1), st.booleans())
def test_a_mask_is_cut_where_its_image_is(
    height: int, width: int, left: float, top: float, share: float, flip: bool
) -> None:
    mask = np.random.default_rng(height * width).random((height, width)) < 0.5
    box = (left, top, left + (1 - left) * share, top + (1 - top) * share)
    found = cut_mask(Runs.of(mask), Crop(box, flip), 16)
    for row in range(16):
        for column in range(16):
            at = 15 - column if flip else column
            y = int((box[1] + (row + 0.5) / 16 * (box[3] - box[1])) * height)
            x = int((box[0] + (at + 0.5) / 16 * (box[2] - box[0])) * width)
            assert found[row, column] == mask[min(y, height - 1), min(x, width - 1)]


@pytest.mark.parametrize("norm", FEATURE_NORMS)
@pytest.mark.parametrize("fusion", sorted(FUSIONS))
def test_every_fusion_uses_both_features(fusion: str, norm: str) -> None:
    class Flat(torch.nn.Module):
        num_features = 12

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :12]

    torch.manual_seed(0)
    model = FusionNetwork(Flat(), 3, 7, fusion, norm).eval()
    images, features = torch.randn(2, 3, 4, 4), torch.randn(2, 7)
    logits = model(images, features)
    assert logits.shape == (2, 3)
    assert not torch.allclose(logits, model(images, features + torch.randn(2, 7)))
    assert not torch.allclose(logits, model(images + torch.randn(2, 3, 4, 4), features))


@pytest.fixture(scope="module")
def stage(world: World, tmp_path_factory: pytest.TempPathFactory) -> TrainStage:
    weights = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    torch.manual_seed(0)
    save_file(create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict(), weights)
    chosen = world.stage("train", "convnext")
    return chosen.model_copy(update={"backbone": chosen.backbone.model_copy(update={"weights": str(weights)})})


def inputs(world: World) -> Inputs:
    return Inputs(world.train, world.train / "pixels.h5", world.parts)


def test_a_resumed_training_equals_an_undisturbed_one_bit_for_bit(
    world: World, stage: TrainStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage.model_copy(update={"training": stage.training.model_copy(update={"drop_path": 0.3})})
    loop.train("replace", inputs(world), stage, 0, tmp_path / "whole", DEVICE)
    real_step, steps = loop._step, []

    def dying_step(*arguments):
        steps.append(1)
        if len(steps) == 8:  # three steps into the second epoch
            raise KeyboardInterrupt
        return real_step(*arguments)

    monkeypatch.setattr(loop, "_step", dying_step)
    with pytest.raises(KeyboardInterrupt):
        loop.train("replace", inputs(world), stage, 0, tmp_path / "broken", DEVICE, checkpoint_minutes=0)
    assert [path.name for path in (tmp_path / "broken").iterdir() if path.is_file()] == ["checkpoint.safetensors"]
    loop.train("replace", inputs(world), stage, 0, tmp_path / "broken", DEVICE)
    assert len(steps) == 8 + 3  # it goes on in the middle of the epoch
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole/metrics.jsonl").read_text() == (tmp_path / "broken/metrics.jsonl").read_text()


def test_a_checkpoint_of_other_settings_is_not_resumed(world: World, stage: TrainStage, tmp_path: Path) -> None:
    shorter = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 1})})
    loop.train("none", inputs(world), shorter, 0, tmp_path / "a", DEVICE)
    loop.train("none", inputs(world), shorter, 1, tmp_path / "b", DEVICE)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_of_other_inputs_is_not_resumed(world: World, stage: TrainStage, tmp_path: Path) -> None:
    """Other parts, with the same settings of the training: what a killed one had learned of the old ones is dropped."""
    other = tmp_path / "parts.json"
    choose_all(world.train, world.stage("parts").model_copy(update={"share": 0.01}), other)
    changed = dataclasses.replace(inputs(world), parts=other)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_write_run", lambda *_arguments: None)  # killed when all steps are taken
        loop.train("black_out", inputs(world), stage, 0, tmp_path / "killed", DEVICE, checkpoint_minutes=0)
    assert (tmp_path / "killed/checkpoint.safetensors").is_file()
    loop.train("black_out", changed, stage, 0, tmp_path / "killed", DEVICE)
    loop.train("black_out", changed, stage, 0, tmp_path / "whole", DEVICE)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_workers_change_no_bit(world: World, stage: TrainStage, tmp_path: Path) -> None:
    shorter = stage.model_copy(update={"training": stage.training.model_copy(update={"epochs": 1})})
    for workers in (0, 2):
        loop.train("black_out", inputs(world), shorter, 0, tmp_path / str(workers), DEVICE, workers)
    assert (tmp_path / "0/model.safetensors").read_bytes() == (tmp_path / "2/model.safetensors").read_bytes()


def test_a_training_tells_what_it_waited_for(world: World, stage: TrainStage, tmp_path: Path) -> None:
    done = loop.train("black_out", inputs(world), stage, 0, tmp_path / "run", DEVICE)
    steps = json.loads((tmp_path / "run" / "run.json").read_text())["steps"]
    assert done.rows == steps * stage.training.batch_size
    assert 0 < done.waited < 1


def test_a_loss_that_is_not_finite_stops_the_run(world: World, stage: TrainStage, tmp_path: Path) -> None:
    wild = stage.model_copy(update={"training": stage.training.model_copy(update={"learning_rate": 1e30})})
    with pytest.raises(UserError, match="not finite") as stop:
        loop.train("none", inputs(world), wild, 0, tmp_path / "wild", DEVICE)
    step = int(str(stop.value).split("step ")[1].split()[0])
    batches = TrainingBatches("none", read_sources("none", inputs(world), wild.training), wild.training, 0, 0)
    assert all(key in str(stop.value) for key in batches.keys_of(step)[:8])
    assert not (tmp_path / "wild" / "model.safetensors").exists()


@pytest.mark.slow
def test_a_compiled_training_is_the_same_to_rounding(world: World, stage: TrainStage, tmp_path: Path) -> None:
    for compiled in (False, True):
        settings = stage.training.model_copy(update={"epochs": 1, "compile": compiled})
        chosen = stage.model_copy(update={"training": settings})
        loop.train("none", inputs(world), chosen, 0, tmp_path / str(compiled), DEVICE)
    plain, compiled_ = (load_file(tmp_path / name / "model.safetensors") for name in ("False", "True"))
    assert plain.keys() == compiled_.keys()
    assert all(torch.allclose(plain[name], compiled_[name], atol=1e-4) for name in plain)


def test_a_training_starts_from_the_pretrained_head_where_it_is_told_to(
    world: World, stage: TrainStage, tmp_path: Path
) -> None:
    whole = create_model(TINY_BACKBONE["name"], num_classes=1000, **TINY_BACKBONE["kwargs"])
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    backbone = stage.backbone.model_copy(update={"weights": str(tmp_path / "weights.safetensors")})
    settings = stage.training.model_copy(
        update={"head": "pretrained", "twins": 1.0, "epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0}
    )
    chosen = stage.model_copy(update={"backbone": backbone, "training": settings})
    loop.train("black_out", inputs(world), chosen, 0, tmp_path / "run", DEVICE)
    trained = load_file(tmp_path / "run/model.safetensors")
    rows = [imagenet_wnids().index(info.wnid) for info in read_index(world.train).classes]
    torch.testing.assert_close(trained["head.weight"], whole.get_classifier().weight.detach()[rows])


def test_what_a_method_lacks_is_named(world: World, stage: TrainStage, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs --inpainted"):
        loop.train("sd_inpaint", inputs(world), stage, 0, tmp_path, DEVICE)
    with pytest.raises(UserError, match="needs --features"):
        loop.train("sd_features", inputs(world), stage, 0, tmp_path, DEVICE)


def test_backbones_that_cannot_be_built_are_named(stage: TrainStage, tmp_path: Path) -> None:
    backbone = stage.backbone
    with pytest.raises(UserError, match="did you mean 'convnext_base'"):
        build_backbone(backbone.model_copy(update={"name": "convnxt_base"}))
    with pytest.raises(UserError, match="weights must be a file of one of the kinds"):
        build_backbone(backbone.model_copy(update={"weights": str(tmp_path / "a.zip")}))
    with pytest.raises(UserError, match="is missing"):
        build_backbone(backbone.model_copy(update={"weights": str(tmp_path / "a.safetensors")}))
    wider = backbone.model_copy(update={"kwargs": {**backbone.kwargs, "dims": [8, 16, 24, 40]}})
    with pytest.raises(UserError, match="does not fit the backbone"):
        build_backbone(wider)


def test_a_crop_is_resized_with_its_pixels_side_by_side(rng: np.random.Generator) -> None:
    """torch's kernel for planes gives the same bytes in twice the time, and leaves planes behind."""
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert cut(image, Crop((0.1, 0.1, 0.9, 0.8), False), 32).flags.c_contiguous
