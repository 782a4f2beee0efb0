"""The whole way of the data in one process: every step's real code on the small world."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import matplotlib as mpl
import pytest

from dfeat.config import Settings, stage_settings
from dfeat.data.index import read_index
from dfeat.data.pixels import PixelCache, cache_inpainted
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.inpaint import inpaint_shard
from dfeat.diffusion.latents import encode_view
from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate
from dfeat.methods import NAMES
from dfeat.occlusion.parts import read_parts
from dfeat.report.numbers.text import read_csv
from dfeat.report.tables.published import write_table
from dfeat.storage.atomic import write_bytes, write_json
from dfeat.storage.origin import origin_bytes
from dfeat.storage.provenance import declared_recipe, file_digest
from dfeat.training.loop import train
from dfeat.training.sources import Inputs
from dfeat.verify import verify_run
from tests.conftest import CPU, World


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """results/<run> of the tiny run, up to the predictions of all six methods."""
    import shutil

    from safetensors.torch import save_file
    from timm import create_model

    out = tmp_path_factory.mktemp("run")
    shutil.copytree(world.root / "data", out / "data")
    shutil.copytree(world.root / "occlusion", out / "occlusion")
    diffusion = out / "diffusion"
    inpaint_shard(world.train, world.parts, world.stage("inpaint"), diffusion / "inpaint/train/0-of-1.h5", CPU)
    cache_inpainted(
        [diffusion / "inpaint/train/0-of-1.h5"], world.stage("pixels"), diffusion / "inpaint/train/pixels.h5"
    )
    features = {}
    for view, folder, kind in (
        ("train", "train", "clean"),
        ("train-occluded", "train", "parts"),
        ("imagenet_val@0", "imagenet_val", "drop:0"),
        ("imagenet_val@40", "imagenet_val", "drop:40"),
        ("dfeat_real@0", "dfeat_real", "drop:0"),
    ):
        latents = diffusion / "latents" / view / "0-of-1.h5"
        features[view] = diffusion / "features" / view / "0-of-1.h5"
        encode_view(world.root / "data" / folder, kind, world.stage("latents"), latents, CPU, world.parts)
        extract_features(latents, world.stage("features"), features[view], CPU)
    stage = world.stage("train", "convnext")
    weights = out / "weights.safetensors"
    save_file(create_model(stage.backbone.name, num_classes=0, **stage.backbone.kwargs).state_dict(), weights)
    stage = stage.model_copy(update={"backbone": stage.backbone.model_copy(update={"weights": str(weights)})})
    for method in NAMES:
        inputs = Inputs(
            world.train,
            world.train / "pixels.h5",
            world.parts,
            diffusion / "inpaint/train/pixels.h5",
            (features["train"],),
            (features["train-occluded"],),
        )
        model = out / "training" / method / "convnext" / "seed0"
        train(method, inputs, stage, 0, model, CPU)
        levels = {view: [path] for view, path in features.items()}
        evaluate(
            model,
            out / "data",
            levels,
            world.stage("evaluate"),
            out / "evaluation" / method / "convnext" / "seed0",
            CPU,
        )
    return out


@pytest.fixture
def settings(run: Path, world: World) -> Settings:
    """The tiny run's settings, with the weights that its models started from."""
    training = world.settings.training
    backbone = training.backbones["convnext"].model_copy(update={"weights": str(run / "weights.safetensors")})
    training = training.model_copy(update={"backbones": {"convnext": backbone}})
    return world.settings.model_copy(update={"training": training})


def test_every_method_leaves_a_model_and_predictions_of_every_set_and_level(run: Path) -> None:
    for method in NAMES:
        model = run / "training" / method / "convnext" / "seed0"
        assert {path.name for path in model.iterdir() if path.is_file()} == {
            "model.safetensors",
            "metrics.jsonl",
            "run.json",
        }
        predictions = run / "evaluation" / method / "convnext" / "seed0"
        assert sorted(path.name for path in predictions.iterdir() if path.is_file()) == [
            "dfeat_real.json",
            "dfeat_real@0.csv",
            "imagenet_val.json",
            "imagenet_val@0.csv",
            "imagenet_val@40.csv",
        ]
        lines = (predictions / "imagenet_val@40.csv").read_text().splitlines()
        assert lines[0] == "key,label,top1,top2,top3,top4,top5,p1"
        assert len(lines) == 21


