"""Features: the early end is exact, rows stand alone, and noise belongs to the image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from dfeat.diffusion import FeatureExtractor, features
from dfeat.diffusion.features import extract_features, find_block, forward_until
from dfeat.diffusion.latents import encode_view, part_of, view_image
from dfeat.diffusion.settings import FeatureSettings
from dfeat.errors import UserError
from dfeat.randomness import seed_for
from dfeat.storage.shards import read_shard
from tests.conftest import DEVICE, World

KEYS = ["a", "b", "c"]


def pictures(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "blocks", [["mid"], ["down.0"], ["up.0", "mid"], ["up.1", "down.1"], ["up.0.0", "up.1.1"], ["down.1.0"]]
)
@pytest.mark.parametrize("model", ["four", "nine", "velocity"])
def test_features_equal_a_full_forward_hook_bit_for_bit(
    tiny_models: dict[str, Path], blocks: list[str], model: str, rng: np.random.Generator
) -> None:
    extract = FeatureExtractor.from_pretrained(tiny_models[model], blocks=blocks, timestep=50, device="cpu")
    unet = extract.model.unet
    channels = unet.config.in_channels
    noisy, timesteps = torch.randn(3, channels, 8, 8), torch.tensor([50, 50, 50])
    prompt = extract.null_prompt.expand(3, -1, -1)
    kept: dict[str, torch.Tensor] = {}
    handles = [
        find_block(unet, name).register_forward_hook(
            lambda _m, _i, out, name=name: kept.__setitem__(name, out[0] if isinstance(out, tuple) else out)
        )
        for name in blocks
    ]
    unet(noisy, timesteps, encoder_hidden_states=prompt)
    for handle in handles:
        handle.remove()
    ours = forward_until(unet, extract.blocks, noisy, timesteps, prompt)
    assert all(torch.equal(kept[name], block) for name, block in zip(blocks, ours, strict=True))


def test_features_are_pooled_blocks_of_the_noised_latents(
    tiny_models: dict[str, Path], rng: np.random.Generator
) -> None:
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["mid"], timestep=50, pool=2, device="cpu")
    latents = torch.from_numpy(rng.normal(size=(1, 4, 8, 8))).float()
    noise = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed_for(0, "a", "features 0")))[None]
    noisy = extract.model.scheduler.add_noise(latents * extract.scaling_factor, noise, torch.tensor([50]))
    block = forward_until(extract.model.unet, extract.blocks, noisy, torch.tensor([50]), extract.null_prompt)[0]
    expected = F.adaptive_avg_pool2d(block, 2).flatten(1)
    torch.testing.assert_close(extract.from_latents(latents, ["a"]), expected)


def test_a_row_depends_on_its_image_and_key_alone(tiny_models: dict[str, Path], rng: np.random.Generator) -> None:
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], device="cpu")
    images = pictures(rng)
    order, shuffled = [0, 1, 2, 0], [2, 2, 0, 1]
    features = extract(images[order], [KEYS[i] for i in order])
    assert torch.equal(extract(images[shuffled], [KEYS[i] for i in shuffled]), features[shuffled])
    assert not torch.equal(extract(images[order], ["x", "b", "c", "d"])[0], features[0])


def test_an_ensemble_is_the_mean_of_its_members_and_encodes_once(
    tiny_models: dict[str, Path], rng: np.random.Generator
) -> None:
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], ensemble=3, device="cpu")
    calls: list[int] = []
    extract.model.vae.encoder.register_forward_hook(lambda *_: calls.append(1))
    images = pictures(rng)
    mean = extract(images, KEYS)
    assert len(calls) == 1
    assert mean.shape == extract(images, KEYS).shape
    single = FeatureExtractor.from_pretrained(tiny_models["four"], ensemble=1, device="cpu")(images, KEYS)
    assert not torch.equal(mean, single)


def test_noises_and_timesteps_are_computed_in_batches_of_one_size(
    tiny_models: dict[str, Path], rng: np.random.Generator
) -> None:
    """Eight noises of one image are one pass of eight rows; more rows than a batch are several, of one shape."""
    rows: list[int] = []
    for images, ensemble, timestep, expected in ((1, 8, 25, [8]), (3, 2, [25, 50], [8, 8]), (20, 1, 25, [8, 8, 8])):
        extract = FeatureExtractor.from_pretrained(
            tiny_models["four"], ensemble=ensemble, timestep=timestep, device="cpu"
        )
        handle = extract.model.unet.register_forward_pre_hook(lambda _m, inputs: rows.append(len(inputs[0])))
        keys = [str(number) for number in range(images)]
        pictures = rng.integers(0, 256, (images, 64, 64, 3), dtype=np.uint8)
        together = extract(pictures, keys)
        assert rows == expected
        handle.remove()
        apart = torch.cat([extract(pictures[i : i + 1], keys[i : i + 1]) for i in range(images)])
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
        rows.clear()


def test_what_an_ensemble_gives_is_held_for_one_batch_of_images(
    tiny_models: dict[str, Path], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noises and maps of many images and noises do not pile up on the device."""
    drawn: list[int] = []
    before_pass: list[int] = []
    real = features.draw_noise
    monkeypatch.setattr(features, "draw_noise", lambda shape, seeds: drawn.append(len(seeds)) or real(shape, seeds))
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], ensemble=3, pool=0, device="cpu")
    extract.model.unet.register_forward_pre_hook(lambda *_: before_pass.append(sum(drawn)))
    images, keys = np.concatenate([pictures(rng)] * 6), [str(number) for number in range(18)]
    maps = extract(images, keys)
    assert maps.shape == (18, 32, 4, 4)
    assert before_pass == [24] * 3 + [48] * 3 + [72] * 3
    order = rng.permutation(18)
    assert torch.equal(extract(images[order], [keys[i] for i in order]), maps[order])


