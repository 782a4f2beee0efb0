"""The forward process is that of the betas, whatever sampler a model's folder names, and what has none is refused."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from dfeat.diffusion.features import FeatureExtractor
from dfeat.diffusion.forward import SAMPLERS_OF_BETAS, NoiseSchedule, forward_process, noised, sampler
from dfeat.diffusion.inpaint import Inpainter
from dfeat.diffusion.layout import check_pairing, find_model
from dfeat.diffusion.models import load_model
from dfeat.diffusion.schedule import Pass
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings, ModelSource
from dfeat.errors import UserError
from tests.conftest import CPU
from tests.diffusion.test_inpaint import PROMPTS, scene

Made = tuple[torch.Tensor, np.ndarray, np.ndarray]
PLAIN: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
}
EXPORTED = sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))
"""Every scheduler of the installed diffusers: a class that a later one adds is tested too."""


def folder_with(model: Path, out: Path, config: dict[str, Any], name: str | None = None) -> Path:
    """A copy of a model, its weights linked, with another scheduler_config.json; `name` stands in model_index.json."""
    shutil.copytree(model, out, copy_function=os.link)
    changed = {"scheduler/scheduler_config.json": config}
    if name:
        index = json.loads((out / "model_index.json").read_text())
        changed["model_index.json"] = index | {"scheduler": ["diffusers", name]}
    for path, content in changed.items():
        (out / path).unlink()
        (out / path).write_text(json.dumps(content))
    return out


def saved(name: str, stated: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a scheduler writes when it is built with those of `stated` that it takes."""
    cls = getattr(diffusers, name)
    taken = inspect.signature(cls.__init__).parameters
    try:
        made = cls(**{key: value for key, value in stated.items() if key in taken})
        return {**json.loads(made.to_json_string()), "_class_name": name}
    except (ImportError, TypeError, ValueError):  # it needs another library or other arguments
        return {**stated, "_class_name": name}


def both_uses(folder: Path, precision: Any = "float32") -> Made:
    """Features, and inpaintings by both samplers."""
    model = load_model(ModelSource(path=str(folder), precision=precision), "inpaint", CPU)
    extract = FeatureExtractor(model, FeatureSettings(timestep=(25, 261)), model.scaling_factor)
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    images, masks = scene(np.random.default_rng(0))
    filled = (
        Inpainter(model, InpaintSettings(steps=3, scheduler=one))(images, masks, PROMPTS)
        for one in ("ddim", "dpmsolver++")
    )
    return extract.from_latents(latents, ["a", "b"]), *filled


@pytest.fixture(scope="module")
def plain(tiny_models: dict[str, Path]) -> Made:
    return both_uses(tiny_models["four"])


def same(one: Made, other: Made) -> bool:
    return torch.equal(one[0], other[0]) and (one[1] == other[1]).all() and (one[2] == other[2]).all()


@pytest.mark.parametrize("name", EXPORTED)
def test_a_folder_that_names_any_sampler_gives_the_plain_folders_bits_or_is_refused(
    name: str, tiny_models: dict[str, Path], plain: Made, tmp_path: Path
) -> None:
    folder = folder_with(tiny_models["four"], tmp_path / "model", saved(name, PLAIN), name)
    if name in SAMPLERS_OF_BETAS:
        assert same(both_uses(folder), plain)
        return
    with pytest.raises(UserError) as refusal:
        both_uses(folder)
    for part in (f"{folder}/scheduler/scheduler_config.json", repr(name), "DDIMScheduler", "Give a Stable Diffusion"):
        assert part in str(refusal.value)