def test_predictions_say_which_model_made_them_and_from_what(run: Path, settings: Settings) -> None:
    for method, name in product(NAMES, ("imagenet_val", "dfeat_real")):
        folder = run / "evaluation" / method / "convnext" / "seed0"
        said = json.loads((folder / f"{name}.json").read_text())
        assert (said["method"], said["seed"], said["recipe"]) == (
            method,
            0,
            declared_recipe("dfeat.evaluation.predict"),
        )
        assert said["backbone"] == settings.training.backbones["convnext"].model_dump(mode="json")
        assert said["model"] == file_digest(run / "training" / method / "convnext/seed0/model.safetensors")
        assert (said["set"], said["index"]) == (name, read_index(run / "data" / name).digest)
        assert said["settings"] == stage_settings(settings, "evaluate", set_name=name).model_dump(mode="json")
        assert said["files"] == {path.name: file_digest(path) for path in folder.glob(f"{name}@*.csv")}


def test_tables_and_pictures_are_made_from_what_the_run_left(run: Path, settings: Settings, tmp_path: Path) -> None:
    from dfeat.report.catalogue import find

    for name in ("table1", "table2"):
        write_table(name, run / "evaluation", settings, tmp_path)
        assert {(tmp_path / f"{name}.{kind}").is_file() for kind in ("csv", "md", "tex")} == {True}
    for name in ("figure2", "figure3", "accuracy", "gain", "gallery", "sheet"):
        find("figure", name, settings).make(run, settings, tmp_path)
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
        with mpl.rc_context({"font.size": 20, "savefig.dpi": 33, "svg.fonttype": "none"}):
            find("figure", name, settings).make(run, settings, tmp_path / "again")
        for path in (tmp_path / "again").glob(f"{name}.*"):
            assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    find("table", "inpaint_quality", settings).make(run, settings, tmp_path)
    keys = [row["key"] for row in read_csv(tmp_path / "inpaint_quality.csv")]
    assert keys[0] == "" and len(keys) == len(set(keys)) == 1 + len(read_parts(run / "occlusion/parts.json").rows)
    pictures = json.loads((tmp_path / "gallery.json").read_text())["pictures"]
    methods = ["Original", "Black-Out Parts", "Replace Parts", "SD Inpaint"]
    assert [picture["method"] for picture in pictures[:4]] == methods
    assert all((picture["psnr"] is not None) == (picture["method"] == methods[-1]) for picture in pictures)


def test_the_report_is_made_from_what_the_run_left(run: Path, settings: Settings) -> None:
    from dfeat.report.catalogue import find
    from dfeat.report.page import write_report

    write_table("table1", run / "evaluation", settings, run / "report")
    find("figure", "gallery", settings).make(run, settings, run / "report")
    write_report(run, settings, run / "report" / "index.html")
    card = (run / "report" / "data_card.md").read_text()
    images = len((run / "data" / "train" / "index.csv").read_text().splitlines()) - 1
    assert f"| inpaint | train | 1 | {images} |" in card
    page = (run / "report" / "index.html").read_text()
    assert "SD Inpaint" in page and "data:image/webp;base64," in page


def test_known_pixels_of_inpainted_images_are_exactly_the_originals(run: Path, world: World) -> None:
    from dfeat.occlusion.parts import read_parts

    parts = read_parts(world.parts)
    inpainted, originals = PixelCache(run / "diffusion/inpaint/train/pixels.h5"), PixelCache(world.train / "pixels.h5")
    assert set(inpainted.keys) == set(parts.rows)
    for key in inpainted.keys:
        known = ~parts.mask(key)
        assert (inpainted[key][known] == originals[key][known]).all()
        assert (inpainted[key] != originals[key]).any()


