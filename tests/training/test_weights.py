"""The weights of a backbone: what timm loads is loaded, with the same values; what it would leave random is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm import create_model

from dfeat.errors import UserError
from dfeat.training.network import build_backbone, build_pretrained
from dfeat.training.settings import Backbone
from dfeat.training.weights import has_imagenet_head
from tests.conftest import TINY_BACKBONE

State = dict[str, Any]
CONVNEXT = Backbone(**TINY_BACKBONE)  # type: ignore[arg-type]
SMALL: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224.ms_in1k": {"img_size": 64, "window_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4]},
    "swinv2_tiny_window8_256.ms_in1k": {"img_size": 64, "window_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4]},
    "beit_base_patch16_224.in22k_ft_in22k_in1k": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "resnet18.a1_in1k": {"channels": [8, 8, 16, 16]},
}  # fmt: skip
"""A small model of each kind."""


def small(name: str, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return create_model(name.partition(".")[0], num_classes=1000, **SMALL[name] | changes)


def plain(model: torch.nn.Module) -> State:
    return {key: value.contiguous() for key, value in model.state_dict().items()}


def with_buffers(model: torch.nn.Module) -> State:
    """As older versions of timm wrote them: with buffers that a model of today computes anew."""
    return plain(model) | {name: value.contiguous().clone() for name, value in model.named_buffers()}


def write(path: Path, state: State) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path, {"format": "pt"})
    else:
        torch.save(state, path)
    return path


def loaded(name: str, path: Path, classes: int | None = None, **kwargs: Any) -> State:
    """What is loaded of a file, by timm's names."""
    settings = Backbone(name=name, kwargs=SMALL.get(name, {}) | kwargs, weights=str(path))
    return (build_pretrained if classes else build_backbone)(settings).state_dict()


def same(one: State, other: State) -> bool:
    return bool(one) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", SMALL)
def test_files_with_buffers_that_a_model_computes_anew_load(name: str, tmp_path: Path) -> None:
    model = small(name)
    path = write(tmp_path / "model.safetensors", with_buffers(model))
    assert same(loaded(name, path), model.state_dict())
    whole = loaded(name, path, classes=1000)
    assert whole.keys() == model.state_dict().keys() and same(whole, model.state_dict())
    assert has_imagenet_head(Backbone(name=name, weights=str(path)))


WRAPPINGS: dict[str, Callable[[State], State]] = {
    "bare.pth": lambda state: state,
    "bare.bin": lambda state: state,
    "of-timm.pth.tar": lambda state: {"epoch": 3, "arch": "x", "state_dict": {}, "state_dict_ema": state},
    "of-swin.pth": lambda state: {"model": state, "max_accuracy": 81.2},
    "of-lightning.ckpt": lambda state: {"state_dict": state, "pytorch-lightning_version": "2.5"},
    "of-ddp.pt": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    "of-ddp.safetensors": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled.safetensors": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "half.safetensors": lambda state: {key: value.half() for key, value in state.items()},
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrapped_and_prefixed_files_load(name: str, tmp_path: Path) -> None:
    model = create_model(CONVNEXT.name, num_classes=1000, **CONVNEXT.kwargs)
    path = write(tmp_path / name, WRAPPINGS[name](plain(model)))
    backbone = CONVNEXT.model_copy(update={"weights": str(path)})
    state, wanted = build_backbone(backbone).state_dict(), model.state_dict()
    tolerance = 1e-3 if name.startswith("half") else 0
    assert all(torch.allclose(state[key], wanted[key], rtol=tolerance, atol=tolerance) for key in state)
    assert has_imagenet_head(backbone)


def test_the_head_of_an_older_pickle_is_seen_too_and_nothing_in_it_runs(tmp_path: Path) -> None:
    model = create_model(CONVNEXT.name, num_classes=1000, **CONVNEXT.kwargs)
    path, sprung = tmp_path / "old.pth", tmp_path / "sprung"
    torch.save({"model": plain(model)}, path, _use_new_zipfile_serialization=False)
    assert has_imagenet_head(CONVNEXT.model_copy(update={"weights": str(path)}))
    small_head = create_model(CONVNEXT.name, num_classes=100, **CONVNEXT.kwargs)
    assert not has_imagenet_head(
        CONVNEXT.model_copy(update={"weights": str(write(tmp_path / "s.pth", plain(small_head)))})
    )

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (sprung,)

    torch.save({"state_dict": Trap()}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap()))
    for name in ("zip.pth", "bare.pth"):
        backbone = CONVNEXT.model_copy(update={"weights": str(tmp_path / name)})
        assert not has_imagenet_head(backbone)
        with pytest.raises(UserError, match=rf"{name} (holds more than tensors|is not a readable)"):
            build_backbone(backbone)
    assert not sprung.exists()