def test_whole_maps_of_blocks_of_other_sizes_are_refused(tiny_models: dict[str, Path]) -> None:
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["mid", "up.1"], pool=0, device="cpu")
    with pytest.raises(UserError, match=r"mid 4x4, up.1 8x8.*set pool to 1 or more"):
        extract.from_latents(torch.zeros(2, 4, 8, 8), ["a", "b"])
    one = FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["down.0", "mid"], pool=0, device="cpu")
    assert one.from_latents(torch.zeros(2, 4, 8, 8), ["a", "b"]).shape == (2, 16 + 32, 4, 4)


def test_stopping_early_counts_fewer_flops_than_the_full_forward(tiny_models: dict[str, Path]) -> None:
    extract = FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["mid"], device="cpu")
    inputs = torch.randn(1, 4, 8, 8), torch.tensor([10]), extract.null_prompt
    with FlopCounterMode(display=False) as early:
        forward_until(extract.model.unet, extract.blocks, *inputs)
    with FlopCounterMode(display=False) as full:
        extract.model.unet(inputs[0], inputs[1], encoder_hidden_states=inputs[2])
    assert early.get_total_flops() < 0.6 * full.get_total_flops()


def test_a_block_that_does_not_exist_is_named(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="has 2 up blocks"):
        FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["up.7"], device="cpu")
    with pytest.raises(UserError, match=r"use mid, down.<i> or up.<i>"):
        FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["middle"], device="cpu")
    with pytest.raises(UserError, match=r"'up.1.7', but this U-Net has \d+ up.1 layers; use up.1.0 to up.1.\d"):
        FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["up.1.7"], device="cpu")


