"""Beyond the paper's tables: what is hidden is what was meant, and the tables are the sums they say they are."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from dfeat.config import Settings, stage_settings
from dfeat.data.index import read_index
from dfeat.data.indexing import build_evaluation_index
from dfeat.data.pixels import cache_index
from dfeat.data.records import part_of_key
from dfeat.data.settings import EvaluationSet
from dfeat.demo.worlds import write_demo_data
from dfeat.errors import UserError
from dfeat.evaluation.predict import evaluate_pretrained
from dfeat.occlusion.settings import OcclusionSettings
from dfeat.occlusion.views import TestOcclusion, read_masks
from dfeat.report.numbers.paper import Cell
from dfeat.report.numbers.statistics import calibration_error
from dfeat.report.tables.published import write_table
from dfeat.report.tables.studies import area_weights, write_study
from dfeat.section import parse
from tests.conftest import CPU, TINY_BACKBONE, World

from .predictions import small_settings, write_origins, write_predictions


@pytest.fixture(scope="module")
def held_out(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawn images a class with masks, indexed whole (objects) and part by part (parts)."""
    root = tmp_path_factory.mktemp("held out")
    write_demo_data(root / "raw", train=1, val=1, real=1, parts=3)
    for name, study in (("objects", "object_occlusion"), ("parts", "part_cost")):
        settings = parse(EvaluationSet, set_of(root, study))
        folder = root / "data" / name
        build_evaluation_index(name, settings, world.train / "classes.json", folder)
        cache_index(folder, world.stage("pixels"), folder / "pixels.h5")
    return root


def set_of(root: Path, study: str) -> dict[str, object]:
    levels = [0, 100] if study == "part_cost" else [0, 40, 80]
    folder = str(root / "raw" / "PartImageNet_held_out")
    return {"kind": "partimagenet", "root": folder, "study": study, "levels": levels, "per_class": 2}


def test_a_set_with_masks_has_so_many_images_of_a_class(held_out: Path) -> None:
    whole, parts = read_index(held_out / "data" / "objects"), read_index(held_out / "data" / "parts")
    assert len(whole.records) == 2 * 20
    assert {part_of_key(record.key)[0] for record in parts.records} == {record.key for record in whole.records}
    assert len(parts.records) > 2 * len(whole.records)
    assert len({record.key for record in parts.records}) == len(parts.records)


def test_levels_are_shares_of_the_object(held_out: Path) -> None:
    index = read_index(held_out / "data" / "objects")
    occlusion = TestOcclusion.of(index, OcclusionSettings(patch=4), "object_occlusion", 64, 1.0)
    masks = read_masks(index)
    for record in index.records[:8]:
        thing = coco_mask.decode(masks[record.key]).astype(bool)
        assert not occlusion.hidden(record, 0).any()
        for level in (40, 80):
            hidden = occlusion.hidden(record, level)
            share = (hidden & thing).sum() / thing.sum()
            assert level / 100 <= share <= level / 100 + 16 / thing.sum() + 1e-9
            assert np.array_equal(hidden, occlusion.hidden(record, level))


def test_a_part_is_hidden_pixel_by_pixel(held_out: Path) -> None:
    index = read_index(held_out / "data" / "parts")
    occlusion = TestOcclusion.of(index, OcclusionSettings(patch=4), "part_cost", 64, 1.0)
    masks = read_masks(index)
    for record in index.records[:8]:
        assert np.array_equal(occlusion.hidden(record, 100), coco_mask.decode(masks[record.key]).astype(bool))


def test_sets_without_masks_are_refused_with_a_sentence(world: World) -> None:
    index = read_index(world.root / "data" / "dfeat_real")
    with pytest.raises(UserError, match="'dfeat_real' has no masks"):
        TestOcclusion.of(index, OcclusionSettings(protocol="object"), None, 64, 1.0)
    with pytest.raises(UserError, match="needs the object's mask, which 'imagenet_val' does not have"):
        parse(Settings, {"occlusion": {"protocol": "object"}})
    with pytest.raises(UserError, match="so kind 'partimagenet'"):
        parse(EvaluationSet, {"root": "x", "study": "object_occlusion"})
    with pytest.raises(UserError, match=r"its levels are \[0, 100\]"):
        parse(EvaluationSet, {"root": "x", "kind": "partimagenet", "study": "part_cost", "levels": [0, 50]})


def test_the_protocol_object_may_be_that_of_the_whole_run(held_out: Path, world: World) -> None:
    """Sets of kind partimagenet under occlusion.protocol object are occluded as the study's are."""
    sets = {"objects": {**set_of(held_out, "object_occlusion"), "study": None}}
    settings = parse(Settings, {"data": {"evaluation": sets}, "occlusion": {"protocol": "object"}})
    assert settings.occlusion.protocol == "object"
    index = read_index(held_out / "data" / "objects")
    either = [
        TestOcclusion.of(index, OcclusionSettings(patch=8, protocol=protocol), study, 64, 1.0)
        for protocol, study in (("object", None), ("grid", "object_occlusion"))
    ]
    record = index.records[0]
    assert np.array_equal(either[0].hidden(record, 40), either[1].hidden(record, 40))


def study_settings(held_out: Path) -> Settings:
    plain = small_settings().model_dump(mode="json")
    plain["data"]["evaluation"] = {
        "objects": set_of(held_out, "object_occlusion"),
        "parts": set_of(held_out, "part_cost"),
        **plain["data"]["evaluation"],
    }
    plain["training"]["image_size"] = 64
    plain["occlusion"]["patch"] = 8
    plain["evaluation"]["crop_pct"] = 1.0
    return parse(Settings, plain)


