"""A run that was copied or moved: after `dfeat adopt`, Snakemake plans what it would have planned where the run was."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from dfeat.verify import verify_run
from tests.workflow.test_snakemake import of_all_views, text

from .conftest import Tried
from .small_run import SmallRun, unmeasured

pytestmark = pytest.mark.slow
EDITS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a set": {"data": {"evaluation": {"again": {"kind": "folder", "root": "results/tiny/raw/dfeat_real"}}}},
    "a level": {"data": {"evaluation": {"imagenet_val": {"levels": [0, 40, 60]}}}},
    "a level less": {"data": {"evaluation": {"imagenet_val": {"levels": [0]}}}},
    "pixels": {"data": {"short_side": 72}},
    "parts": {"occlusion": {"share": 0.25}},
    "features": {"diffusion": {"features": {"timestep": 50}}},
    "training": {"training": {"learning_rate": 0.5}},
    "one method": {"training": {"alpha": 0.3}},
    "a method less": {"training": {"methods": ["none", "sd_inpaint"]}},
    "drawn": {"data": {"drawn": {"seed": 3}}},
    "note": {"report": {"note": "another note"}},
    "gallery": {"report": {"gallery": 7}},
}
"""Changes of the configuration, by what they change."""
KEPT = {"latents_of_imagenet_val", "features_of_imagenet_val"}
"""Jobs that the original plans for its shorter list of levels. They find all that they make standing, and compute nothing."""


def lose_times(run: SmallRun) -> None:
    """What a copy without times may look like, at its worst: any order."""
    rng = random.Random("times")
    for path in sorted(run.run.rglob("*")):
        moment = 1.7e9 + rng.uniform(0, 1e6)
        os.utime(path, (moment, moment), follow_symlinks=False)


def lose_records(run: SmallRun) -> None:
    shutil.rmtree(run.folder / ".snakemake")


LOSSES = {"times": (lose_times,), "records": (lose_records,), "both": (lose_times, lose_records)}

LOST = {"times": "times", "records": ".snakemake", "both": "times and .snakemake"}


@pytest.fixture(scope="module")
def planned(finished: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, int]]:
    """What Snakemake plans where the run was made, after each edit."""
    here = finished.copy(tmp_path_factory.mktemp("where it was") / "run")
    return {name: plan_after(here, edit) for name, edit in EDITS.items()}


def plan_after(run: SmallRun, edit: dict[str, Any]) -> dict[str, int]:
    run.configure(**edit)
    return run.plan()


def moved(finished: SmallRun, folder: Path, loss: str) -> SmallRun:
    run = finished.copy(folder)
    for lose in LOSSES[loss]:
        lose(run)
    return run


@pytest.mark.parametrize("loss", LOSSES)
def test_an_adopted_copy_plans_what_the_run_would_have_planned(
    loss: str, finished: SmallRun, planned: dict[str, dict[str, int]], tmp_path: Path, tried: Tried
) -> None:
    run = moved(finished, tmp_path / "copy", loss)
    before = unmeasured(run)
    assert "to be made again" not in run.adopt()
    assert run.adopt() == run.adopt()
    for name, edit in EDITS.items():
        assert plan_after(run, edit) == planned[name], name
    assert planned["nothing"] == {}
    assert unmeasured(run) == before
    tried(f"run copied without {LOST[loss]}, adopted, then edited", len(EDITS), "the plan of the original")


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_before_the_adoption_plans_the_same(
    name: str, finished: SmallRun, planned: dict[str, dict[str, int]], tmp_path: Path, tried: Tried
) -> None:
    run = moved(finished, tmp_path / "copy", "both")
    run.configure(**EDITS[name])
    run.adopt()
    kept = KEPT if name == "a level less" else set()
    assert run.plan() == {rule: jobs for rule, jobs in planned[name].items() if rule not in kept}
    tried(f"run copied without {LOST['both']}, edited, then adopted", 1, "the plan of the original")


DAMAGED = {
    "data/train/index.csv": "index_train",
    "data/dfeat_real/classes.json": "index_evaluation",
    "data/train/pixels.h5": "pixels",
    "occlusion/parts.json": "parts",
    "diffusion/inpaint/train/0-of-1.h5": "inpaint",
    "diffusion/features/train/0-of-1.h5": "features",
    "training/none/convnext/seed0/metrics.jsonl": "train",
    "evaluation/none/convnext/seed0/dfeat_real@0.csv": "evaluate_on_dfeat_real",
    "report/table1.tex": "write_table1",
    "report/index.html": "write_report",
}


def test_what_is_damaged_is_made_again_and_is_then_as_it_was(finished: SmallRun, tmp_path: Path, tried: Tried) -> None:
    for name, rule in DAMAGED.items():
        run = moved(finished, tmp_path / rule, "both")
        damage(run.run / name)
        assert f"to be made again: {name}" in run.adopt() or name == "data/dfeat_real/classes.json"
        plan = run.plan()
        assert plan[rule] == 1, name
        if rule in ("write_table1", "write_report"):
            run.finish()
            assert unmeasured(run) == unmeasured(finished)
            assert run.plan() == {}
        shutil.rmtree(run.folder)
    tried("artifact of a copied run damaged, then adopted", len(DAMAGED), "made again")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_intermediates_that_were_not_copied_are_not_made_until_they_are_read(
    finished: SmallRun, tmp_path: Path
) -> None:
    run = moved(finished, tmp_path / "copy", "both")
    for kind in ("latents", "features"):
        shutil.rmtree(run.run / "diffusion" / kind)
    run.adopt()
    assert run.plan() == {}
    assert of_all_views(plan_after(run, EDITS["training"]), "features") == 4  # two of training, and a set each


def test_a_run_of_another_name_is_adopted_and_only_its_report_is_made_again(finished: SmallRun, tmp_path: Path) -> None:
    run = moved(finished, tmp_path / "copy", "times")
    shutil.copytree(run.run, run.folder / "results" / "renamed")  # the drawn images stay, as a user's data do
    renamed = SmallRun(run.folder, "renamed")
    renamed.configure(run="renamed", data={"drawn": None})
    renamed.adopt()
    assert all(rule.startswith(("write_", "draw_")) for rule in renamed.plan()), renamed.plan()
    assert {finding.state for finding in verify_run(renamed.run)} == {"whole"}
    refused = renamed.dfeat("adopt", "results/tiny")
    assert refused.returncode == 2
    assert "results/tiny is not the configured run, results/renamed" in refused.stderr


def test_links_to_a_base_run_are_adopted(finished: SmallRun, tmp_path: Path) -> None:
    run = finished.copy(tmp_path / "copy")
    based = SmallRun(run.folder, "based")
    based.configure(run="based", base="tiny", data={"drawn": None}, diffusion={"features": {"timestep": 50}})
    wanted = ["results/based/diffusion/features/train/0-of-1.h5", "results/based/diffusion/inpaint/train/pixels.h5"]
    based.finish("--", *wanted)
    for lose in (lose_times, lose_records):
        lose(based)
    links = {path for path in based.run.rglob("*") if path.is_symlink()}
    assert links
    assert "to be made again" not in based.adopt()
    assert based.plan("--", *wanted) == {}
    assert {path for path in based.run.rglob("*") if path.is_symlink()} == links


def test_no_run_starts_from_an_adoption_that_was_interrupted(finished: SmallRun, tmp_path: Path) -> None:
    run = moved(finished, tmp_path / "copy", "both")
    (run.run / ".adopting").touch()
    refused = run.snakemake("-n")
    assert refused.returncode == 2
    assert "`dfeat adopt results/tiny` is at work or was interrupted; run it to its end" in text(refused)
    run.adopt()
    assert run.plan() == {}
