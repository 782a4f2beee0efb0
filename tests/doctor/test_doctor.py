"""What would spoil a run is said before it starts, in sentences that say what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dfeat.doctor
from dfeat.cli import main
from dfeat.config import Settings
from dfeat.config.files import read_settings
from dfeat.costs.estimate import estimate
from dfeat.costs.measured import Speeds
from dfeat.costs.text import COLUMNS
from dfeat.data.classes import imagenet_wnids
from dfeat.data.indexing import build_evaluation_index, build_train_index
from dfeat.devices.cards import CARDS, card_of
from dfeat.doctor import examine, images_of, missing_inputs
from dfeat.doctor.sets import _commonest
from dfeat.doctor.text import as_plain, as_text
from dfeat.errors import UserError
from dfeat.section import parse
from tests.conftest import World

REPOSITORY = Path(__file__).parents[2]
PAPER = {"train": 24_095, "imagenet_val": 7_900, "dfeat_real": 300}


@pytest.fixture
def settings(world: World, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of the small world, in an empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return changed(world.settings, training={"backbones": {"convnext": {"weights": str(tiny_weights)}}})


def changed(settings: Settings, **sections: Any) -> Settings:
    """The settings with some keys changed, section by section."""

    def lay_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
        return below | {
            key: lay_over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
            for key, value in above.items()
        }

    return parse(Settings, lay_over(settings.model_dump(mode="json"), sections))


def only(faults: list[str]) -> str:
    assert len(faults) == 1, faults
    return faults[0]


def test_a_run_that_has_all_it_needs_has_no_fault(settings: Settings) -> None:
    report = examine(settings)
    assert report.faults == missing_inputs(settings) == []
    assert [(found.state, found.images) for found in report.sets] == [("found", 40), ("found", 20), ("found", 20)]
    assert "Nothing found that would spoil the run" in as_text(report, settings)


def test_a_set_that_is_missing_says_where_to_get_it_and_how_far_one_comes_without(settings: Settings) -> None:
    gone = changed(settings, data={"train": {"root": "gone"}})
    fault = only(missing_inputs(gone))
    assert "'train': gone is missing" in fault and "github.com" in fault and "`make demo` needs no data" in fault
    gone = changed(settings, data={"evaluation": {"dfeat_real": {"root": "gone"}}})
    assert only(missing_inputs(gone)).endswith("; to go on without it, set data.evaluation.dfeat_real to null")
    assert "dfeat_real" not in changed(settings, data={"evaluation": {"dfeat_real": None}}).data.evaluation


def test_what_is_there_is_looked_into_without_decoding(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    fault = only(examine(changed(settings, data={"train": {"root": "empty"}})).faults)
    assert "holds no annotation file" in fault
    fault = only(examine(changed(settings, data={"evaluation": {"dfeat_real": {"expected_images": 21}}})).faults)
    assert "has 20 images with a class, 21 are expected" in fault


def test_an_index_is_compared_with_what_is_expected_and_its_problems_say_how_to_mend_them(
    settings: Settings, world: World
) -> None:
    folder = Path("results/tiny/data/train")
    shutil.copytree(world.train, folder)
    (folder / "problems.csv").write_text(
        "set,record,field,what,done\n"
        + "train,a.JPEG,file,is cut off,image dropped\ntrain,b.JPEG,file,is cut off,image dropped\n"
        + "train,7,segmentation,has 4 numbers,part dropped\n"
    )
    source = json.loads((folder / "source.json").read_text())
    source["settings"]["root"] = "gone"
    (folder / "source.json").write_text(json.dumps(source))
    gone = changed(settings, data={"train": {"root": "gone", "expected_images": 40, "expected_classes": 20}})
    assert missing_inputs(gone) == []
    report = examine(gone).sets[0]
    assert (report.state, report.images, report.classes) == ("indexed", 40, 20)
    assert "2x file: a.JPEG is cut off (image dropped); to mend: fetch the file again" in report.problems
    wrong = changed(settings, data={"train": {"root": "gone", "expected_images": 41}})
    fault = only(missing_inputs(wrong))
    assert "40 images are usable, 41 are expected; 3 problems in" in fault
    assert "set data.train.expected_images to 40" in fault
    elsewhere = changed(settings, data={"train": {"expected_images": 40}})
    assert missing_inputs(elsewhere) == []  # another root: it will be indexed anew


def test_images_hidden_whole_are_counted_once_the_parts_are_chosen(settings: Settings, world: World) -> None:
    assert examine(settings).hidden is None
    path = Path("results/tiny/occlusion/parts.json")
    path.parent.mkdir(parents=True)
    content = json.loads(world.parts.read_text())
    path.write_text(json.dumps(content))
    report = examine(settings)
    assert report.hidden and not report.hidden.notes
    assert f"40 twins hide {report.hidden.mean:.1%} of the object on average, 0 (0.0%) hide it whole\n" in as_text(
        report, settings
    )
    row = next(iter(content["images"].values()))
    row["object_area"] = row["area"]
    path.write_text(json.dumps(content))
    report = examine(settings)
    assert report.faults == [] and "1 (2.5%) hide it whole\n    note: a twin" in as_text(report, settings)
    assert as_plain(report, settings)["hidden"]["whole"] == 1
    assert "occlusion.min_visible" in only(report.hidden.notes)
    assert examine(changed(settings, occlusion={"share": 0.25})).hidden is None  # they will be chosen anew
    path.write_text("{")
    assert "again with `dfeat parts`" in only(examine(settings).faults)


def test_snakemake_is_told_of_too_few_images_as_the_doctor_is(settings: Settings) -> None:
    few = changed(settings, data={"train": {"expected_images": 1300}})
    assert missing_inputs(few) == examine(few).faults
    assert "has 40 images with a class, 1,300 are expected" in only(missing_inputs(few))


def test_held_out_images_count_as_there_and_not_as_trained_on(settings: Settings, tmp_path: Path) -> None:
    held_out = changed(settings, data={"train": {"holdout": 1, "expected_images": 40, "expected_classes": 20}})
    elsewhere = changed(held_out, data={"train": {"root": "gone"}}, run="other")
    for state in ("found", "indexed"):
        report = examine(held_out)
        found = report.sets[0]
        assert (found.state, found.images, found.held_out, found.count) == (state, 40, 20, 20)
        assert report.faults == missing_inputs(held_out) == []
        assert "(expected: 40); 20 of them held out, 20 trained on" in as_text(report, held_out)
        folder = tmp_path / f"results/{settings.run}/data"
        build_train_index(held_out.data.train, folder / "train", folder / "holdout")
    assert images_of(elsewhere)["train"] == 20
    few = changed(held_out, data={"train": {"expected_images": 41}})
    assert "40 images are usable, 41 are expected" in only(missing_inputs(few))


def test_a_set_without_an_image_is_a_fault(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for kind in ("folder", "imagenet"):
        empty = changed(settings, data={"evaluation": {"dfeat_real": {"kind": kind, "root": "empty"}}})
        assert "empty has no image with a class; complete it" in only(missing_inputs(empty))


def test_a_set_with_parts_is_counted_by_the_names_of_its_images(settings: Settings, tmp_path: Path) -> None:
    """PartImageNet_Seg has its images in one folder, and masks that are no images of the set."""
    names = [f"images/train/{wnid}_{n}.JPEG" for wnid in imagenet_wnids()[:4] for n in range(5)]
    names += ["annotations/train/train.json", "annotations/train_whole/a.png", "images/train/unknown.JPEG"]
    for name in names:
        (tmp_path / "seg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "seg" / name).touch()
    own = {"kind": "partimagenet", "root": "seg", "levels": [0, 100], "study": "part_cost"}
    chosen = changed(settings, data={"train": {"root": "seg"}, "evaluation": {"own": own}})
    assert [found.images for found in examine(chosen).sets] == [20, 3, 3, 20]  # of the 4 classes
    less = changed(chosen, data={"evaluation": {"own": {"per_class": 2}}})
    assert [found.images for found in examine(less).sets] == [20, 3, 3, 8]
    costs = {cost.step: cost.items for cost in examine(less).costs}
    models = len(less.training.methods)
    assert costs["evaluation"] == models * (2 * 3 + 3 + 2 * 8)
    (tmp_path / "seg/annotations/train/train.json").unlink()
    assert "set 'own': seg holds no annotation file" in examine(less).faults[1]
    assert "to go on without it, set data.evaluation.own to null" in examine(less).faults[1]


def touch(root: str, *names: str) -> None:
    """Empty files: the check before a run reads names."""
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def train_fault(settings: Settings, root: str, **more: Any) -> str:
    """The faults of a run whose training set lies there."""
    return "\n".join(missing_inputs(changed(settings, data={"train": {"root": root, **more}})))


def test_what_an_index_would_refuse_of_a_training_set_is_said_before(settings: Settings) -> None:
    one, two = (f"{wnid}_1.JPEG" for wnid in imagenet_wnids()[:2])
    touch("both", f"train/{one}", "train.json", f"Seg/images/val/{two}", "Seg/annotations/val/val.json")
    assert "both holds both releases of PartImageNet (train.json and Seg/annotations/val/val.json)" in train_fault(
        settings, "both"
    )
    assert "releases" not in train_fault(settings, "both", layout="seg")
    touch("ood", f"train/{one}", "train.json")
    assert "data.train.layout is 'seg', but no annotation file is laid out so (found ood: train.json)" in train_fault(
        settings, "ood", layout="seg"
    )
    touch("cars", "JPEGImages/car1.jpg", "annotations.json")
    fault = train_fault(settings, "cars")
    assert (
        "cars has no image with a class (JPEGImages/car1.jpg, for example); set data.train.wnid where all are of one"
        in fault
    )
    assert "no image with a class" not in train_fault(settings, "cars", wnid="n02958343")
    held = {"kind": "partimagenet", "root": "cars", "levels": [0, 100], "study": "part_cost"}
    fault = only(missing_inputs(changed(settings, data={"evaluation": {"held": held}})))
    assert "data.train.wnid" not in fault and "name its images or their folders by wnid" in fault


def test_links_that_lead_out_are_not_taken_for_nothing(settings: Settings) -> None:
    touch("elsewhere", "train.json", "a/n01440764/1.jpg")
    touch("linked", f"{imagenet_wnids()[0]}_1.JPEG")
    Path("linked/train.json").symlink_to("../elsewhere/train.json")
    fault = train_fault(settings, "linked")
    assert "that are not read, such as train.json, which is a link that leads out of the root" in fault
    Path("set").mkdir()
    Path("set/n01440764").symlink_to("../elsewhere/a/n01440764")
    fault = only(missing_inputs(changed(settings, data={"evaluation": {"dfeat_real": {"root": "set"}}})))
    assert (
        "no image with a class, but 1 files or folders that are not read, such as n01440764, which is a link" in fault
    )


@pytest.mark.parametrize("kind", ["folder", "imagenet", "partimagenet"])
def test_a_set_of_other_classes_than_are_trained_on_is_a_fault(settings: Settings, kind: str) -> None:
    other = imagenet_wnids()[-1]
    indexed = build_train_index(settings.data.train, Path("results/tiny/data/train"))
    for known in ("indexed", "by name"):
        assert other not in {info.wnid for info in indexed.classes}
        touch("set", f"a/{other}/{other}_1.JPEG", "train.json")
        chosen = changed(settings, data={"evaluation": {"dfeat_real": {"kind": kind, "root": "set"}}})
        fault = only(missing_inputs(chosen))
        assert "set 'dfeat_real': none of the 1 images in set is of one of the training set's 20 classes" in fault, (
            known
        )
        assert f"{other}, toilet" in fault and "to go on without it, set data.evaluation.dfeat_real to null" in fault
        shutil.rmtree("results", ignore_errors=True)
    mine = indexed.classes[0].wnid
    touch("set", *(f"{mine}/{mine}_{n}.JPEG" for n in range(3)))
    few = changed(settings, data={"evaluation": {"dfeat_real": {"kind": kind, "root": "set", "expected_images": 4}}})
    assert (
        "has 3 images with a class, 4 are expected; 1 more are of classes that the training set does not have; complete"
        in only(missing_inputs(few))
    )


def test_an_indexed_set_has_the_classes_of_its_images_and_other_classes_are_named_first(settings: Settings) -> None:
    place = Path("results/tiny/data")
    trained = build_train_index(settings.data.train, place / "train")
    mine = trained.classes[3].wnid
    picture = (Path(settings.data.train.root) / trained.records[0].file).read_bytes()
    for name in (f"{mine}/1.JPEG", f"{imagenet_wnids()[-1]}/2.JPEG", f"{imagenet_wnids()[-2]}/3.JPEG"):
        touch("set", name)
        Path("set", name).write_bytes(picture)
    chosen = changed(settings, data={"evaluation": {"dfeat_real": {"root": "set", "expected_images": 3}}})
    build_evaluation_index(
        "dfeat_real", chosen.data.evaluation["dfeat_real"], place / "train/classes.json", place / "dfeat_real"
    )
    report = examine(chosen)
    assert [(found.images, found.classes) for found in report.sets if found.name == "dfeat_real"] == [(1, 1)]
    assert "1 images indexed, 1 classes" in as_text(report, chosen)
    assert (
        "1 images are usable, 3 are expected; 2 images there are of classes that the training set does not have; mend"
        in only(report.faults)
    )


def test_what_took_nothing_away_needs_no_mending_and_comes_last() -> None:
    cut = ("train", "a", "segmentation", "a polygon leaves the image", "cut at the image's border")
    rows = [
        cut,
        cut,
        cut,
        ("train", "b", "class", "has no wnid", "image dropped; set data.train.wnid if all are of one"),
    ]
    rows += [("train", "c", "segmentation", "a polygon has 4 numbers", "annotation dropped")]
    assert _commonest(rows) == [
        "1x class: b has no wnid (image dropped; set data.train.wnid if all are of one)",
        "1x segmentation: c a polygon has 4 numbers (annotation dropped); to mend: draw the polygon again, or accept that this "
        "part is not hidden",
        "3x segmentation: a a polygon leaves the image (cut at the image's border)",
    ]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"diffusion": {"model": {"path": "some/model"}}}, "set diffusion.model.revision to a commit"),
        (
            {"training": {"backbones": {"convnext": {"weights": None}}}},
            "set training.backbones.convnext.revision to a commit (in the path that `hf download timm/convnext_atto` prints)",
        ),
        ({"diffusion": {"model": {"path": "./gone"}}}, "is no file or folder"),
        ({"diffusion": {"resolution": 512}}, "diffusion.resolution is 512"),
        ({"training": {"backbones": {"convnext": {"weights": "x.bin"}}}}, "'x.bin' is no file of weights"),
        ({"training": {"backbones": {"convnext": {"weights": "Makefile"}}}}, "'Makefile' is no file of weights"),
    ],
)
def test_weights_that_would_not_load_are_faults(settings: Settings, section: dict[str, Any], sentence: str) -> None:
    assert sentence in only(missing_inputs(changed(settings, **section)))


def test_a_backbone_of_the_hub_is_pinned_to_a_commit(settings: Settings) -> None:
    pinned = {"convnext": {"weights": None, "revision": "0123456789" * 4}}
    assert missing_inputs(changed(settings, training={"backbones": pinned})) == []


def test_a_model_that_was_fetched_is_looked_at_like_a_folder(
    settings: Settings, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    fetched = Path(shutil.copytree(tiny_models["four"], Path("weights/some/model") / commit))
    hub = changed(settings, diffusion={"model": {"path": "some/model"}}, pins={"some/model": commit})
    (report,) = [report for report in examine(hub).weights if report.name == "diffusion"]
    assert report.source == f"some/model at {commit}, in {fetched}" and report.digests and not report.faults
    (fetched / "unet/diffusion_pytorch_model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (report,) = [report for report in examine(hub).weights if report.name == "diffusion"]
    assert report.notes == [
        f"some/model at {commit} is not on this disk, and HF_HUB_OFFLINE is set; run `dfeat fetch` where there is a network"
    ]


def test_a_diffusion_model_that_no_method_uses_is_not_asked_for(settings: Settings) -> None:
    plain = {"training": {"methods": ["none", "black_out"]}, "diffusion": {"model": {"path": "./gone"}}}
    assert missing_inputs(changed(settings, **plain)) == []


def test_each_use_has_its_own_diffusion_model_looked_at(settings: Settings, tmp_path: Path) -> None:
    elsewhere = {"inpaint_model": {"path": str(tmp_path / "nowhere")}}
    found = examine(changed(settings, diffusion=elsewhere)).weights
    assert [report.source for report in found if report.name == "diffusion"] == [
        settings.diffusion.model.path,
        str(tmp_path / "nowhere"),
    ]
    assert any("is no file or folder" in fault for report in found for fault in report.faults)
    alone = examine(changed(settings, diffusion=elsewhere, training={"methods": ["none", "sd_features"]})).weights
    assert [report.source for report in alone if report.name == "diffusion"] == [settings.diffusion.model.path]


def test_a_full_disk_is_a_fault(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dfeat.doctor, "free_bytes", lambda path: 1000)
    assert "0.0 GB are free there; make room" in only(examine(settings).faults)
    assert "0.0 GB are free there; make room" in only(missing_inputs(settings))


def test_costs_of_the_papers_run_are_those_that_were_counted() -> None:
    costs = {cost.step: cost for cost in estimate(read_settings([REPOSITORY / "config.yaml"]), PAPER)}
    assert costs["inpaint"].flops / 24_095 == pytest.approx(85.3e12, rel=0.03)
    assert costs["pixels"].bytes == pytest.approx(6.3e9 / 24_095 * (2 * 24_095 + 8_200), rel=0.02)
    assert costs["features"].items == 2 * 24_095 + 5 * 7_900 + 300
    assert costs["features"].flops / costs["latents"].flops == pytest.approx(262 / 1117, rel=1e-3)
    assert costs["features"].bytes == costs["features"].items * 1280 * 2
    one_model = 30 * 2 * 24_095 * 92e9
    assert costs["training"].flops == pytest.approx((6 + 1) * 2 * 3 * one_model, rel=0.01)
    h200, a100, t4 = (costs["training"].hours(Speeds(card)).central for card in ("H200", "A100", "T4"))
    assert h200 < a100 < t4


@pytest.mark.parametrize(
    ("device", "head", "said"),
    [
        ("NVIDIA H100 80GB HBM3", "H100*", "* of this machine: NVIDIA H100 80GB HBM3"),
        ("Tesla T4", "T4*", "* of this machine: Tesla T4"),
        ("NVIDIA H100 PCIe", None, "no figures for NVIDIA H100 PCIe"),
        ("NVIDIA GeForce RTX 4090", "4090*", "* of this machine: NVIDIA GeForce RTX 4090"),
        ("NVIDIA GeForce RTX 4070", None, "no figures for NVIDIA GeForce RTX 4070"),
        ("MIG 1g.10gb", None, "no figures for MIG 1g.10gb"),
    ],
)
def test_the_hours_of_this_machines_card_are_marked(
    device: str, head: str | None, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dfeat.doctor, "devices_seen", lambda ask_torch: [device, device])
    monkeypatch.setattr(dfeat.doctor, "devices_here", lambda: [device, device])
    settings = read_settings([REPOSITORY / "config.yaml"])
    text = as_text(examine(settings), settings)
    assert text.count(said) == 1
    assert (f"On the 2 x {card_of(device)} here: about" if head else "On one A100: about") in text
    assert max(map(len, text.splitlines())) <= COLUMNS
    assert [word for word in text.partition("\nTime")[2].split() if word.endswith("*") and word != "*"] == (
        [head] if head else []
    )


def test_a_driver_that_does_not_work_is_a_fault_of_a_run_that_computes_on_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'Driver/library version mismatch'\nexit 18\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DFEAT_DEVICES", raising=False)
    monkeypatch.setattr("dfeat.devices.driver._listed_by_nvml", lambda: None)
    report = examine(changed(settings, resources={"gpu": 1}))
    assert "nvidia-smi, status 18: Driver/library version mismatch" in only(report.faults)
    assert "not known: the driver does not work" in as_text(report, settings)
    assert examine(changed(settings, resources={"gpu": 0})).faults == []


def test_measured_speeds_that_cannot_be_read_are_a_fault(settings: Settings) -> None:
    report = examine(changed(settings, resources={"measured": "no-card.json"}))
    assert "no-card.json" in only(report.faults)
    assert missing_inputs(changed(settings, resources={"measured": "no-card.json"})) == report.faults


def test_every_card_with_figures_may_be_configured() -> None:
    for card in CARDS:
        assert parse(Settings, {"resources": {"device": card}}).resources.device == card


def test_costs_follow_the_settings() -> None:
    settings = read_settings([REPOSITORY / "config.yaml"])
    before = {cost.step: cost for cost in estimate(settings, PAPER)}
    clean = estimate(changed(settings, training={"twin_features": "clean"}), PAPER)
    assert next(cost.items for cost in clean if cost.step == "features") == before["features"].items - PAPER["train"]
    cheaper = changed(settings, diffusion={"resolution": 256, "inpaint": {"steps": 25, "guidance_scale": 1}})
    after = {cost.step: cost for cost in estimate(cheaper, PAPER)}
    assert after["latents"].bytes * 4 == before["latents"].bytes
    assert after["inpaint"].flops * 14 < before["inpaint"].flops


def test_configurations_are_merged_as_snakemake_merges_them(tmp_path: Path) -> None:
    below, above = tmp_path / "a.yaml", tmp_path / "b.yaml"
    below.write_text("run: one\ndata: {short_side: 300, evaluation: {dfeat_real: {root: x}}}\n")
    above.write_text("run: two\ndata: {evaluation: {dfeat_real: {root: y}, other: {root: z}}}\n")
    merged = read_settings([below, above])
    assert (merged.run, merged.data.short_side) == ("two", 300)
    assert [(name, s.root) for name, s in merged.data.evaluation.items()] == [("dfeat_real", "y"), ("other", "z")]
    above.write_text("- a list\n")
    with pytest.raises(UserError, match=r"b\.yaml is no configuration"):
        read_settings([below, above])


def test_the_verb_exits_2_on_a_fault_and_speaks_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dfeat", "doctor", "--config", str(REPOSITORY / "config.yaml"), "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    said = json.loads(capsys.readouterr().out)
    assert stop.value.code == 2
    assert len(said["faults"]) == 6
    assert sum("so that the run cannot be repeated" in fault for fault in said["faults"]) == 2
    assert said["costs"][0].keys() >= {"step", "items", "bytes", "flops", "hours", "how"}


def test_the_built_in_run_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = read_settings([REPOSITORY / "config.yaml", REPOSITORY / "config" / "demo.yaml"])
    assert missing_inputs(demo) == []
    report = examine(demo)
    assert report.faults == []
    assert "not estimated" in as_text(report, demo)
    assert json.dumps(as_plain(report, demo))


def test_snakemake_stops_with_sentences_where_data_is_missing(tmp_path: Path) -> None:
    for name in ("Snakefile", "config.yaml", "workflow", "profiles"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    own = "data: {train: {root: my/PartImageNet}, evaluation: {dfeat_real: null}}\n"
    (tmp_path / "local.yaml").write_text(own)  # read, since the command names no file
    command = [sys.executable, "-m", "snakemake", "-n", "-p"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 2
    for sentence in ("my/PartImageNet is missing", "image-net.org", "`make demo` needs no data"):
        assert sentence in result.stderr
    assert "'dfeat_real'" not in result.stderr and "local.yaml" not in result.stderr
    assert "Traceback" not in result.stderr and "MissingInput" not in result.stderr
