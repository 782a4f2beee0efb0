"""`dfeat verify`: every artifact is looked at, and damage, strangers and leftovers are told apart."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from dfeat.cli import main
from dfeat.config import stage_settings
from dfeat.data.indexing import build_train_index
from dfeat.data.pixels import PixelCache, cache_index, cache_inpainted
from dfeat.errors import UserError
from dfeat.occlusion.parts import choose_all, read_parts
from dfeat.storage.atomic import write_json
from dfeat.storage.journal import journal_of
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import record_path
from dfeat.storage.shards import Shard
from dfeat.verify import verify_run
from tests.conftest import CPU, World, make_settings


@pytest.fixture
def run(world: World, tmp_path: Path) -> Path:
    """A copy of the early steps of a run."""
    for step in ("data", "occlusion"):
        shutil.copytree(world.root / step, tmp_path / "run" / step)
    return tmp_path / "run"


@pytest.fixture(scope="module")
def points(world: World, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ablation/` of the run: `share/0` chose parts of its own, `weights/10` is trained on the run's."""
    from safetensors.torch import save_file
    from timm import create_model

    from dfeat.diffusion.features import extract_features
    from dfeat.diffusion.inpaint import inpaint_shard
    from dfeat.diffusion.latents import encode_view
    from dfeat.evaluation.predict import evaluate
    from dfeat.occlusion.parts import choose_all
    from dfeat.training.loop import train
    from dfeat.training.sources import Inputs

    root = tmp_path_factory.mktemp("points")
    stage = world.stage("train", "convnext")
    save_file(
        create_model(stage.backbone.name, num_classes=0, **stage.backbone.kwargs).state_dict(),
        root / "tiny.safetensors",
    )
    backbone = stage.backbone.model_copy(update={"weights": str(root / "tiny.safetensors")})
    stage = stage.model_copy(update={"backbone": backbone})
    share, weights = root / "ablation/share/0", root / "ablation/weights/10"
    changed = make_settings(world.root, tiny_models["four"], occlusion={"patch": 8, "share": 0.25})
    parts = share / "occlusion/parts.json"
    choose_all(world.train, stage_settings(changed, "parts"), parts)
    for point, chosen in ((share, parts), (weights, world.parts)):
        inputs = Inputs(world.train, world.train / "pixels.h5", chosen)
        train("black_out", inputs, stage, 0, point / "training/black_out/convnext/seed0", CPU)
    predictions = weights / "evaluation/black_out/convnext/seed0"
    evaluate(
        weights / "training/black_out/convnext/seed0",
        world.root / "data",
        {},
        world.stage("evaluate"),
        predictions,
        CPU,
    )
    inpainted, view = share / "diffusion/inpaint/train", "train-occluded/0-of-1.h5"
    inpaint_shard(world.train, parts, world.stage("inpaint"), inpainted / "0-of-1.h5", CPU)
    cache_inpainted([inpainted / "0-of-1.h5"], world.stage("pixels"), inpainted / "pixels.h5")
    latents = share / "diffusion/latents" / view
    encode_view(world.train, "parts", world.stage("latents"), latents, CPU, parts)
    extract_features(latents, world.stage("features"), share / "diffusion/features" / view, CPU)
    return root / "ablation"


def bad(run: Path) -> dict[str, str]:
    return {finding.path: finding.why for finding in verify_run(run) if finding.state == "bad"}


def test_every_artifact_of_a_whole_run_is_listed(run: Path) -> None:
    findings = list(verify_run(run))
    assert {finding.state for finding in findings} == {"whole"}
    assert {finding.path for finding in findings} == {
        path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path.parent.name != ".sha256"
    }


def test_a_flipped_byte_in_any_file_is_named(run: Path) -> None:
    for finding in verify_run(run):
        path = run / finding.path
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
        assert "not what was written" in bad(run)[finding.path]
        path.write_bytes(whole)


