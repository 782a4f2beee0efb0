"""A changed choice makes again what depends on it, and nothing else: real dry runs on a finished run.

Nothing is trained here: the drawn data are indexed, every later file of a finished run is put in place empty, and
Snakemake marks them as made.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.report.catalogue import find
from dfeat.report.made import _entry_job
from dfeat.storage.atomic import write_json

from .test_snakemake import ROOT, TINY, encodes, jobs, of_all_views, snakemake, text

METHODS = {"methods": ["none", "sd_inpaint", "sd_features"], "epochs": 1}
MODELS = 2 * len(METHODS["methods"])
"""Of two backbones and one seed."""
FEATURES = {"features": 2, "features_of_imagenet_val": 1, "features_of_dfeat_real": 1}


def evaluations(models: int) -> dict[str, int]:
    """The jobs that evaluate so many models."""
    return {f"evaluate_on_{name}": models for name in ("imagenet_val", "dfeat_real")}


def overlay(levels: tuple[int, ...] = (0, 40), **sections: Any) -> dict[str, Any]:
    """The tiny run with a method that has features of every test level."""
    data = json.loads(json.dumps(TINY["data"]))
    data["evaluation"]["imagenet_val"]["levels"] = list(levels)
    return {**TINY, "data": data, "training": METHODS, **sections}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which every output of the tiny run stands."""
    folder = tmp_path_factory.mktemp("finished")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "tiny.json").write_text(json.dumps(overlay()))
    indexed = snakemake(
        folder, *(f"results/tiny/data/{name}/index.csv" for name in ("train", "imagenet_val", "dfeat_real"))
    )
    assert indexed.returncode == 0, text(indexed)
    planned = snakemake(folder, "-n", "-p", "all")
    assert planned.returncode == 0, text(planned)
    for line in re.findall(r"^ +output: (.+)$", planned.stdout + planned.stderr, re.MULTILINE):
        for path in line.replace(" (update)", "").split(", "):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
    touched = snakemake(folder, "--touch", "--forceall", "all")
    assert touched.returncode == 0, text(touched)
    return folder


def again(folder: Path, changed: dict[str, Any]) -> dict[str, int]:
    """The jobs that the change asks for, by rule."""
    (folder / "changed.json").write_text(json.dumps(changed))
    result = snakemake(
        folder, "-n", "-p", "--configfile", "config.yaml", "config/demo.yaml", "changed.json", "--", "all"
    )
    assert result.returncode == 0, text(result)
    return {rule: count for rule, count in jobs(result).items() if rule not in ("total", "all")}


def test_a_further_level_is_evaluated_and_nothing_is_trained_again(finished: Path) -> None:
    asked = again(finished, overlay(levels=(0, 40, 60)))
    assert of_all_views(asked, "latents") == of_all_views(asked, "features") == 1  # which keeps the standing levels
    assert asked["evaluate_on_imagenet_val"] == MODELS
    assert asked["write_table1"] == asked["write_claims"] == asked["write_report"] == 1
    untouched = {"demo_data", "index_train", "index_evaluation", "pixels", "parts", "inpaint", "train"}
    assert not (untouched | {"evaluate_on_dfeat_real", "write_table2"}) & set(asked)


def test_a_set_more_makes_what_is_its_own_and_the_tables_and_a_set_less_the_tables_alone(finished: Path) -> None:
    mine = {"kind": "folder", "root": "results/tiny/raw/dfeat_real", "expected_images": 20}
    changed = overlay()
    changed["data"]["evaluation"] |= {"mine": mine, "dfeat_real": None}
    asked = again(finished, changed)
    shown = {rule: asked.pop(rule) for rule in list(asked) if rule.startswith(("write_", "draw_"))}
    assert asked == {
        "index_evaluation": 1, "pixels": 1, "latents_of_mine": 1, "features_of_mine": 1, "evaluate_on_mine": MODELS,
    }  # fmt: skip
    assert {"write_table2", "write_claims", "write_report"} <= set(shown)
    # Pictures of training images have nothing of it; Figure 3 shows the first set of a table, which is another one now.
    assert not {"write_table1", "draw_figure2", "draw_gallery", "write_inpaint_quality"} & set(shown)


@pytest.mark.slow
def test_without_snakemakes_records_a_table_of_other_sets_is_made_again(finished: Path) -> None:
    """As in a run that was copied without `.snakemake`."""
    table = finished / "results/tiny/report/.made/table2.json"
    with contextlib.chdir(finished):
        run = Run(read_settings([Path(name) for name in ("config.yaml", "config/demo.yaml", "tiny.json")]))
        job = _entry_job(find("table", "table2", run.settings), run)
        write_json(table, job.made_from(run.place.run))
    metadata = (finished / ".snakemake/metadata").rename(finished / "aside")
    changed = overlay()
    changed["data"]["evaluation"]["mine"] = {"kind": "folder", "root": "results/tiny/raw/dfeat_real"}
    try:
        assert again(finished, overlay()) == {}
        asked = again(finished, changed)
    finally:
        shutil.rmtree(finished / ".snakemake/metadata", ignore_errors=True)
        metadata.rename(finished / ".snakemake/metadata")
        shutil.rmtree(table.parent)
    assert asked["write_table2"] == asked["write_report"] == 1 and asked["evaluate_on_mine"] == MODELS
    assert not {"evaluate_on_imagenet_val", "evaluate_on_dfeat_real", "train", "write_table1"} & set(asked)