@pytest.mark.parametrize("name", SAMPLERS_OF_BETAS)
def test_the_samplers_that_are_accepted_have_the_alphas_of_the_betas(name: str) -> None:
    assert name in EXPORTED
    cls = getattr(diffusers, name)
    taken = inspect.signature(cls.__init__).parameters
    for schedule in ("scaled_linear", "squaredcos_cap_v2"):
        stated = PLAIN | {"beta_schedule": schedule}
        try:
            made = cls(**{key: value for key, value in stated.items() if key in taken})
        except ImportError as error:
            pytest.skip(str(error).strip().splitlines()[0])
        ours = forward_process(NoiseSchedule(**stated))
        torch.testing.assert_close(made.alphas_cumprod, ours.alphas_cumprod, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "own",
    [
        {"timestep_spacing": "linspace", "steps_offset": 0, "set_alpha_to_one": True},
        {"timestep_spacing": "trailing", "clip_sample": True, "thresholding": True},
        {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "sigma_min"},
        {"num_train_timesteps": None, "rescale_betas_zero_snr": None, "clip_sample": None},
    ],
)
def test_how_the_folders_sampler_is_set_changes_nothing(
    own: dict[str, Any], tiny_models: dict[str, Path], plain: Made, tmp_path: Path
) -> None:
    """As today's folders have it, or as those of Stable Diffusion 1, which state neither spacing nor clipping."""
    config = {key: value for key, value in (PLAIN | own).items() if value is not None}
    assert same(both_uses(folder_with(tiny_models["four"], tmp_path / "model", config)), plain)


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        ({"beta_start": None}, "'beta_start' is missing"),
        ({"beta_end": 1.5}, "'beta_end' is 1.5: input should be less than 1"),
        (
            {"beta_schedule": "sigmoid"},
            "'beta_schedule' is 'sigmoid': input should be 'linear', 'scaled_linear' or 'squ",
        ),
        (
            {"prediction_type": "flow_prediction"},
            "'prediction_type' is 'flow_prediction': input should be 'epsilon' or",
        ),
        ({"use_flow_sigmas": True}, "'use_flow_sigmas' is True: input should be False"),
        ({"timestep_type": "continuous"}, "'timestep_type' is 'continuous': input should be 'discrete'"),
        ({"trained_betas": [0.1, 0.2]}, "'trained_betas' has 2 values; it must have num_train_timesteps, 1000"),
        ({"rescale_betas_zero_snr": True}, "'rescale_betas_zero_snr' is True with the prediction_type epsilon"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "names the scheduler 'FlowMatchEulerDiscreteScheduler'"),
    ],
)
def test_another_forward_process_is_refused_before_weights_are_read(
    own: dict[str, Any], sentence: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    config = {key: value for key, value in (PLAIN | own).items() if value is not None}
    folder = folder_with(tiny_models["four"], tmp_path / "model", config)
    with pytest.raises(UserError) as refusal:
        check_pairing(find_model(ModelSource(path=str(folder))), "float32")
    assert str(refusal.value).startswith(f"{folder}/scheduler/scheduler_config.json")
    assert sentence in str(refusal.value)
    assert "ive a Stable Diffusion 1 or 2 model" in str(refusal.value)


@pytest.mark.parametrize(
    "own",
    [
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"trained_betas": np.linspace(0.001, 0.02, 1000).tolist()},
        {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    ],
)
def test_betas_are_what_matters(own: dict[str, Any], tiny_models: dict[str, Path], plain: Made, tmp_path: Path) -> None:
    made = both_uses(folder_with(tiny_models["four"], tmp_path / "model", PLAIN | own))
    assert not any(np.array_equal(one, other) for one, other in zip(made, plain, strict=True))
    assert torch.isfinite(made[0]).all()


def test_ddim_steps_by_the_distance_of_its_timesteps() -> None:
    forward = forward_process(NoiseSchedule(**PLAIN))
    for steps in range(1, 1000):
        timesteps = sampler(forward, "ddim", steps).timesteps.numpy()
        assert len(timesteps) == steps
        assert timesteps[0] <= 999 and timesteps[-1] == 1
        assert set(-np.diff(timesteps)) <= {1000 // steps}
    for steps in (1, 15, 50, 999):
        timesteps = sampler(forward, "dpmsolver++", steps).timesteps.numpy()
        assert len(set(timesteps)) == steps
        assert timesteps[0] == 999 and timesteps[-1] > 0


def test_steps_and_timesteps_that_the_model_was_not_trained_with_are_refused(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    folder = folder_with(tiny_models["four"], tmp_path / "model", PLAIN | {"num_train_timesteps": 40})
    model = load_model(ModelSource(path=str(folder)), "inpaint", CPU)
    with pytest.raises(UserError, match=r"inpaint\.steps is 50, but the model was trained with 40 .* at most 39"):
        Inpainter(model, InpaintSettings())
    with pytest.raises(UserError, match=r"features\.timestep is 40, but the model was trained with 40 .* 0 to 39"):
        FeatureExtractor(model, FeatureSettings(timestep=(3, 40)), 1.0)


@pytest.mark.parametrize("kind", ["four", "nine"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_features_are_of_latents_noised_in_float32_beside_clean_ones(
    kind: str, precision: Any, tiny_models: dict[str, Path]
) -> None:
    model = load_model(ModelSource(path=str(tiny_models[kind]), precision=precision), "inpaint", CPU)
    extract = FeatureExtractor(model, FeatureSettings(timestep=1), 1.0)
    given: list[torch.Tensor] = []
    model.unet.conv_in.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        extract.maps(latents, noise, torch.tensor([1]))
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    share = np.prod(1 - betas[:2])
    expected = torch.from_numpy(share**0.5 * latents.double().numpy() + (1 - share) ** 0.5 * noise.double().numpy())
    torch.testing.assert_close(given[0][:, :4], expected.to(model.dtype))
    assert not torch.equal(given[0][:, :4], latents.to(model.dtype))
    if kind == "nine":
        assert (given[0][:, 4] == 0).all()
        assert torch.equal(given[0][:, 5:], latents.to(model.dtype))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["ddim", "dpmsolver++"])
def test_known_cells_are_noised_in_float32_to_the_timestep_that_the_unet_is_given(
    precision: Any, name: Any, tiny_models: dict[str, Path]
) -> None:
    model = load_model(ModelSource(path=str(tiny_models["four"]), precision=precision), "inpaint", CPU)
    inpaint = Inpainter(model, InpaintSettings(steps=5, scheduler=name))
    known, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def denoise(latents: torch.Tensor, timestep: torch.Tensor, _step: Pass) -> torch.Tensor:
        given.append((latents, timestep))
        return torch.zeros_like(latents)

    left = inpaint._sample(noise, known, torch.zeros(1, 1, 8, 8), denoise)  # type: ignore[arg-type]
    assert torch.equal(given[0][0], noise)
    assert all(torch.equal(seen, noised(model.scheduler, known, noise, at[None])) for seen, at in given[1:])
    assert torch.equal(left, known)