def test_a_file_without_record_and_one_of_another_index_are_named(run: Path, world: World) -> None:
    record_path(run / "occlusion/parts.json").unlink()
    cache_index(run / "data/dfeat_real", world.stage("pixels"), run / "data/imagenet_val/pixels.h5")
    found = bad(run)
    assert "no digest record" in found.pop("occlusion/parts.json")
    assert "another index" in found.pop("data/imagenet_val/pixels.h5")
    assert not found


def test_the_points_of_ablations_are_looked_at_like_the_run(run: Path, points: Path) -> None:
    shutil.copytree(points, run / "ablation")
    findings = {finding.path: finding.state for finding in verify_run(run)}
    files = [path.relative_to(run).as_posix() for path in (run / "ablation").rglob("*") if path.is_file()]
    assert {path for path in files if ".sha256" not in path} == {path for path in findings if "ablation" in path}
    assert set(findings.values()) == {"whole"}
    kinds = (
        "share/0/occlusion/parts.json",
        "share/0/diffusion/latents/train-occluded/0-of-1.h5",
        "share/0/diffusion/inpaint/train/pixels.h5",
        "weights/10/training/black_out/convnext/seed0/model.safetensors",
        "weights/10/evaluation/black_out/convnext/seed0/imagenet_val@40.csv",
    )
    for name in kinds:
        path = run / "ablation" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
        assert "not what was written" in bad(run)[f"ablation/{name}"]
        path.write_bytes(whole)


def test_a_point_is_held_to_its_own_parts_and_else_to_the_runs(run: Path, points: Path) -> None:
    shutil.copytree(points, run / "ablation")
    for folder in ("share/0", "weights/10"):
        shutil.rmtree(run / "ablation" / folder / "training")
    copied(points / "share/0/training", run / "ablation/weights/10/training")
    copied(points / "weights/10/training", run / "ablation/share/0/training")
    found = bad(run)
    model, predictions = (f"{step}/black_out/convnext/seed0" for step in ("training", "evaluation"))
    model = f"{model}/run.json"
    for name in RECORDS:
        told = found.pop(f"ablation/weights/10/{predictions}/{name}")
        assert f"of another model than {run}/ablation/weights/10/training" in told
    assert found.keys() == {f"ablation/{point}/{model}" for point in ("share/0", "weights/10")}
    assert f"another parts.json than {run}/ablation/share/0/occlusion" in found[f"ablation/share/0/{model}"]
    assert f"another parts.json than {run}/occlusion" in found[f"ablation/weights/10/{model}"]


def copied(source: Path, target: Path) -> None:
    """Copy every artifact of a folder, with a record as `sha256sum` in the folder would make it: it fits any place."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".sha256"))
    for path in (path for path in target.rglob("*") if path.is_file() and path.parent.name != ".sha256"):
        record_path(path).parent.mkdir(exist_ok=True)
        record_path(path).write_text(f"{file_digest(path)}  {path.name}\n")


@pytest.fixture(scope="module")
def evaluated(world: World, points: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two models of one method, and one of another, evaluated."""
    from dfeat.evaluation.predict import evaluate
    from dfeat.section import parse
    from dfeat.storage.records import read_json
    from dfeat.training.loop import train
    from dfeat.training.settings import TrainStage
    from dfeat.training.sources import Inputs

    root = tmp_path_factory.mktemp("evaluated")
    for step in ("data", "occlusion"):
        shutil.copytree(world.root / step, root / step)
    told = read_json(points / "weights/10/training/black_out/convnext/seed0/run.json", "train")
    inputs, stage = Inputs(world.train, world.train / "pixels.h5", world.parts), parse(TrainStage, told["settings"])
    for method, seed in (("none", 0), ("none", 1), ("black_out", 0)):
        model = f"{method}/convnext/seed{seed}"
        train(method, inputs, stage, seed, root / "training" / model, CPU)  # type: ignore[arg-type]
        evaluate(
            root / "training" / model, root / "data", {}, world.stage("evaluate"), root / "evaluation" / model, CPU
        )
    return root


@pytest.fixture
def whole(evaluated: Path, tmp_path: Path) -> Path:
    """A copy of that run to spoil."""
    shutil.copytree(evaluated, tmp_path / "whole")
    assert {finding.state for finding in verify_run(tmp_path / "whole")} == {"whole"}
    return tmp_path / "whole"


