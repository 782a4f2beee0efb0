"""The workflow as a user runs it: targets by name, nothing done twice, and only what changed done again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dfeat.config.files import read_settings
from dfeat.progress import ended_for_good
from dfeat.status import status_of
from dfeat.storage.provenance import bytes_digest, settings_text

ROOT = Path(__file__).parents[2]
TINY = {
    "run": "tiny",
    "data": {
        "drawn": {"train": 1, "val": 1, "real": 1},
        "train": {"root": "results/tiny/raw/PartImageNet", "expected_images": 20, "holdout": 0},
        "evaluation": {
            "imagenet_val": {"root": "results/tiny/raw/imagenet/val", "levels": [0, 40], "expected_images": 20},
            "dfeat_real": {"root": "results/tiny/raw/dfeat_real", "expected_images": 20},
        },
    },
    "diffusion": {"inpaint": {"steps": 1, "shards": 1}},
    "training": {"methods": ["none", "sd_inpaint"], "epochs": 1},
}
INPAINTED = "results/tiny/diffusion/inpaint/train/pixels.h5"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the project's workflow in it, and a local.yaml that no command here names: it is not read."""
    folder = tmp_path_factory.mktemp("a tree with spaces")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "tiny.json").write_text(json.dumps(TINY))
    (folder / "local.yaml").write_text("no_such_key: [\n")
    return folder


def snakemake(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = [
        sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "config.yaml", "config/demo.yaml", "tiny.json",
        "--retries", "0", *arguments,
    ]  # fmt: skip
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=os.environ | {"PATH": path})


def text(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


def jobs(result: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """Rule -> number of jobs, from the table that a dry run prints."""
    counts: dict[str, int] = {}
    lines = text(result).splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith("Job stats:")), len(lines))
    for line in lines[start + 3 :]:
        words = line.split()
        if len(words) != 2 or not words[1].isdigit():
            break
        counts[words[0]] = int(words[1])
    return counts


def of_all_views(counts: dict[str, int], kind: str) -> int:
    """The jobs that make shards of latents or features: of the training images, and of each evaluation set."""
    return sum(count for rule, count in counts.items() if rule == kind or rule.startswith(f"{kind}_of_"))


def encodes(counts: dict[str, int]) -> bool:
    """Whether any job makes latents or features."""
    return any(of_all_views(counts, kind) for kind in ("latents", "features"))


def test_every_published_result_is_made_by_name(tree: Path) -> None:
    result = snakemake(
        tree, "-n", "-p", "table1", "table2", "figure2", "figure3", "accuracy", "gain", "claims", "report"
    )
    assert result.returncode == 0, text(result)
    counts = jobs(result)
    assert counts["train"] == counts["evaluate_on_imagenet_val"] == counts["evaluate_on_dfeat_real"] == 4
    assert counts["write_table1"] == counts["write_table2"] == 1
    assert "features" not in counts  # no method here fuses them


def test_a_grid_trains_its_methods_whether_the_run_has_them_or_not(tree: Path) -> None:
    result = snakemake(tree, "-n", "-p", "ablation_weights")
    assert result.returncode == 0, text(result)
    assert jobs(result)["train"] == jobs(result)["evaluate_on_imagenet_val"] == 6 * 2  # points, backbones
    assert "--method replace" in text(result)


def test_what_parts_cost_is_a_table_and_a_heat_map(tree: Path) -> None:
    files = ("config.yaml", "config/demo.yaml", "config/demo-beyond.yaml", "tiny.json")
    result = snakemake(tree, "-n", "-p", "part_cost", "--configfile", *files)
    assert result.returncode == 0, text(result)
    assert jobs(result)["write_part_cost"] == jobs(result)["draw_part_cost"] == 1


def test_a_job_elsewhere_has_the_settings_of_its_plan_and_not_those_of_an_edited_file(tree: Path) -> None:
    """`--mode remote` is what an executor starts on another machine."""
    files = ("config.yaml", "config/demo.yaml", "tiny.json")
    planned = settings_text(read_settings([tree / name for name in files])).encode()
    (tree / "settings").mkdir(exist_ok=True)
    handed = tree / "settings" / f"{bytes_digest(planned)}.json"
    handed.write_bytes(planned)
    changed = {**TINY, "training": {**TINY["training"], "learning_rate": 0.5}}
    (tree / "edited.json").write_text(json.dumps(changed))
    words = ("-n", "-p", "--mode", "remote", "--configfile", *files[:2], "edited.json")
    words += ("--config", f"planned_settings={handed}", "--", "results/tiny/training/none/swin/seed0/run.json")
    job = snakemake(tree, *words)
    assert job.returncode == 0, text(job)
    assert re.search(r"learning_rate\W+0\.01\b", text(job)) and not re.search(r"learning_rate\W+0\.5\b", text(job))
    handed.write_bytes(planned + b" ")
    changed_since = snakemake(tree, *words)
    assert changed_since.returncode != 0
    assert "is not what was planned from; start Snakemake anew" in text(changed_since)


@pytest.fixture(scope="module")
def made(tree: Path) -> Path:
    """The tree after a real run up to the inpainted pixels."""
    result = snakemake(tree, INPAINTED, "results/tiny/data/dfeat_real/index.csv")
    assert result.returncode == 0, text(result)
    return tree


def test_a_second_run_does_nothing(made: Path) -> None:
    assert "Nothing to be done" in text(snakemake(made, INPAINTED))