def test_every_artifact_of_the_run_is_found_whole_and_a_foreign_one_named(run: Path, tmp_path: Path) -> None:
    import shutil

    findings = list(verify_run(run))
    assert {finding.state for finding in findings} == {"whole"}
    assert {finding.path.partition("/")[0] for finding in findings} >= {
        "data", "occlusion", "diffusion", "training", "evaluation",
    }  # fmt: skip
    other = tmp_path / "run"
    shutil.copytree(run, other)
    name = "convnext/seed0/model.safetensors"  # a model that another training made, written here
    write_bytes(other / "training/none" / name, (run / "training/black_out" / name).read_bytes())
    bad = {finding.path: finding.why for finding in verify_run(other) if finding.state == "bad"}
    predictions = (f"evaluation/none/convnext/seed0/{name}.json" for name in ("imagenet_val", "dfeat_real"))
    assert bad.keys() == {"training/none/convnext/seed0/run.json", *predictions}
    assert all("another model than" in why for why in bad.values())


def test_inpainted_images_are_judged_and_rejects_are_not_trained_on(
    run: Path, world: World, settings: Settings, tmp_path: Path
) -> None:
    from dfeat.evaluation.judge import judge
    from dfeat.evaluation.verdicts import read_verdicts
    from dfeat.report.tables.label_preservation import write_label_preservation
    from dfeat.training.dataset import TrainingBatches
    from dfeat.training.sources import read_sources

    inpainted = run / "diffusion/inpaint/train/pixels.h5"
    verdicts = run / "evaluation/labels/convnext/verdicts.csv"
    model, pixels = run / "training/none/convnext/seed0", world.train / "pixels.h5"
    accepted = judge(
        [model, model], world.train, pixels, world.parts, inpainted, world.settings.evaluation, verdicts, CPU
    )
    backbone = settings.training.backbones["convnext"]
    rows = read_verdicts(verdicts, backbone)
    said = json.loads(verdicts.with_suffix(".json").read_text())
    assert [(one["method"], one["seed"], one["model"]) for one in said["models"]] == [
        ("none", 0, file_digest(model / "model.safetensors"))
    ] * 2
    with pytest.raises(UserError, match=r"verdicts\.json cannot be used: it records a backbone .* `dfeat judge`"):
        read_verdicts(verdicts, backbone.model_copy(update={"weights": None}))
    assert {finding.state for finding in verify_run(run)} == {"whole"}
    assert len(rows) == len(PixelCache(inpainted).keys) and sum(int(row["accepted"]) for row in rows) == accepted
    assert all((row["models"], row["accepted"]) == ("2", str(int(row["inpainted"]) // 2)) for row in rows)
    write_label_preservation(run, settings, tmp_path)
    lines = (tmp_path / "label_preservation.csv").read_text().splitlines()
    assert lines[1].startswith(f"convnext,,all classes,{len(rows)},") and len(lines) == 2 + 20

    mixed = tmp_path / "verdicts.csv"
    text = ["key,label,models,original,black_out,inpainted,accepted"]
    mixed.write_text(
        "\n".join([*text, *(f"{row['key']},0,1,1,0,{n % 2},{n % 2}" for n, row in enumerate(rows))]) + "\n"
    )
    mixed.with_suffix(".json").write_bytes(origin_bytes(said, {mixed: mixed.read_bytes()}))
    training = world.settings.training.model_copy(update={"inpainted": "accepted"})
    inputs = Inputs(world.train, pixels, world.parts, inpainted, verdicts=mixed)
    sources = read_sources("sd_inpaint", inputs, training)
    batches = TrainingBatches("sd_inpaint", sources, training, 0, 0)
    rejected, kept = rows[0]["key"], rows[1]["key"]
    assert [batches._item(key, 1, 0).copy for key in (rejected, kept)] == [None, kept]
    with pytest.raises(UserError, match="needs --verdicts"):
        read_sources("sd_inpaint", Inputs(world.train, pixels, world.parts, inpainted), training)
    write_json(mixed.with_suffix(".json"), said)
    with pytest.raises(UserError, match=r"verdicts\.csv cannot be used: it is another file than verdicts\.json"):
        read_sources("sd_inpaint", inputs, training)
    write_json(verdicts.with_suffix(".json"), said | {"index": "0" * 64})
    with pytest.raises(UserError, match=r"verdicts\.json cannot be used: it tells of .* another index"):
        read_sources("sd_inpaint", replace(inputs, verdicts=verdicts), training)
    (bad,) = [finding for finding in verify_run(run) if finding.state == "bad"]
    assert bad.path == "evaluation/labels/convnext/verdicts.json" and "another index.csv than" in bad.why
    write_json(verdicts.with_suffix(".json"), said)