def test_the_names_of_the_original_projects_are_those_that_timm_takes(tmp_path: Path) -> None:
    """ConvNeXt as its authors wrote it."""
    model = create_model(CONVNEXT.name, num_classes=1000, **CONVNEXT.kwargs)
    old = {}
    for key, value in plain(model).items():
        for new, was in (("stem.", "downsample_layers.0."), ("head.fc.", "head."), ("head.norm.", "norm."),
                         (".conv_dw.", ".dwconv."), (".mlp.fc", ".pwconv"), (".blocks.", ".")):  # fmt: skip
            key = key.replace(new, was)
        stage, _, rest = key.partition(".downsample.")
        old[f"downsample_layers.{stage[-1]}.{rest}" if rest else key] = value
    assert "downsample_layers.1.0.weight" in old
    path = write(tmp_path / "convnext.pth", {"model": old})
    assert same(build_backbone(CONVNEXT.model_copy(update={"weights": str(path)})).state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("name", "changes", "resized"),
    [
        ("swin_tiny_patch4_window7_224.ms_in1k", {"img_size": 128, "window_size": 8}, "relative_position_bias_table"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {"img_size": 96}, "pos_embed"),
        ("beit_base_patch16_224.in22k_ft_in22k_in1k", {"img_size": 96}, "relative_position_bias_table"),
    ],
)
def test_positions_are_resized_as_timm_resizes_them(name: str, changes: State, resized: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", with_buffers(small(name)))
    overlay = {"file": str(write(tmp_path / "plain.safetensors", plain(small(name))))}
    timms = create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **SMALL[name] | changes).state_dict()
    ours = loaded(name, path, **changes)
    assert same(ours, timms)
    assert any(key.endswith(resized) and ours[key].shape != small(name).state_dict()[key].shape for key in ours)


def changed(state: State, **changes: Any) -> State:
    return {key: value for key, value in (state | changes).items() if value is not None}


def test_weights_that_are_not_all_of_the_models_are_refused(tmp_path: Path) -> None:
    state = plain(create_model(CONVNEXT.name, num_classes=1000, **CONVNEXT.kwargs))
    longer = create_model(CONVNEXT.name, num_classes=1000, **CONVNEXT.kwargs | {"depths": [2, 1, 1, 1]})
    cases = {
        "missing": (changed(state, **{"stem.0.weight": None}), r"1 keys missing.*first: stem\.0\.weight"),
        "shape": (changed(state, **{"stem.0.bias": torch.zeros(3)}), r"1 of another shape"),
        "longer": (plain(longer), r"unknown.*first: stages\.0\.blocks\.1"),
        "other": (plain(small("resnet18.a1_in1k")), "does not fit the backbone"),
        "empty": ({}, "is not a file of named tensors"),
    }
    for name, (content, sentence) in cases.items():
        path = write(tmp_path / f"{name}.pth", content)
        with pytest.raises(UserError, match=sentence):
            build_backbone(CONVNEXT.model_copy(update={"weights": str(path)}))
    swin = write(tmp_path / "convnext.safetensors", state)
    with pytest.raises(UserError, match=r"does not fit the backbone.*check training\.backbones name and kwargs"):
        loaded("swin_tiny_patch4_window7_224.ms_in1k", swin)


def test_a_head_of_other_classes_is_left_out_and_asked_for_is_refused(tmp_path: Path) -> None:
    model = create_model(CONVNEXT.name, num_classes=100, **CONVNEXT.kwargs)
    bare = {key: value for key, value in plain(model).items() if not key.startswith("head.fc")}
    for number, state in enumerate((plain(model), bare, bare | {"head.0.weight": torch.zeros(2, 2)})):
        backbone = CONVNEXT.model_copy(update={"weights": str(write(tmp_path / f"{number}.safetensors", state))})
        assert same(build_backbone(backbone).state_dict(), model.state_dict())
        with pytest.raises(UserError, match="does not fit the backbone"):
            build_pretrained(backbone)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("torn.safetensors", "torn.pth"):
        (tmp_path / name).write_bytes(b"PK\3\4 torn")
    (tmp_path / "notes.txt").write_text("weights")
    sentences = {"torn.safetensors": "is not a readable", "torn.pth": "is not a readable",
                 "jax.npz": "load others with timm and save the state_dict", "notes.txt": "weights must be a file", "gone.pth": "is missing"}  # fmt: skip
    for name, sentence in sentences.items():
        with pytest.raises(UserError, match=sentence):
            build_backbone(CONVNEXT.model_copy(update={"weights": str(tmp_path / name)}))
    listed = write(tmp_path / "list.pth", [torch.zeros(2)])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"list\.pth"):
        build_backbone(CONVNEXT.model_copy(update={"weights": str(listed)}))
