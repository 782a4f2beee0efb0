"""Costs are those of the run's own benchmark files, logs and artifacts, divided by what was gained."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dfeat.config import Settings
from dfeat.costs.counts import Counts, count
from dfeat.costs.efficiency import Step
from dfeat.data.records import INDEX_COLUMNS, table_text
from dfeat.report.claims.claims import write_claims
from dfeat.report.tables.efficiency import write_efficiency
from dfeat.section import parse

from .predictions import small_settings, write_predictions

IMAGES, TEST_IMAGES = 50, 200
METHODS = ("none", "sd_inpaint", "sd_features")


class Fixed(Counts):
    """FLOPs and parameters that are easy to reckon with."""

    def __init__(self, forward: dict[str, float]) -> None:
        super().__init__(0.0, 0.0, 0.0, 0.0, 0.0, forward, parameters=250)

    def inpaint(self, settings: Settings) -> float:
        return 900.0

    def view(self, settings: Settings) -> dict[Step, float]:
        return {"latents": 80.0, "features": 20.0}

    def training(self, settings: Settings, method: str, backbone: str) -> float:
        return 5000.0


def settings_of(*methods: str) -> Settings:
    plain = small_settings().model_dump(mode="json")
    plain["training"]["methods"] = list(methods)
    return parse(Settings, plain)


def job(run: Path, step: str, name: str, seconds: float, joules: float | None = None, megabytes: int = 9) -> None:
    """The benchmark file and the log of a job."""
    for folder, text in (
        ("benchmarks", f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t{megabytes}\n"),
        ("logs", "done\n" if joules is None else f"dfeat: x computes on GPU-a\ndfeat: energy: {joules} J of GPU-a\n"),
    ):
        path = run / folder / step / f"{name}.{'tsv' if folder == 'benchmarks' else 'log'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def shard(run: Path, folder: str, size: int) -> None:
    path = run / "diffusion" / folder / "0-of-1.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three methods, two backbones, two seeds; four test views of 200 images."""
    run = tmp_path_factory.mktemp("run")
    settings = settings_of(*METHODS)
    write_predictions(run / "evaluation", settings, gain={"none": 0.0, "sd_inpaint": 2.0, "sd_features": -2.0})
    for name, images in (("train", IMAGES), ("simulated", TEST_IMAGES), ("real", TEST_IMAGES)):
        folder = run / "data" / name
        folder.mkdir(parents=True)
        rows = [(f"{name}{n}", f"{n}.jpg", 0, "n01440764", 64, 64) for n in range(images)]
        (folder / "index.csv").write_text(table_text(INDEX_COLUMNS, rows))
        (folder / "classes.json").write_text(json.dumps([{"wnid": "n01440764", "name": "tench"}]))
        (folder / "source.json").write_text(json.dumps({"set": name, "root": ".", "images": images}))
    for method in METHODS:
        for backbone in ("convnext", "swin"):
            for seed in (0, 1):
                job(run, "training", f"{method}_{backbone}_seed{seed}", 100 + 50 * seed, 1000)
                for name, seconds in (("simulated", 6), ("real", 2), ("dropped", 100)):
                    job(run, "evaluation", f"{method}_{backbone}_seed{seed}@{name}", seconds, 10 * seconds)
                job(run, "evaluation", f"{method}_{backbone}_seed{seed}", 100)  # of an earlier version, all sets in one
                model = run / "training" / method / backbone / f"seed{seed}" / "model.safetensors"
                model.parent.mkdir(parents=True)
                model.write_bytes(bytes(500))
    job(run, "diffusion", "inpaint_0-of-2", 60, 600, megabytes=30)
    job(run, "diffusion", "inpaint_1-of-2", 40, 400)
    job(run, "diffusion", "inpainted_pixels", 10)  # takes no device, so none of its joules
    shard(run, "inpaint/train", 4000)
    for view in ("train", "train-occluded", "simulated@0", "simulated@40", "simulated@80", "real@0"):
        job(run, "diffusion", f"latents_{view}_0-of-1", 3, 30)
        job(run, "diffusion", f"features_{view}_0-of-1", 2, 20)
        shard(run, f"latents/{view}", 700)
        shard(run, f"features/{view}", 300)
    job(run, "diffusion", "latents_train_real@0_0-of-1", 1000, 1000)  # of a set with such a name
    write_efficiency(run, settings, Fixed({"convnext": 10.0, "swin": 20.0}), run / "report")
    return run


