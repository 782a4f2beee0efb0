"""A trained model on images of one's own: it says of a run's test images what the run's evaluation said."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from dfeat import Classifier
from dfeat.config.expected import expected
from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.latents import encode_view
from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate
from dfeat.storage.atomic import json_bytes
from dfeat.training import loop
from dfeat.training.sources import Inputs
from tests.conftest import CPU, TINY_BACKBONE, World
from tests.examples import EXAMPLES, displayed, is_readable
from tests.test_cli import run as dfeat


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world as a run, with a None and an SD Features model and their predictions of unoccluded images."""
    from timm import create_model

    root = tmp_path_factory.mktemp("classifier") / "results/tiny"
    shutil.copytree(world.root / "data", root / "data")
    weights = root / "weights.safetensors"
    state = create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict()
    save_file({name: value.numpy() for name, value in state.items()}, weights)
    for view, index in (("clean", "train"), ("parts", "train"), ("drop:0", "imagenet_val")):
        latents, features = (root / f"{kind}-{index}-{view}.h5" for kind in ("latents", "features"))
        encode_view(root / "data" / index, view, world.stage("latents"), latents, CPU, world.parts)
        extract_features(latents, world.stage("features"), features, CPU)
    (root / "expected.json").write_bytes(json_bytes({"settings": settings_of(world)}))
    for method in ("none", "sd_features"):
        fused = method == "sd_features"
        shards = [(root / f"features-train-{view}.h5",) for view in ("clean", "parts")] if fused else [(), ()]
        inputs = Inputs(root / "data/train", root / "data/train/pixels.h5", world.parts, None, *shards)
        stage = world.stage("train", "convnext")
        backbone = stage.backbone.model_copy(update={"weights": str(weights)})
        folder = root / f"training/{method}/convnext/seed0"
        loop.train(method, inputs, stage.model_copy(update={"backbone": backbone}), 0, folder, CPU)
        given = {"imagenet_val@0": [root / "features-imagenet_val-drop:0.h5"]} if fused else {}
        evaluation = world.stage("evaluate").model_copy(update={"levels": {"imagenet_val": (0,)}})
        evaluate(folder, root / "data", given, evaluation, root / f"evaluation/{method}/convnext/seed0", CPU)
    return root


def settings_of(world: World) -> dict[str, object]:
    """What the run expects of its pixels, latents and predictions."""
    found = expected(Run(world.settings))["settings"]
    return {
        place: value
        for place, value in found.items()
        if place.endswith("pixels.h5")
        or "/latents/" in place
        or "evaluation/none" in place
        or "evaluation/sd_f" in place
    }


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


@pytest.mark.parametrize("method", ["none", "sd_features"])
def test_it_says_what_the_evaluation_said(world: World, run: Path, method: str) -> None:
    classify = Classifier.from_pretrained(run / f"training/{method}/convnext/seed0", device="cpu", batch_size=3)
    rows = rows_of(run / f"evaluation/{method}/convnext/seed0/imagenet_val@0.csv")
    files = {
        row["key"]: world.root / "raw/imagenet/val" / row["file"]
        for row in rows_of(run / "data/imagenet_val/index.csv")
    }
    keys = [row["key"] for row in rows]
    probabilities, names = classify([files[key] for key in keys], keys=keys)
    assert probabilities.shape == (len(rows), 20) and probabilities.dtype == np.float32
    assert [str(best) for best in probabilities.argmax(1)] == [row["top1"] for row in rows]
    assert np.abs(probabilities.max(1) - [float(row["p1"]) for row in rows]).max() < 1e-5
    assert names == [classify.names[best] for best in probabilities.argmax(1)]
    alone, _ = classify(Image.open(files[keys[4]]), keys=keys[4:5])
    assert np.abs(alone - probabilities[4:5]).max() < 1e-5
    assert "20 classes, 64 px, float32 on cpu" in repr(classify.to("cpu"))


@pytest.mark.parametrize("name", ["classifier.py", "own_test_set.py"])
def test_an_example_runs_on_a_finished_run(
    name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run, tmp_path / "results/demo")
    monkeypatch.chdir(tmp_path)
    shown = displayed(EXAMPLES / name)
    assert len(shown) >= 2 and all(map(is_readable, shown))
    if name == "own_test_set.py":
        assert shown[-1].endswith(" of 20 right")
        assert "my_set" in read_settings([EXAMPLES.parent / "config.yaml", Path("my_set.yaml")]).data.evaluation


