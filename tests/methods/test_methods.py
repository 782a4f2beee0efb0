"""A method is a file and a line: what it says holds everywhere, and no other room names one."""

from __future__ import annotations

import ast
import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm import create_model

from dfeat import methods
from dfeat.config import Settings, stage_settings, table_settings
from dfeat.config.files import read_settings
from dfeat.costs.estimate import estimate
from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate
from dfeat.methods import METHODS, NAMES, PAPER_NAMES, PRETRAINED, Method
from dfeat.report.catalogue import wanted
from dfeat.report.figures.curves import accuracy
from dfeat.report.page import write_report
from dfeat.report.tables.published import write_table
from dfeat.section import parse
from dfeat.training.loop import train
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Inputs
from tests.conftest import CPU, TINY_BACKBONE, World

PACKAGE = Path(methods.__file__).parents[1]
PAGE = PACKAGE.parent / "docs/adding-a-method.md"
NAMED_BY_OTHERS = {
    ("evaluation/verdicts.py", "black_out"): "a column of verdicts.csv",
    ("data/labels.py", "replace"): "how bytes are decoded",
    ("data/segmentation.py", "replace"): "how bytes are decoded",
    ("data/sources.py", "replace"): "how bytes are decoded",
    ("devices/attempts.py", "replace"): "how bytes are decoded",
    ("devices/driver.py", "replace"): "how bytes are decoded",
    ("progress.py", "replace"): "how bytes are decoded",
    ("status/standing.py", "replace"): "how bytes are decoded",
    ("report/page/cards.py", "replace"): "how bytes are decoded",
    ("storage/journal.py", "replace"): "how bytes are decoded",
    ("report/tables/measured.py", "replace"): "how bytes are decoded",
    ("report/figures/curves.py", "none"): "matplotlib's word for no marker",
    ("adopt.py", "none"): "Snakemake's word for no profile",
    ("config/run.py", "none"): "a value of report.tex_intervals",
    ("report/tables/layout.py", "none"): "the same",
    ("devices/driver.py", "none"): "a scheduler's word for no device",
    ("training/probe.py", "none"): "the English word in an error",
    ("data/folder.py", "none"): "the English word in an error",
    ("data/partimagenet.py", "none"): "the English word in an error",
    ("report/tables/ablations.py", "none"): "the English word in an error",
}
"""Strings that equal the name of a method, and what they are."""


def fenced(language: str) -> str:
    """The first block of a language on the page that shows how to add a method."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[0]


def patched(tree: Path) -> Path:
    """The tree, with the page's change applied by git."""
    subprocess.run(["git", "apply", "-"], cwd=tree, input=fenced("diff"), text=True, check=True)
    return tree