def rows_of(run: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    with (run / "report" / "efficiency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["method"], row["backbone"], row["quantity"]): {
            key: value if key == "unpriced" else float(value)
            for key, value in row.items()
            if value and key not in ("method", "backbone", "quantity")
        }
        for row in rows
    }


def test_seconds_are_those_of_the_benchmark_files(run: Path) -> None:
    rows = rows_of(run)
    inpaint, features = rows["sd_inpaint", "swin", "seconds"], rows["sd_features", "swin", "seconds"]
    assert inpaint["prepare"] == pytest.approx((60 + 40 + 10) / IMAGES)
    assert inpaint["train"] == features["train"] == pytest.approx(125 / IMAGES)
    assert inpaint["test"] == pytest.approx(8 / (4 * TEST_IMAGES))
    assert features["prepare"] == pytest.approx(2 * (3 + 2) / IMAGES)
    assert features["test"] == pytest.approx((8 + 4 * 5) / (4 * TEST_IMAGES))
    assert inpaint["extra"] == pytest.approx(110 / IMAGES)
    assert rows["none", "swin", "seconds"].keys() == {"prepare", "train", "test"}


def test_every_copy_of_an_image_is_counted() -> None:
    plain = settings_of(*METHODS).model_dump(mode="json")
    plain["diffusion"]["inpaint"]["copies"] = 3
    settings, counts = parse(Settings, plain), Fixed({})
    assert counts.preparing(settings, "sd_inpaint") == 3 * 900 and counts.preparing(settings, "sd_features") == 200


def test_flops_bytes_and_joules(run: Path) -> None:
    rows = rows_of(run)
    assert (
        rows["sd_inpaint", "swin", "flops"] | {"prepare": 900.0, "train": 5000.0, "test": 20.0, "extra": 900.0}
        == (rows["sd_inpaint", "swin", "flops"])
    )
    assert rows["sd_features", "convnext", "flops"]["prepare"] == 200  # the image's and its twin's
    assert rows["sd_features", "convnext", "flops"]["test"] == 110
    assert rows["sd_inpaint", "swin", "bytes"]["prepare"] == 4000 / IMAGES
    assert rows["sd_features", "swin", "bytes"]["prepare"] == 2 * (700 + 300) / IMAGES
    assert rows["sd_features", "swin", "bytes"]["test"] == 4 * 1000 / (4 * TEST_IMAGES)
    assert rows["none", "swin", "bytes"]["train"] == 500 / IMAGES
    assert rows["sd_features", "swin", "joules"]["prepare"] == pytest.approx(100 / IMAGES)
    assert rows["sd_inpaint", "swin", "joules"]["prepare"] == pytest.approx((600 + 400) / IMAGES)


def test_training_and_inference_are_compared_with_none_side_by_side(run: Path) -> None:
    rows = rows_of(run)
    features = rows["sd_features", "swin", "flops"]
    assert (features["extra"], features["extra_test"]) == (200, 100)
    assert features["break_even"] == IMAGES * 200 / 100  # images at inference that cost what all of the training did
    inpaint = rows["sd_inpaint", "swin", "flops"]
    assert inpaint["extra"] == 900 and inpaint["extra_test"] == 0 and "break_even" not in inpaint
    seconds = rows["sd_features", "convnext", "seconds"]
    assert seconds["extra_test"] == pytest.approx(4 * 5 / (4 * TEST_IMAGES))
    assert seconds["break_even"] == pytest.approx(10 / (20 / (4 * TEST_IMAGES)), rel=1e-4)


def test_memory_is_the_most_that_a_job_took_and_of_a_device_where_its_log_has_it(run: Path, tmp_path: Path) -> None:
    rows = rows_of(run)
    inpaint = rows["sd_inpaint", "swin", "memory"]
    assert (inpaint["prepare"], inpaint["train"]) == pytest.approx((30 * 2**20, 9 * 2**20), rel=1e-5)
    assert inpaint["extra"] == pytest.approx(21 * 2**20, rel=1e-5) and "per_point" not in inpaint
    shutil.copytree(run, tmp_path / "run")
    with (tmp_path / "run/logs/training/none_swin_seed0.log").open("a") as log:
        log.write("memory: 4000 MB of a device\ndfeat: memory: 3000 MB of a device\n")
    write_efficiency(tmp_path / "run", settings_of(*METHODS), Fixed({"convnext": 1.0, "swin": 1.0}), tmp_path)
    with (tmp_path / "efficiency.csv").open(newline="") as file:
        found = {(r["method"], r["backbone"]): r["train"] for r in csv.DictReader(file) if r["quantity"] == "memory"}
    assert float(found["none", "swin"]) == 4e9 and float(found["none", "convnext"]) < 1e7