@pytest.fixture(scope="module")
def results(held_out: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: predictions of an untrained network as those of every model, and made-up ones of other sets."""
    run = tmp_path_factory.mktemp("run")
    (run / "data").symlink_to(held_out / "data")
    settings = study_settings(held_out)
    others = settings.model_dump(mode="json")
    del others["data"]["evaluation"]["objects"], others["data"]["evaluation"]["parts"]
    write_predictions(run / "evaluation", parse(Settings, others))
    from safetensors.torch import save_file
    from timm import create_model

    network = create_model(TINY_BACKBONE["name"], num_classes=1000, **TINY_BACKBONE["kwargs"])
    save_file(network.state_dict(), run / "weights.safetensors")
    backbone = {**TINY_BACKBONE, "weights": str(run / "weights.safetensors")}
    plain = settings.model_dump(mode="json")
    plain["training"]["backbones"] = {"swin": backbone}
    plain["data"]["evaluation"] = {name: plain["data"]["evaluation"][name] for name in ("objects", "parts")}
    written = evaluate_pretrained(
        run / "data", stage_settings(parse(Settings, plain), "pretrained", "swin"), run / "made", CPU
    )
    for method in settings.training.methods:
        for backbone_name in settings.training.backbones:
            for seed in settings.training.seeds:
                folder = run / "evaluation" / method / backbone_name / f"seed{seed}"
                for path in written:
                    (folder / path.name).write_bytes(path.read_bytes())
    write_origins(run / "evaluation", settings)
    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_area_is_the_trapezoid_rule() -> None:
    weights = area_weights([80, 0, 40, 60], Cell("none", "swin", 0, "top1"))
    values = {0: 0.9, 40: 0.7, 60: 0.4, 80: 0.1}
    area = sum(weight * values[cell.level] for cell, weight in weights.items())
    assert area == pytest.approx(np.trapezoid(list(values.values()), list(values)) / 80)
    assert sum(weights.values()) == pytest.approx(1)


def test_object_and_sweep_tables(results: Path, held_out: Path, tmp_path: Path) -> None:
    settings = study_settings(held_out)
    write_study("object_occlusion", results, settings, tmp_path)
    rows = rows_of(tmp_path / "object_occlusion.csv")
    assert {row["set"] for row in rows} == {"objects"}
    own = [row for row in rows if (row["method"], row["backbone"], row["metric"]) == ("cutmix", "swin", "top1")]
    assert [row["level"] for row in own] == ["0", "40", "80", "area"]
    values = [float(row["value"]) for row in own]
    assert values[3] == pytest.approx((values[0] / 2 + values[1] + values[2] / 2) / 2, abs=1e-3)
    assert float(own[3]["difference_to_none"]) == 0  # the same predictions
    assert "Mean" in (tmp_path / "object_occlusion.md").read_text()


def test_part_cost_is_taken_on_the_images_that_have_the_part(results: Path, held_out: Path, tmp_path: Path) -> None:
    write_study("part_cost", results, study_settings(held_out), tmp_path)
    rows = rows_of(tmp_path / "part_cost.csv")
    index = read_index(held_out / "data" / "parts")
    folder = results / "evaluation" / "none" / "swin" / "seed0"
    whole, hidden = (
        {row["key"]: row["label"] == row["top1"] for row in rows_of(folder / f"parts@{level}.csv")}
        for level in (0, 100)
    )
    for row in rows[:: len(rows) // 6]:
        keys = [r.key for r in index.records if part_of_key(r.key)[1] == int(row["category"])]
        assert int(row["n"]) == len(keys)
        lost = np.mean([whole[key] for key in keys]) - np.mean([hidden[key] for key in keys])
        assert float(row["cost"]) == pytest.approx(100 * lost, abs=1e-3)
    assert {"Quadruped Head", "Bird Wing"} <= {row["part"] for row in rows}


def test_tables_of_the_paper_do_not_see_the_studies(results: Path, held_out: Path, tmp_path: Path) -> None:
    write_table("table1", results / "evaluation", study_settings(held_out), tmp_path)
    assert {row["set"] for row in rows_of(tmp_path / "table1.csv")} == {"simulated"}


def test_calibration_and_classes(world: World, tmp_path: Path) -> None:
    settings = small_settings()
    (tmp_path / "data").mkdir()
    for name in settings.data.evaluation:
        chosen = world.settings.data.evaluation["dfeat_real"]
        build_evaluation_index(name, chosen, world.train / "classes.json", tmp_path / "data" / name)
    write_predictions(tmp_path / "evaluation", settings)
    for name in ("calibration", "per_class"):
        write_study(name, tmp_path, settings, tmp_path / "report")
    row = next(r for r in rows_of(tmp_path / "report" / "calibration.csv") if r["level"] == "80")
    errors = []
    for seed in (0, 1):
        name = f"{row['method']}/{row['backbone']}/seed{seed}/simulated@80.csv"
        lines = rows_of(tmp_path / "evaluation" / name)
        right = np.array([line["label"] == line["top1"] for line in lines])
        errors.append(calibration_error(np.array([float(line["p1"]) for line in lines]), right))
    assert float(row["ece"]) == pytest.approx(100 * np.mean(errors), abs=1e-3)
    classes = rows_of(tmp_path / "report" / "per_class.csv")
    assert len(classes) == (2 * 2 * 10) * 2  # methods, backbones, classes; sets
    for row in classes[::7]:
        assert float(row["gain"]) == pytest.approx(float(row["accuracy"]) - float(row["accuracy_none"]), abs=2e-4)
        assert float(row["gain_low"]) < float(row["gain"]) < float(row["gain_high"]) and row["wnid"].startswith("n")
        assert 1 >= float(row["p_holm"]) >= float(row["p"]) > 0
