"""What a backbone cannot take is said before a run, in one sentence with the remedy; one that was found right is not asked again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dfeat.config import Settings, stage_settings
from dfeat.config.files import read_settings
from dfeat.doctor import examine, missing_inputs
from dfeat.doctor.backbones import SHIPPED, backbone_faults
from dfeat.errors import UserError
from dfeat.section import parse
from dfeat.training.network import FusionNetwork, untrained_backbone
from dfeat.training.probe import check_backbone, check_weights, explained
from dfeat.training.settings import Backbone

ROOT = Path(__file__).parents[2]
SMALL = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
WINDOWS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 2, "patch_size": 4}
VIT = {"embed_dim": 16, "depth": 1, "num_heads": 1}


def backbone(name: str, **kwargs: Any) -> Backbone:
    return Backbone(name=name, kwargs=kwargs)


@pytest.mark.parametrize(
    ("chosen", "image_size", "drop_path", "sentence"),
    [
        (backbone("convnext_bse"), 64, 0, "no timm model 'convnext_bse'; did you mean 'convnext_base'?"),
        (backbone("convnext_base.fb_in1"), 64, 0, "timm model 'convnext_base' has no weights 'fb_in1'; did you mean 'fb_in1k'?"),
        (backbone("swin_tiny_patch4_window7_224", img_size=64, **WINDOWS), 32, 0, "does not take images of training.image_size 32"),
        (backbone("vit_tiny_patch16_224", **VIT), 240, 0, "set it to 224, or, where the model takes that, kwargs img_size to 240"),
        (backbone("maxvit_tiny_rw_224"), 200, 0, "does not take images of training.image_size 200 (height (50) must be divisible"),
        (backbone("convnext_atto", **SMALL), 16, 0, "does not take images of training.image_size 16"),
        (backbone("convnext_atto", depths=[1, 2]), 64, 0, "cannot be built with kwargs {'depths': [1, 2]}: list index out of range; correct them"),
        (backbone("convnext_atto", deths=[1, 2, 3, 1]), 64, 0, "does not take kwargs {'deths': [1, 2, 3, 1]}"),
        (backbone("convnext_atto", in_chans=1, **SMALL), 64, 0, "does not take images of training.image_size 64"),
        (backbone("convnext_atto", features_only=True, **SMALL), 64, 0, "'features_only': True"),
        (backbone("vgg11"), 64, 0.1, "training.drop_path is 0.1, but timm model 'vgg11' has no stochastic depth"),
    ],
)  # fmt: skip
def test_what_a_backbone_cannot_take_is_a_sentence(
    chosen: Backbone, image_size: int, drop_path: float, sentence: str
) -> None:
    with pytest.raises(UserError) as error:
        check_backbone(chosen, image_size, drop_path)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("chosen", "image_size"),
    [
        (backbone("swin_tiny_patch4_window7_224", img_size=32, **WINDOWS), 32),
        (backbone("vit_tiny_patch16_224", img_size=240, **VIT), 240),
        (backbone("mobilenetv3_small_050"), 64),
        (backbone("convnext_atto.d2_in1k"), 32),
    ],
)
def test_what_is_said_to_be_right_computes(chosen: Backbone, image_size: int) -> None:
    check_backbone(chosen, image_size)
    model = FusionNetwork(untrained_backbone(chosen), 3).eval()
    assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, 3)


def test_the_shipped_backbones_are_right_and_are_those_of_the_configurations() -> None:
    for overlays in ((), ("config/demo.yaml",)):
        training = read_settings([ROOT / "config.yaml", *(ROOT / name for name in overlays)]).training
        assert not training.drop_path
        for chosen in training.backbones.values():
            assert (chosen, training.image_size) in SHIPPED
    for chosen, image_size in SHIPPED:
        check_backbone(chosen, image_size)
        if chosen.weights is not None:
            check_weights(chosen)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file(untrained_backbone(backbone("swin_tiny_patch4_window7_224", img_size=64, **WINDOWS)).state_dict(), path)
    (fault,) = backbone_faults(Backbone(name="convnext_atto", kwargs=SMALL, weights=str(path)), 64, 0)
    assert str(path) in fault and "\n" not in fault
    path.write_bytes(b"<html>not found</html>")
    (fault,) = backbone_faults(Backbone(name="convnext_atto", kwargs=SMALL, weights=str(path)), 64, 0)
    assert str(path) in fault


@pytest.fixture
def settings(tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A run that draws its data, with one backbone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    chosen = {"name": "convnext_atto", "kwargs": SMALL, "weights": str(tiny_weights)}
    training = {"backbones": {"mine": chosen}, "methods": ["none"], "seeds": [0], "image_size": 16}
    return parse(Settings, {"run": "tiny", "data": {"drawn": {}}, "training": training})


def test_the_check_before_a_run_and_the_doctor_name_the_backbone(settings: Settings) -> None:
    (fault,) = missing_inputs(settings)
    assert fault.startswith(
        "training.backbones.mine: timm model 'convnext_atto' does not take images of training.image_size 16"
    )
    assert fault in examine(settings).faults


def test_a_head_that_the_weights_lack_is_a_fault(settings: Settings) -> None:
    plain = settings.model_dump(mode="json")
    kwargs = {"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]}
    demo = {"mine": {"name": "convnext_atto", "kwargs": kwargs, "weights": "demo:convnext"}}
    training = plain["training"] | {"image_size": 64, "head": "pretrained", "backbones": demo}
    (fault,) = missing_inputs(parse(Settings, plain | {"training": training}))
    assert (
        "demo:convnext, the weights of training.backbones.mine, has no head for ImageNet-1k; set training.head to new"
        in fault
    )


def test_no_backbone_is_built_again_that_was_right_or_is_trained(settings: Settings, tmp_path: Path) -> None:
    plain = settings.model_dump(mode="json")
    right = parse(Settings, plain | {"training": plain["training"] | {"image_size": 64}})
    assert missing_inputs(right) == [] and len(list((tmp_path / "cache/dfeat/backbones").iterdir())) == 1
    model = tmp_path / "results/tiny/training/none/mine/seed0/model.safetensors"
    model.parent.mkdir(parents=True)
    model.touch()
    record = {"settings": stage_settings(settings, "train", "mine", "none").model_dump(mode="json")}
    model.with_name("run.json").write_text(json.dumps(record))
    code = """
import sys
from dfeat.config import Settings, stage_settings
from dfeat.doctor import missing_inputs
from dfeat.section import parse
for trained in (parse(Settings, text) for text in sys.argv[1:]):
    assert missing_inputs(trained) == []
assert "timm" not in sys.modules and "torch" not in sys.modules
"""
    command = [sys.executable, "-c", code, settings.model_dump_json(), right.model_dump_json()]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    other = parse(Settings, plain | {"training": plain["training"] | {"drop_path": 0.1}})
    assert len(missing_inputs(other)) == 1, "the models that stand are others"
    model.unlink()
    assert len(missing_inputs(settings)) == 1


def test_an_error_that_comes_of_the_backbone_is_explained_and_any_other_is_not() -> None:
    chosen = backbone("swin_tiny_patch4_window7_224", img_size=64, **WINDOWS)
    with pytest.raises(UserError, match="does not take images"), explained(chosen, 32):
        untrained_backbone(chosen)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ZeroDivisionError), explained(chosen, 64):
        1 / 0  # noqa: B018