def test_what_classifying_an_image_needs_is_shipped(run: Path) -> None:
    rows = rows_of(run)
    assert rows["sd_features", "swin", "shipped"]["test"] == 500 + 4 * 250  # the classifier, and parameters in float32
    assert rows["sd_inpaint", "swin", "shipped"]["test"] == rows["none", "swin", "shipped"]["test"] == 500
    assert rows["sd_features", "swin", "shipped"]["extra_test"] == 1000
    plain = settings_of(*METHODS).model_dump(mode="json")
    plain["diffusion"]["model"]["precision"] = "bfloat16"
    assert Fixed({}).shipped(parse(Settings, plain), "sd_features") == 500


def test_the_price_of_a_point_is_the_extra_over_the_gain(run: Path) -> None:
    rows = rows_of(run)
    gained, lost = rows["sd_inpaint", "swin", "flops"], rows["sd_features", "swin", "flops"]
    assert gained["level"] == 80 and 0 < gained["gain_low"] < gained["gain"] < gained["gain_high"]
    assert gained["per_point"] == pytest.approx(gained["extra"] / gained["gain"], rel=1e-4)
    assert "per_point_test" not in gained  # its inference is None's
    assert lost["gain_high"] < 0 and lost["unpriced"] == "a loss" and not {"per_point", "per_point_test"} & lost.keys()


def test_what_is_not_above_noise_has_no_price_but_a_reason(run: Path, tmp_path: Path) -> None:
    """A gain whose interval includes 0, and seconds that differ no more than those of trainings of equal operations."""
    shutil.copytree(run, tmp_path / "run")
    settings = settings_of("none", "black_out", "cutmix")
    write_predictions(tmp_path / "run/evaluation", settings, gain={"none": 0.0, "black_out": 0.0, "cutmix": 2.0})
    for method, seconds in (("black_out", 20), ("cutmix", 170)):  # None's trainings take 100 and 150
        for backbone, seed in product(("convnext", "swin"), (0, 1)):
            job(tmp_path / "run", "training", f"{method}_{backbone}_seed{seed}", seconds)
            for name in ("simulated", "real"):
                job(tmp_path / "run", "evaluation", f"{method}_{backbone}_seed{seed}@{name}", 4)
    write_efficiency(tmp_path / "run", settings, Fixed({"convnext": 1.0, "swin": 1.0}), tmp_path / "run/report")
    rows = rows_of(tmp_path / "run")
    for backbone in ("convnext", "swin"):
        none, gained = rows["black_out", backbone, "seconds"], rows["cutmix", backbone, "seconds"]
        assert none["extra"] < 0 and none["gain_low"] <= 0 <= none["gain_high"]
        assert none["unpriced"] == "no gain above noise" and "per_point" not in none
        assert gained["extra"] > 0 and gained["gain_low"] > 0 and gained["gain_p_holm"] < 0.05 < none["gain_p_holm"]
        assert gained["unpriced"] == "no further cost above noise" and "per_point" not in gained
    assert "no gain above noise" in (tmp_path / "run/report/efficiency.md").read_text()


def test_a_gain_is_above_noise_by_its_p_corrected_over_methods_and_backbones_at_the_runs_confidence(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "data", tmp_path / "data")
    write_predictions(
        tmp_path / "evaluation", settings_of(*METHODS), gain={"none": 0.0, "sd_inpaint": 0.2, "sd_features": 0.0}
    )
    unpriced = {}
    for confidence in (0.95, 0.5):
        plain = settings_of(*METHODS).model_dump(mode="json")
        plain["report"]["confidence"] = confidence
        write_efficiency(tmp_path, parse(Settings, plain), Fixed({"convnext": 1.0, "swin": 1.0}), tmp_path / "report")
        rows = rows_of(tmp_path)
        inpaint = rows["sd_inpaint", "swin", "flops"]
        unpriced[confidence] = inpaint.get("unpriced", "")
        assert (unpriced[confidence] == "") == (inpaint["gain_p_holm"] < 1 - confidence) and inpaint["gain_low"] > 0
    assert unpriced == {0.95: "no gain above noise", 0.5: ""}