def test_a_changed_training_setting_never_inpaints_again(made: Path) -> None:
    changed = {"training": {**TINY["training"], "learning_rate": 0.5, "beta": 0.1, "epochs": 9}}
    (made / "changed.json").write_text(json.dumps({**TINY, **changed}))
    result = snakemake(
        made, "-n", "-p", "--configfile", "config.yaml", "config/demo.yaml", "changed.json", "--", INPAINTED
    )
    assert "Nothing to be done" in text(result)


def test_a_changed_choice_of_parts_runs_what_follows_it_and_no_more(made: Path) -> None:
    changed = {"occlusion": {"share": 0.25}}
    (made / "changed.json").write_text(json.dumps({**TINY, **changed}))
    result = snakemake(
        made, "-n", "-p", "--configfile", "config.yaml", "config/demo.yaml", "changed.json", "--", INPAINTED
    )
    assert {rule for rule in jobs(result) if rule != "total"} == {"parts", "inpaint", "inpainted_pixels"}


def test_jobs_leave_a_log_and_a_benchmark(made: Path) -> None:
    run = made / "results" / "tiny"
    assert "inpainted images in" in (run / "logs/diffusion/inpaint_0-of-1.log").read_text()
    assert (run / "benchmarks/diffusion/inpaint_0-of-1.tsv").read_text().startswith("s\t")
    assert not list(run.rglob("*.tmp.*"))


def test_a_status_tells_of_a_run_what_its_snakemake_made(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    status = status_of(Path("results/tiny"))
    (inpainting,) = [job for job in status.jobs if job.kind == "inpaint"]
    assert (inpainting.state, inpainting.attempts, inpainting.computed["rows"]) == ("made", 1, 20)
    assert inpainting.seconds and inpainting.seconds > inpainting.computed["seconds"]
    assert {job.state for job in status.jobs if job.step == "training"} == {"left"}
    assert not status.at_work and not status.locked


def test_a_typo_in_the_configuration_is_a_sentence(tree: Path) -> None:
    result = snakemake(tree, "-n", "-p", "--config", "trainin={}")
    assert result.returncode == 2
    told = (
        "dfeat: config.yaml + config/demo.yaml + tiny.json + --config: unknown key 'trainin'; did you mean 'training'?"
    )
    assert told in result.stderr
    assert "Error" not in text(result) and "Traceback" not in text(result)


def test_what_a_run_does_not_have_is_a_sentence(tree: Path) -> None:
    grid = {"ablation": {"bad": {"methods": ["replace"], "grid": {"training.alpha": [-1]}}}}
    (tree / "bad.json").write_text(json.dumps(grid))
    files = ["--configfile", "config.yaml", "config/demo.yaml", "tiny.json", "bad.json", "--"]
    for target, told in {
        "part_cost": "with `study: part_cost`: config/beyond.yaml has one",
        "ablation_bad": "dfeat: ablation.bad at {'training.alpha': -1}: 'training.alpha' is -1",
        "tabel2": "dfeat: no target 'tabel2'; did you mean 'table2'?",
    }.items():
        result = snakemake(tree, *files, target)  # not a dry run: no lock is left either
        assert result.returncode == 2, text(result)
        assert told in result.stderr
        assert "Exception" not in text(result) and "Traceback" not in text(result)
    assert not list((tree / ".snakemake" / "locks").glob("*"))


def test_a_set_whose_name_begins_like_the_training_set_has_its_own_images(tree: Path) -> None:
    sets = {"train_real": {"root": "results/tiny/raw/dfeat_real"}}
    changed = {"data": {"evaluation": sets}, "training": {"methods": ["sd_features"]}}
    (tree / "named.json").write_text(json.dumps(changed))
    latents = "results/tiny/diffusion/latents/train_real@0/0-of-1.h5"
    files = ["config.yaml", "config/demo.yaml", "tiny.json", "named.json"]
    result = snakemake(tree, "-n", "-p", "--configfile", *files, "--", latents)
    assert "dfeat latents --index results/tiny/data/train_real --view drop:0" in text(result)


def test_a_users_mistake_is_not_tried_again(tree: Path) -> None:
    """A real Snakemake with retries, and an image that is no image."""
    own = {"root": "broken", "expected_images": None, "expected_classes": None}
    (tree / "broken.json").write_text(json.dumps({"run": "broken", "data": {"drawn": None, "train": own}}))
    (tree / "broken/train").mkdir(parents=True)
    (tree / "broken/train/n01440764_1.JPEG").write_text("<html>not found</html>")
    (tree / "broken/train.json").write_text('{"images": [], "annotations": [], "categories": []}')
    files = ("config.yaml", "config/demo.yaml", "tiny.json", "broken.json")
    alone = "data={evaluation: {imagenet_val: null, dfeat_real: null}}"
    target = "results/broken/data/train/index.csv"
    result = snakemake(tree, target, "--retries", "1", "--configfile", *files, "--config", alone)
    assert result.returncode == 1 and "Trying to restart" not in text(result), text(result)
    log = tree / "results/broken/logs/data/index_train.log"
    first, second = log.read_text().splitlines()
    assert "the job is not tried again" in first and "has no usable image" in second and ended_for_good(log)
    log.write_text(f"{first}\n{second}\ndfeat: main memory ran out; run fewer jobs\n")
    assert not ended_for_good(log) and not ended_for_good(tree / "none.log")
    log.write_text(f"{second}\n")
    assert not ended_for_good(log)