def test_predictions_that_do_not_say_what_made_them_are_made_again_before_a_table(finished: Path) -> None:
    records = (finished / "results/tiny/evaluation").rglob("imagenet_val.json")
    kept = {path: path.with_suffix(".kept") for path in records}
    assert len(kept) == MODELS
    for path, aside in kept.items():
        path.rename(aside)
    try:
        asked = again(finished, overlay(report={"note": "another note"}))
        assert asked["evaluate_on_imagenet_val"] == MODELS and asked["write_table1"] == asked["write_table2"] == 1
        assert not encodes(asked) and not {"train", "evaluate_on_dfeat_real"} & set(asked)
    finally:
        for path, aside in kept.items():
            aside.rename(path)


def test_other_resources_make_no_table_again(finished: Path) -> None:
    asked = again(finished, overlay(resources={"mem_mb": 2345, "runtime": 7}))
    assert not {"write_table1", "write_claims", "evaluate_on_imagenet_val"} & set(asked)


def test_what_is_printed_above_the_tables_trains_and_evaluates_nothing(finished: Path) -> None:
    asked = again(finished, overlay(report={"note": "another note"}))
    assert asked["write_table1"] == asked["write_table2"] == 1
    assert not encodes(asked) and not {"train", "evaluate_on_imagenet_val", "pixels"} & set(asked)


def test_backbones_with_a_head_for_imagenet_are_read_out_before_fine_tuning(finished: Path) -> None:
    known = {"name": "convnext_atto.d2_in1k", "weights": None, "revision": "0" * 40}
    asked = again(finished, overlay(training={**METHODS, "backbones": {"convnext": known}}))
    assert asked["evaluate_pretrained_on_imagenet_val"] == 1  # swin's weights are the demo's, without a head
    without = overlay(training={**METHODS, "backbones": {"convnext": known}}, report={"before_fine_tuning": False})
    assert "evaluate_pretrained_on_imagenet_val" not in again(finished, without)


@pytest.mark.parametrize(
    ("name", "key", "values", "wanted"),
    [
        ("timestep", "diffusion.features.timestep", [100, 50], {**FEATURES, "train": 2, **evaluations(4)}),
        ("weights", "training.fusion", ["sum"], {"train": 2, **evaluations(2)}),
        ("share", "occlusion.share", [0.25], {"parts": 1, "latents": 1, "features": 1, "train": 2, **evaluations(2)}),
    ],
)
def test_a_grid_makes_only_what_its_settings_reach(
    finished: Path, name: str, key: str, values: list[Any], wanted: dict[str, int]
) -> None:
    """The run's own settings are one of the points; its features, models and latents serve again."""
    grid = {name: {"methods": ["sd_features"], "grid": {key: values}}}
    (finished / "changed.json").write_text(json.dumps(overlay(ablation=grid)))
    files = ["--configfile", "config.yaml", "config/demo.yaml", "changed.json", "--"]
    result = snakemake(finished, "-n", "-p", *files, f"ablation_{name}")
    assert result.returncode == 0, text(result)
    asked = jobs(result)
    assert {
        rule: asked[rule]
        for rule in asked
        if rule not in ("total", f"write_ablation_{name}", f"draw_ablation_{name}", f"ablation_{name}")
    } == wanted


def test_a_changed_caption_makes_the_report_again_and_nothing_else(finished: Path) -> None:
    captions = finished / "workflow"
    captions.unlink()
    shutil.copytree(ROOT / "workflow", captions)
    try:
        for caption in (captions / "report").glob("*.rst"):
            caption.write_text(caption.read_text() + "\nAnother sentence.\n")
        assert again(finished, overlay()) == {"write_report": 1}
    finally:
        shutil.rmtree(captions)
        captions.symlink_to(ROOT / "workflow")


def test_a_changed_template_makes_the_report_again_and_nothing_else(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "dfeat", tmp_path / "dfeat")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert again(finished, overlay()) == {}
    template = tmp_path / "dfeat/report/page/templates/page.css"
    template.write_text(template.read_text() + "body{color:red}")
    assert again(finished, overlay()) == {"write_report": 1}


def test_a_larger_gallery_makes_no_table_again(finished: Path) -> None:
    asked = again(finished, overlay(report={"gallery": 7}))
    assert {"draw_gallery", "write_report"} <= set(asked)
    assert not {"write_table1", "write_table2", "write_claims", "draw_accuracy", "draw_gain"} & set(asked)


def test_snakemakes_own_report_has_every_result_with_its_caption(finished: Path) -> None:
    result = snakemake(finished, "--report", "report.zip")
    assert result.returncode == 0, text(result)
    with zipfile.ZipFile(finished / "report.zip") as packed:
        names = {Path(name).name for name in packed.namelist()}
        page = packed.read("report/report.html").decode()
    wanted = {"table1.csv", "table2.csv", "claims.md", "index.html", "gallery.png", "figure2.png", "accuracy.png"}
    assert wanted <= names
    for caption in ("Best and worst inpaintings", "Accuracy against information loss", "Table 2."):
        assert caption in page
    for category in ("Tables", "Figures", "Claims", "Report"):
        assert f'"{category}"' in page