def test_json_and_markdown_say_the_same(run: Path) -> None:
    content = json.loads((run / "report" / "efficiency.json").read_text())
    assert len(content["rows"]) == len(rows_of(run)) == 3 * 2 * 6
    text = (run / "report" / "efficiency.md").read_text()
    assert "## Energy" in text and "| SD Inpaint | Swin |" in text and "per training image" in text


def test_what_was_not_measured_is_left_empty(run: Path, tmp_path: Path) -> None:
    settings = settings_of(*METHODS)
    (tmp_path / "data").symlink_to(run / "data")
    (tmp_path / "evaluation").symlink_to(run / "evaluation")
    write_efficiency(tmp_path, settings, Fixed({"convnext": 1.0, "swin": 1.0}), tmp_path / "report")
    assert {key[2] for key in rows_of(tmp_path)} == {"flops"}
    assert "Not measured" in (tmp_path / "report" / "efficiency.md").read_text()


def test_joules_of_which_a_part_is_not_known_are_left_empty_and_the_last_line_of_a_log_counts(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    logs = tmp_path / "run" / "logs"
    (logs / "diffusion/inpaint_1-of-2.log").write_text("dfeat: x computes on the CPU\n")
    with (logs / "diffusion/latents_train_0-of-1.log").open("a") as log:
        log.write("no energy: 9 J\ndfeat: energy: 1030.000 J of GPU-a, GPU-b\n")
    write_efficiency(
        tmp_path / "run", settings_of(*METHODS), Fixed({"convnext": 1.0, "swin": 1.0}), tmp_path / "report"
    )
    rows = rows_of(tmp_path)
    assert "prepare" not in rows["sd_inpaint", "swin", "joules"] and "extra" not in rows["sd_inpaint", "swin", "joules"]
    assert rows["sd_inpaint", "swin", "joules"]["train"] == pytest.approx(1000 / IMAGES)
    assert rows["sd_features", "swin", "joules"]["prepare"] == pytest.approx(1100 / IMAGES)


def test_the_claim_on_cost_is_read_off_it(run: Path, tmp_path: Path) -> None:
    settings = settings_of(*METHODS)
    settings = settings.model_copy(update={"report": settings.report.model_copy(update={"note": ""})})
    write_claims(run / "evaluation", settings, run / "report")
    text = (run / "report" / "claims.md").read_text()
    assert "significantly more efficient" in text
    even = IMAGES * (900 - 200) // 100  # test images at which the two have cost the same
    assert (
        f"| Operations | Swin | 0.0000002 GFLOP | 0.0000009 GFLOP | 0.0000001 GFLOP | 0 GFLOP | {even} | **holds** up to {even}, **fails** beyond |"
        in text
    )
    write_claims(run / "evaluation", settings, tmp_path)
    assert "significantly more efficient" not in (tmp_path / "claims.md").read_text()


def test_operations_of_the_papers_models_are_those_of_the_cost_model_and_small_ones_are_counted() -> None:
    paper = count(Settings())
    assert paper.inpaint(Settings()) == pytest.approx(84.0e12, rel=0.01)
    assert paper.feature(Settings()) == pytest.approx(1379e9, rel=0.01)
    assert paper.training(Settings(), "none", "swin") == pytest.approx(2 * 30 * 92.5e9, rel=0.005)
    assert paper.training(Settings(), "replace", "swin") == 2 * paper.training(Settings(), "none", "swin")
    small = parse(Settings, {
        "diffusion": {"model": {"path": "demo"}, "resolution": 64, "features": {"blocks": ["mid"]}},
        "training": {"image_size": 64, "backbones": {"tiny": {
            "name": "convnext_atto", "kwargs": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}}}},
    })  # fmt: skip
    counted = count(small)
    assert 0 < counted.features < counted.unet < paper.unet / 1000
    assert 0 < counted.forward["tiny"] < 1e8 and counted.decode > counted.encode > 0