def test_without_noise_features_are_of_the_latents_themselves(
    tiny_models: dict[str, Path], rng: np.random.Generator
) -> None:
    extract = FeatureExtractor.from_pretrained(
        tiny_models["four"], blocks=["up.1.0"], timestep=50, noise=False, device="cpu"
    )
    latents = torch.from_numpy(rng.normal(size=(2, 4, 8, 8))).float()
    made = extract.from_latents(latents, ["a", "b"])
    prompt, steps = extract.null_prompt.expand(2, -1, -1), torch.tensor([50, 50])
    [block] = forward_until(extract.model.unet, extract.blocks, latents * extract.scaling_factor, steps, prompt)
    torch.testing.assert_close(made, block.mean((2, 3)))
    assert made.shape == (2, extract.num_features) and "without noise" in repr(extract)
    assert torch.equal(made, extract.from_latents(latents, ["x", "y"]))
    with pytest.raises(UserError, match="ensemble is 3, but without noise all draws are the same; set it to 1"):
        FeatureExtractor.from_pretrained(tiny_models["four"], noise=False, ensemble=3, device="cpu")
    assert "noise" not in FeatureSettings().model_dump() and FeatureSettings(noise=False).model_dump()["noise"] is False


def test_a_layer_whose_output_is_kept_is_not_compiled(tiny_models: dict[str, Path]) -> None:
    from dfeat.diffusion.models import compile_model

    plain, compiled = (
        FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["up.0.0", "up.1.0"], device="cpu")
        for _ in range(2)
    )
    compile_model(compiled.model, True, backend="eager", apart=compiled.blocks)
    latents = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(compiled.from_latents(latents, ["a", "b"]), plain.from_latents(latents, ["a", "b"]))


def test_shards_of_another_size_hold_the_same_rows(world: World, tmp_path: Path) -> None:
    latents, features = world.stage("latents"), world.stage("features")
    rows: dict[int, dict[str, bytes]] = {}
    for count in (1, 3):
        rows[count] = {}
        for number in range(count):
            encode_view(world.train, "parts", latents, tmp_path / "l.h5", DEVICE, world.parts, (number, count))
            extract_features(tmp_path / "l.h5", features, tmp_path / "f.h5", DEVICE)
            shard = read_shard(tmp_path / "f.h5", "features")
            rows[count] |= {key: row.tobytes() for key, row in zip(shard.keys, shard.payload, strict=True)}
    assert rows[1] == rows[3]
    assert len(rows[1]) == 40


def test_shards_say_what_they_are(world: World, tmp_path: Path) -> None:
    encode_view(world.root / "data" / "dfeat_real", "drop:40", world.stage("latents"), tmp_path / "l.h5", DEVICE)
    extract_features(tmp_path / "l.h5", world.stage("features"), tmp_path / "f.h5", DEVICE)
    latents, features = read_shard(tmp_path / "l.h5", "latents"), read_shard(tmp_path / "f.h5", "features")
    assert latents.payload.dtype == features.payload.dtype == np.float16
    assert latents.payload.shape == (20, 4, 8, 8)
    assert latents.model == features.model
    assert json.loads(features.settings)["latents"] == json.loads(latents.settings)
    assert json.loads(latents.settings)["view"] == "drop:40"


def test_views_black_out_parts_or_patches(world: World) -> None:
    from dfeat.data.index import read_index
    from dfeat.occlusion.parts import read_parts

    index, parts, stage = read_index(world.train), read_parts(world.parts), world.stage("latents")
    record = index.records[0]
    clean, hidden, dropped = (view_image(index, record, view, stage, parts) for view in ("clean", "parts", "drop:40"))
    assert (hidden[parts.mask(record.key)] == 0).all()
    assert (hidden[~parts.mask(record.key)] == clean[~parts.mask(record.key)]).all()
    assert (dropped == 0).all(axis=2).mean() >= 26 / 64


def test_bad_views_and_shards_are_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="use clean, parts, or drop:P"):
        encode_view(world.train, "dropped", world.stage("latents"), tmp_path / "x.h5", DEVICE)
    with pytest.raises(UserError, match="needs --parts"):
        encode_view(world.train, "parts", world.stage("latents"), tmp_path / "x.h5", DEVICE)
    with pytest.raises(UserError, match="numbered 0 to 2"):
        part_of([], (3, 3))
    with pytest.raises(UserError, match="has no images: there are 0 in all"):
        part_of([], (0, 3))
    assert list(tmp_path.iterdir()) == []