RECORDS = ("imagenet_val.json", "dfeat_real.json")
FILES = ("imagenet_val@0.csv", "imagenet_val@40.csv", "dfeat_real@0.csv")
SEED1 = "evaluation/none/convnext/seed1"


@pytest.mark.parametrize("other", ["none/convnext/seed0", "black_out/convnext/seed0"])
def test_predictions_copied_from_another_model_are_named(whole: Path, other: str) -> None:
    kept = [whole / SEED1 / folder / name for folder in ("", ".sha256") for name in RECORDS]
    said = [path.read_bytes() for path in kept]
    copied(whole / "evaluation" / other, whole / SEED1)
    found = bad(whole)
    assert found.keys() == {f"{SEED1}/{name}" for name in (*FILES, *RECORDS)}
    assert all(f"is of {other.partition('/')[0]} with seed 0, not of none in seed1" in why for why in found.values())
    for path, content in zip(kept, said, strict=True):
        path.write_bytes(content)
    found = bad(whole)
    assert found.keys() == {f"{SEED1}/{name}" for name in FILES}
    assert all(".json beside it lists" in why for why in found.values())


def test_predictions_of_another_set_and_those_without_a_model_are_named(whole: Path) -> None:
    swapped = whole / SEED1 / "imagenet_val@40.csv"
    shutil.copyfile(whole / SEED1 / "imagenet_val@0.csv", swapped)
    record_path(swapped).write_text(f"{file_digest(swapped)}  {swapped.name}\n")
    assert bad(whole).keys() == {f"{SEED1}/imagenet_val@40.csv"}
    copied_record = whole / SEED1 / "dfeat_real.json"
    shutil.copyfile(whole / SEED1 / "imagenet_val.json", copied_record)
    record_path(copied_record).write_text(f"{file_digest(copied_record)}  {copied_record.name}\n")
    found = bad(whole)
    assert found.keys() == {
        f"{SEED1}/{name}" for name in ("imagenet_val@40.csv", "dfeat_real.json", "dfeat_real@0.csv")
    }
    assert all(
        "is of imagenet_val, not of dfeat_real" in found[f"{SEED1}/dfeat_real{end}"] for end in (".json", "@0.csv")
    )
    copied_record.unlink()
    (whole / SEED1 / "imagenet_val.json").unlink()
    found = bad(whole)
    assert found.keys() == {f"{SEED1}/{name}" for name in FILES}
    assert all(".json is missing; make it with `dfeat evaluate`" in why for why in found.values())


def test_predictions_of_a_model_that_was_trained_again_are_named(whole: Path) -> None:
    """The model in the folder is a rightly written one of this method and seed, only not the one that was evaluated."""
    from safetensors.torch import load_file, save

    from dfeat.storage.atomic import write_bytes, write_json
    from dfeat.storage.provenance import file_digest
    from dfeat.storage.records import read_json

    model = whole / "training/none/convnext/seed1"
    state = {name: value + 1 for name, value in load_file(model / "model.safetensors").items()}
    write_bytes(model / "model.safetensors", save(state))
    told = read_json(model / "run.json", "train")
    write_json(model / "run.json", told | {"model": file_digest(model / "model.safetensors")})
    found = bad(whole)
    assert found.keys() == {f"{SEED1}/{name}" for name in RECORDS}
    for why in found.values():
        assert f"another model than {model}" in why and "make it again with `dfeat evaluate`" in why


def test_a_model_copied_to_another_seed_and_predictions_of_another_index_are_named(whole: Path, world: World) -> None:
    copied(whole / "training/none/convnext/seed0", whole / "training/none/convnext/seed1")
    found = bad(whole)
    assert found.keys() == {"training/none/convnext/seed1/run.json", *(f"{SEED1}/{name}" for name in RECORDS)}
    assert "is of none with seed 0, not of none in seed1" in found["training/none/convnext/seed1/run.json"]
    copied(whole / "data/train", whole / "data/dfeat_real")
    for model in ("none/convnext/seed0", "black_out/convnext/seed0"):
        assert "another index.csv than that of" in bad(whole)[f"evaluation/{model}/dfeat_real.json"]
        assert f"evaluation/{model}/imagenet_val.json" not in bad(whole)
    (whole / "evaluation/none/note.csv").write_text("nobody's")
    assert "no digest record" in bad(whole)["evaluation/none/note.csv"]


