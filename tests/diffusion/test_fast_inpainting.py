"""The fast choices: fewer guided passes, deep features used again, a square around the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from dfeat.diffusion import Inpainter
from dfeat.diffusion.canvas import around, sides
from dfeat.diffusion.denoise import forward_keeping, forward_shallow
from dfeat.diffusion.inpaint import inpaint_shard
from dfeat.diffusion.schedule import Pass, passes
from dfeat.diffusion.settings import InpaintSettings, InpaintStage
from dfeat.errors import UserError
from dfeat.section import parse
from dfeat.storage.shards import read_shard
from tests.conftest import DEVICE, World
from tests.diffusion.test_inpaint import PROMPTS, scene


@pytest.mark.parametrize("model", ["four", "nine", "velocity"])
def test_the_shallow_pass_on_its_own_deep_features_is_the_whole_pass_bit_for_bit(
    tiny_models: dict[str, Path], model: str
) -> None:
    unet = Inpainter.from_pretrained(tiny_models[model], device="cpu").model.unet
    x = torch.randn(2, unet.config.in_channels, 8, 8)
    prompt, timestep = torch.randn(2, 16, unet.config.cross_attention_dim), torch.tensor(40)
    with torch.no_grad():
        whole, deep = forward_keeping(unet, x, timestep, prompt)
        assert torch.equal(whole, unet(x, timestep, encoder_hidden_states=prompt).sample)
        assert torch.equal(forward_shallow(unet, x, timestep, prompt, deep), whole)


def test_passes_alternate_and_guidance_that_turns_on_gets_a_whole_pass() -> None:
    chosen = InpaintSettings(steps=6, cache_interval=3, guidance_interval=(0.3, 0.7))
    kinds = [(step.guided, step.whole) for step in passes(chosen)]
    assert kinds == [(False, True), (False, False), (True, True), (True, True), (False, False), (False, False)]
    assert passes(InpaintSettings(steps=2, guidance_scale=1)) == [Pass(False, True)] * 2
    assert passes(InpaintSettings(steps=3)) == [Pass(True, True)] * 3


@pytest.mark.parametrize(
    "fast",
    [{"guidance_interval": (0, 0.5)}, {"cache_interval": 3}, {"cache_interval": 2, "guidance_interval": (0.4, 1)}],
)
def test_fast_passes_count_the_flops_their_schedule_says(
    tiny_models: dict[str, Path], fast: dict[str, object], rng: np.random.Generator
) -> None:
    """Unguided passes cost half, shallow ones what the outermost layer costs; nothing else runs."""
    images, masks = scene(rng)
    inpaint = Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=6, **fast)
    unet, prompt = inpaint.model.unet, inpaint._embedded(PROMPTS)
    x, timestep = torch.randn(6, 4, 8, 8), torch.tensor(40)
    deep = forward_keeping(unet, x, timestep, prompt)[1]
    whole = counted(lambda: unet(x, timestep, encoder_hidden_states=prompt))
    shallow = counted(lambda: forward_shallow(unet, x, timestep, prompt, deep))
    assert shallow < whole / 2
    without_unet = counted(lambda: inpaint.model.vae.decode(torch.randn(3, 4, 8, 8))) + counted(
        lambda: inpaint.model.vae.encode(torch.randn(3, 3, 64, 64))
    )
    expected = sum(
        (1 if step.guided else 0.5) * (whole if step.whole else shallow) for step in passes(inpaint.settings)
    )
    assert counted(lambda: inpaint(images, masks, PROMPTS)) == pytest.approx(expected + without_unet, rel=1e-6)


def counted(call: object) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()  # type: ignore[operator]
    return counter.get_total_flops()


def test_fast_choices_change_the_image_a_little_and_off_is_off(
    tiny_models: dict[str, Path], rng: np.random.Generator
) -> None:
    images, masks = scene(rng)

    def filled(**chosen: object) -> np.ndarray:
        return Inpainter.from_pretrained(tiny_models["four"], device="cpu", steps=6, **chosen)(images, masks, PROMPTS)

    paper = filled()
    assert (filled(guidance_interval=(0, 1), cache_interval=1) == paper).all()
    assert not (filled(cache_interval=3) == paper).all()
    assert not (filled(guidance_interval=(0, 0.5)) == paper).all()


@given(st.integers(0, 63), st.integers(0, 63), st.integers(1, 64), st.integers(1, 64), st.sampled_from([16, 32, 64]))
def test_the_square_holds_the_mask_and_lies_inside(top: int, left: int, high: int, wide: int, multiple: int) -> None:
    mask = np.zeros((64, 64), bool)
    mask[top : top + high, left : left + wide] = True
    allowed = sides(64, multiple)
    square = around(mask, allowed)
    assert square.side in allowed
    assert 0 <= square.top <= 64 - square.side
    assert 0 <= square.left <= 64 - square.side
    inside = np.zeros_like(mask)
    inside[square.where] = True
    assert inside[mask].all()


def test_a_small_mask_takes_the_small_square_with_its_margin() -> None:
    assert sides(512, 64) == [256, 384, 512]
    mask = np.zeros((512, 512), bool)
    mask[300:310, 20:30] = True
    square = around(mask, sides(512, 64))
    assert square.side == 256
    assert square.top <= 300 - 64
    assert square.left == 0
    mask[:, 100] = True
    assert around(mask, sides(512, 64)).side == 512
    assert around(np.zeros((512, 512), bool), sides(512, 64)).side == 256


def test_cropped_inpainting_keeps_known_pixels_and_the_order_of_rows(world: World, tmp_path: Path) -> None:
    plain = world.stage("inpaint")
    assert isinstance(plain, InpaintStage)
    cropped = plain.model_copy(update={"inpaint": plain.inpaint.model_copy(update={"crop": True})})
    inpaint_shard(world.train, world.parts, plain, tmp_path / "plain.h5", DEVICE)
    inpaint_shard(world.train, world.parts, cropped, tmp_path / "cropped.h5", DEVICE, workers=2)
    shards = [read_shard(tmp_path / f"{name}.h5", "inpaint") for name in ("plain", "cropped")]
    assert shards[0].keys == shards[1].keys
    assert (shards[0].extras["seed"] == shards[1].extras["seed"]).all()
    whole_and_parts_cut = [(tmp_path / f"{number}.h5") for number in range(2)]
    rows = {}
    for number, path in enumerate(whole_and_parts_cut):
        inpaint_shard(world.train, world.parts, cropped, path, DEVICE, (number, 2))
        shard = read_shard(path, "inpaint")
        rows |= dict(zip(shard.keys, shard.payload, strict=True))
    assert rows == dict(zip(shards[1].keys, shards[1].payload, strict=True))


def test_settings_out_of_range_are_sentences(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="ends before it starts"):
        parse(InpaintSettings, {"guidance_interval": [0.7, 0.2]})
    with pytest.raises(UserError, match="cache_interval"):
        parse(InpaintSettings, {"cache_interval": 0})