@pytest.fixture
def seventh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Method:
    """The method of the page, in a copy of the methods, and in the list."""
    tree = tmp_path / "tree"
    shutil.copytree(PACKAGE / "methods", tree / "dfeat/methods")
    spec = importlib.util.spec_from_file_location("noise", patched(tree) / "dfeat/methods/noise.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(methods, "METHODS", (*METHODS, module.NOISE))
    return module.NOISE


def test_the_picture_of_the_page_is_drawn(seventh: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(PACKAGE.parent / "docs")
    names: dict[str, Any] = {}
    exec(compile(fenced("python"), PAGE.name, "exec"), names)
    changed = (names["painted"] != names["picture"]).any(axis=2)
    assert (changed & ~names["hidden"]).sum() == 0 and changed[names["hidden"]].mean() > 0.99
    assert len(np.unique(names["painted"][names["hidden"]])) == 256 and (tmp_path / "noise.png").is_file()


@pytest.mark.slow
def test_the_change_of_the_page_is_whole(tmp_path: Path) -> None:
    """Applied to a copy of the tree: lint, types, schema and tests pass, and a plan trains it and changes no other job."""
    root, tree = PACKAGE.parent, tmp_path / "tree"
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    for name in filter(None, listed):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tree / name)
    environment = os.environ | {"PYTHONPATH": str(tree), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def said(*command: str) -> str:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def trainings(*names: str) -> dict[str, str]:
        (tree / "mine.json").write_text(json.dumps({"training": {"methods": names}}))
        files = ("config.yaml", "config/demo.yaml", "config/smoke.yaml", "mine.json")
        plan = said("snakemake", "-n", "-p", "--cores", "1", "--configfile", *files)
        return {re.findall(r"--out (\S+)", command)[0]: command for command in re.findall(r"dfeat train .*", plan)}

    before = trainings("none", "black_out")
    patched(tree)
    after = trainings("none", "black_out", "noise")
    assert {out: after[out] for out in before} == before
    assert {Path(out).parts[-3] for out in after.keys() - before.keys()} == {"noise"} and len(after) == 6
    schema = tree / "workflow/schemas/config.schema.json"
    unchanged = schema.read_text()
    said("dfeat", "schema", "--out", str(schema))
    assert (
        "noise" in schema.read_text()
        and [line for line in unchanged.splitlines() if line.rstrip(",") not in schema.read_text()] == []
    )
    said("ruff", "check", "dfeat")
    said("ruff", "format", "--check", "dfeat")
    said("mypy")
    of_methods = "titles or every_file or reads_the_settings or nobody_else or schema or shipped"
    said("pytest", "-n", "0", "tests/methods/test_methods.py", "tests/config/test_settings.py", "-k", of_methods)


def test_a_seventh_method_is_a_file_and_a_line(seventh: Method, world: World, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"])
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    plain = world.settings.model_dump(mode="json")
    plain["training"]["methods"] = ["none", seventh.name]
    plain["training"]["backbones"]["convnext"]["weights"] = str(tmp_path / "weights.safetensors")
    settings, run = parse(Settings, plain), tmp_path / "run"
    inputs = Inputs(world.train, world.train / "pixels.h5", world.parts)
    for name in settings.training.methods:
        model, predictions = (run / step / name / "convnext" / "seed0" for step in ("training", "evaluation"))
        train(name, inputs, stage_settings(settings, "train", "convnext", name), 0, model, CPU)
        evaluate(model, world.root / "data", {}, stage_settings(settings, "evaluate"), predictions, CPU)
    weights = [(run / f"training/{name}/convnext/seed0/model.safetensors").read_bytes() for name in ("none", "noise")]
    assert weights[0] != weights[1]
    (run / "data").symlink_to(world.root / "data")
    for table in ("table1", "table2"):
        write_table(table, run / "evaluation", settings, run / "report")
    accuracy(run / "evaluation", settings, run / "report")
    write_report(run, settings, run / "report" / "index.html")
    with (run / "report" / "table1.csv").open(newline="") as file:
        assert {row["method"] for row in csv.DictReader(file)} == {"none", seventh.name}
    assert seventh.title in (run / "report" / "table1.md").read_text()
    assert seventh.colour.lower() in (run / "report" / "accuracy.svg").read_text()
    page = (run / "report" / "index.html").read_text()
    assert seventh.title in page
    assert seventh.colour in page


def of_run(settings: Settings) -> list[Any]:
    """All that a run's plan and tables take from the settings."""
    stages = [
        stage_settings(settings, "train", backbone, name).model_dump_json()
        for name in (*PAPER_NAMES, None)
        for backbone in settings.training.backbones
    ]
    images = {"train": 100, **dict.fromkeys(settings.data.evaluation, 10)}
    tables = table_settings(settings, settings.data.evaluation).model_dump_json()
    shown = [entry.name for entry in wanted(settings)]
    return [settings.model_dump_json(), *stages, tables, shown, estimate(settings, images)]


def test_a_further_method_changes_no_run_that_does_not_ask_for_it(request: pytest.FixtureRequest) -> None:
    root = PACKAGE.parent
    configs = [[root / "config.yaml"], [root / "config.yaml", root / "config" / "demo.yaml"]]
    before = [*(of_run(read_settings(files)) for files in configs), of_run(Settings())]
    request.getfixturevalue("seventh")
    assert [*(of_run(read_settings(files)) for files in configs), of_run(Settings())] == before


def test_titles_colours_and_markers_are_of_one_method_each() -> None:
    for word in ("name", "title", "colour", "marker"):
        values = [getattr(one, word) for one in (*METHODS, PRETRAINED)]
        assert len(set(values)) == len(values), word


def test_every_file_of_a_method_is_in_the_list() -> None:
    rooms = {"__init__", "box", "method", "paint", "pretrained", "runs", "smooth"}
    assert {path.stem for path in (PACKAGE / "methods").glob("*.py")} - rooms == set(NAMES)


@pytest.mark.parametrize("one", METHODS, ids=NAMES)
def test_a_method_reads_the_settings_of_what_it_needs(one: Method) -> None:
    assert set(one.reads) <= {*TrainingSettings.model_fields, "partner_seed"}
    implied = {
        "inpainted": {"inpainted"} if "inpainted" in one.needs else set(),
        "features": {"feature_norm", "fusion", "twin_features"} if "features" in one.needs else set(),
        "masks": {"alpha", "beta", "mask_image"} if one.masks else set(),
    }
    assert set().union(*implied.values()) <= set(one.reads)
    assert set(one.ablations) <= set(Settings().ablation)
    assert {control.name for control in one.controls} <= set(NAMES) - {one.name}


def test_an_unknown_method_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        UserError, match="no method 'sd_inpant'; did you mean 'sd_inpaint'\\? Use one of none, black_out"
    ):
        methods.method("sd_inpant")
    with pytest.raises(UserError, match="no method '42'; use one of none, black_out"):
        methods.method("42")
    with pytest.raises(UserError, match=r"'training.methods.1' is 'cutmax': no method 'cutmax'; did you mean 'cutmix'"):
        parse(Settings, {"training": {"methods": ["none", "cutmax"]}})


def test_nobody_else_names_a_method() -> None:
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(("methods/", "report/claims/")):
            strings = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
            found |= {(place, value) for value in strings if value in NAMES}
    assert found == set(NAMED_BY_OTHERS)


def test_a_further_setting_of_training_changes_no_earlier_trainings_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a further method brings one: while it has its default, what a training is given stays as it was."""
    from dfeat.training import settings as module

    class Later(module.TrainingSettings):
        ratio: float = 0.25

    class LaterStage(module.TrainStage):
        training: Later = Later()

    monkeypatch.setattr(module, "TrainingSettings", Later)
    backbone = module.Backbone(name="convnext_atto")
    before = module.TrainStage(backbone=backbone).model_dump_json()
    assert LaterStage(backbone=backbone).model_dump_json() == before
    assert '"ratio":0.5' in LaterStage(backbone=backbone, training=Later(ratio=0.5)).model_dump_json()