@pytest.mark.parametrize(
    ("folder", "given", "said"),
    [
        ("training/none/convnext", {}, "is not itself a model's folder; give one below it, such as .*/none/convnext/seed0$"),
        (".", {}, "give one below it, such as .*/training/none/convnext/seed0$"),
        ("training/none/convnext/seed0/model.safetensors", {}, "is no folder; give a model's folder"),
        ("training/none/convnext/seed9", {}, "is missing; give a model's folder"),
        ("data", {}, r"has no model \(run.json\); give a model's folder"),
        ("training/none/convnext/seed0", {"precision": "fp16"}, "precision is 'fp16'; use float32, tf32 or bfloat16"),
        ("training/none/convnext/seed0", {"torch_dtype": torch.float32}, "did you mean 'precision'"),
        ("training/none/convnext/seed0", {"device": "cuda:99"}, "torch reaches no such device here"),
    ],
)  # fmt: skip
def test_what_is_no_model_here_is_refused_with_what_to_give(
    run: Path, folder: str, given: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        Classifier.from_pretrained(run / folder, **given)  # type: ignore[arg-type]


def test_familiar_names_of_a_precision_are_taken(run: Path) -> None:
    folder = run / "training/none/convnext/seed0"
    assert "bfloat16 on cpu" in repr(Classifier.from_pretrained(folder, device="cpu", precision=torch.bfloat16))


def test_predict_writes_a_row_for_each_image(
    world: World, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = world.root / "raw/dfeat_real", run / "training/sd_features/convnext/seed0"
    given = ("predict", str(model), str(folder), "--top", "2", "--gpus", "0", "--threads", "1")
    assert dfeat(monkeypatch, *given) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "file,class1,p1,class2,p2" and len(lines) == 21
    assert dfeat(monkeypatch, *given, "--out", str(tmp_path / "p.csv")) == 0
    assert (tmp_path / "p.csv").read_text().splitlines() == lines
    probabilities, names = Classifier.from_pretrained(model, device="cpu")(folder)
    assert [row["class1"] for row in rows_of(tmp_path / "p.csv")] == names
    assert np.abs(probabilities.max(1) - [float(row["p1"]) for row in rows_of(tmp_path / "p.csv")]).max() < 1e-5
    assert dfeat(monkeypatch, "predict", str(model), str(tmp_path / "none")) == 2
    assert f"{tmp_path / 'none'} is missing; give a folder or archive" in capsys.readouterr().err


def test_timm_loads_what_it_has_an_architecture_for(world: World, run: Path, tmp_path: Path) -> None:
    import timm

    classify = Classifier.from_pretrained(run / "training/none/convnext/seed0", device="cpu")
    classify.save_for_timm(tmp_path / "export")
    network = timm.create_model(f"local-dir:{tmp_path / 'export'}", pretrained=True).eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    files = sorted((world.root / "raw/dfeat_real").rglob("*.jpg"))[:6]
    with torch.no_grad():
        found = network(torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])).softmax(1)
    assert np.abs(found.numpy() - classify(files)[0]).max() < 1e-4
    assert network.pretrained_cfg["label_names"] == [info.wnid for info in classify.classes]
    with pytest.raises(UserError, match="fuses diffusion features, and timm has no such architecture"):
        Classifier.from_pretrained(run / "training/sd_features/convnext/seed0").save_for_timm(tmp_path / "no")


def test_away_from_its_run_it_asks_for_what_it_lacks(run: Path, tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    images = np.zeros((2, 80, 64, 3), np.uint8)
    shutil.copytree(run / "training/none/convnext/seed0", tmp_path / "mine")
    assert Classifier.from_pretrained(tmp_path / "mine")(images)[1][0].startswith("class ")
    shutil.copytree(run / "training/sd_features/convnext/seed0", tmp_path / "fused")
    with pytest.raises(UserError, match=r"give diffusion='\.\.\.', the model that they were made with"):
        Classifier.from_pretrained(tmp_path / "fused")
    with pytest.raises(UserError, match="another diffusion model than the one whose features"):
        Classifier.from_pretrained(tmp_path / "fused", diffusion="demo")
    assert Classifier.from_pretrained(tmp_path / "fused", diffusion=tiny_models["four"])(images)[0].shape == (2, 20)
    with pytest.raises(UserError, match="none is missing; give a model's folder"):
        Classifier.from_pretrained(tmp_path / "none")
    with pytest.raises(UserError, match="device is 'cuda'"):
        Classifier.from_pretrained(tmp_path / "mine", device="cuda")