def test_predictions_of_a_level_that_was_dropped_are_left_over_and_not_bad(whole: Path) -> None:
    folder = whole / "evaluation/none/convnext/seed0"
    said = json.loads((folder / "imagenet_val.json").read_text())
    dropped = sorted(said["files"])[-1]
    del said["files"][dropped]
    write_json(folder / "imagenet_val.json", said)
    (found,) = (finding for finding in verify_run(whole) if finding.path.endswith(f"none/convnext/seed0/{dropped}"))
    assert found.state == "left over" and "a level that was dropped" in found.why
    write_json(folder / "predictions.json", {"method": "none", "indexes": {}, "files": {}})
    (found,) = (finding for finding in verify_run(whole) if finding.path.endswith("predictions.json"))
    assert found.state == "left over" and "on all sets in one file" in found.why
    assert not bad(whole)


def test_a_point_is_held_to_the_runs_index(run: Path, points: Path) -> None:
    shutil.copytree(points, run / "ablation")
    copied(run / "data/dfeat_real", run / "data/train")  # rightly written, of a set that has other images
    found = {path for path in bad(run) if path.startswith("ablation/")}
    assert found == {
        "ablation/share/0/occlusion/parts.json",
        "ablation/share/0/diffusion/inpaint/train/0-of-1.h5",
        "ablation/share/0/diffusion/inpaint/train/pixels.h5",
        "ablation/share/0/diffusion/latents/train-occluded/0-of-1.h5",
        "ablation/share/0/diffusion/features/train-occluded/0-of-1.h5",
        "ablation/share/0/training/black_out/convnext/seed0/run.json",
        "ablation/weights/10/training/black_out/convnext/seed0/run.json",
    }


def test_what_was_made_with_other_settings_than_the_run_has_is_named_and_not_read(run: Path, world: World) -> None:
    settings = world.stage("parts").model_dump(mode="json")
    pixels = world.stage("pixels").model_dump(mode="json")
    expected = {"occlusion/parts.json": settings, "data/dfeat_real/pixels.h5": pixels}
    write_json(run / "expected.json", {"settings": expected, "shards": {}})
    assert not bad(run)
    expected |= {
        "occlusion/parts.json": settings | {"share": 0.25},
        "data/dfeat_real/pixels.h5": pixels | {"short_side": 72},
    }
    write_json(run / "expected.json", {"settings": expected, "shards": {}})
    found = bad(run)
    assert "made with share 0.5, and the run is configured with 0.25" in found.pop("occlusion/parts.json")
    assert "made with short_side 64, and the run is configured with 72" in found.pop("data/dfeat_real/pixels.h5")
    assert not found
    with pytest.raises(UserError, match=r"parts\.json cannot be used: it was made with share 0\.5"):
        read_parts(run / "occlusion/parts.json")
    with pytest.raises(UserError, match=r"pixels\.h5 cannot be used: it was made with short_side 64"):
        PixelCache(run / "data/dfeat_real/pixels.h5")


def test_what_was_made_of_a_photograph_or_a_polygon_that_changed_is_named(world: World, tmp_path: Path) -> None:
    """The files are whole, and the set is indexed again: what stands is of the old photograph."""
    shutil.copytree(world.root / "raw/PartImageNet", tmp_path / "raw")
    train_set = world.settings.data.train.model_copy(update={"root": str(tmp_path / "raw")})
    index = build_train_index(train_set, tmp_path / "run/data/train")
    choose_all(index.folder, world.stage("parts"), tmp_path / "run/occlusion/parts.json")
    cache_index(index.folder, world.stage("pixels"), index.folder / "pixels.h5")
    assert not bad(tmp_path / "run")
    photograph = tmp_path / "raw" / index.records[0].file
    with Image.open(photograph) as image:
        ImageOps.invert(image.convert("RGB")).save(photograph)
    with pytest.raises(UserError, match="is not the file that was indexed"):
        cache_index(index.folder, world.stage("pixels"), index.folder / "pixels.h5")
    assert not bad(tmp_path / "run"), "the cache of the old photograph stands beside the old index"
    again = build_train_index(train_set, index.folder)
    assert [one == other for one, other in zip(again.records, index.records, strict=True)].count(False) == 1
    made = {"data/train/pixels.h5", "occlusion/parts.json"}
    assert bad(tmp_path / "run").keys() == made
    cache_index(index.folder, world.stage("pixels"), index.folder / "pixels.h5")
    choose_all(index.folder, world.stage("parts"), tmp_path / "run/occlusion/parts.json")
    file = tmp_path / "raw/train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"][0][0] += 2
    file.write_text(json.dumps(content))
    build_train_index(train_set, index.folder)
    assert bad(tmp_path / "run").keys() == made


def test_the_journal_of_a_shard_is_being_made_or_left_over(run: Path) -> None:
    path = run / "diffusion/latents/train/0-of-1.h5"
    path.parent.mkdir(parents=True)
    shard = Shard("latents", 1, {}, "model", ["a"], [])

    def states() -> set[str]:
        return {found.state for found in verify_run(run, path.parent.iterdir())}

    with pytest.raises(ZeroDivisionError), journal_of(path, shard) as journal:
        journal.add({"a": np.zeros(3, np.float16)}, 1)
        assert states() == {"being made"}
        raise ZeroDivisionError
    assert states() == {"left over"}


def test_while_a_run_is_made_what_does_not_fit_is_being_made_and_what_is_damaged_is_bad(
    run: Path, world: World
) -> None:
    def states() -> dict[str, str]:
        return {found.path: found.state for found in verify_run(run) if found.state != "whole"}

    cache_index(run / "data/dfeat_real", world.stage("pixels"), run / "data/imagenet_val/pixels.h5")
    (run / "data/train" / f"index.csv.tmp.{socket.gethostname()}.{os.getpid()}.00").touch()
    (run / "data/dfeat_real/problems.csv").write_text("damaged")
    strange = "data/imagenet_val/pixels.h5"
    writing = f"data/train/index.csv.tmp.{socket.gethostname()}.{os.getpid()}.00"
    quiet = {writing: "being made", "data/dfeat_real/problems.csv": "bad", strange: "bad"}
    assert states() == quiet
    code = "import sys; from pathlib import Path; from dfeat.storage.atomic import mark_under_way as mark; mark(Path(sys.argv[1]))"
    maker = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print(flush=True); input()", str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert maker.stdout is not None and maker.stdout.readline()
        assert states() == quiet | {strange: "being made"}
    finally:
        maker.kill()
        maker.wait()
    assert states() == quiet


def test_what_lies_where_no_step_writes_is_named(run: Path) -> None:
    for name in ("ablation/share/left.h5", "diffusion/left.h5", "ablation/note.txt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"nobody's")
    found = bad(run)
    assert "lies where no step keeps" in found.pop("ablation/share/left.h5")
    assert "lies where no step keeps" in found.pop("diffusion/left.h5")
    assert "no digest record" in found.pop("ablation/note.txt")
    assert not found


def test_the_command_lists_all_and_its_status_says_what_was_found(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["dfeat", "verify", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    ended = subprocess.Popen(["true"])
    ended.wait()
    (run / "data" / f"index.csv.tmp.{socket.gethostname()}.{ended.pid}.00").touch()
    assert status(str(run)) == 0
    printed = capsys.readouterr().out
    assert "left over" in printed
    assert printed.count("whole") == len(list(verify_run(run)))
    for name in ("dfeat_real/problems.csv", "train/annotations.json"):
        (run / "data" / name).write_text("")
    assert status(str(run)) == 1
    printed = capsys.readouterr().out
    assert "2 bad, 1 left over" in printed
    assert "data/imagenet_val/index.csv" in printed
    assert status(str(run / "data")) == 2
