"""Every artifact of a finished run in the place of every other of its kind, with its record: found, and used by nobody."""

from __future__ import annotations

import contextlib
import functools
import operator
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import pytest

from dfeat.config import Settings, stage_settings
from dfeat.config.expected import write_expected
from dfeat.config.points import Run
from dfeat.data.index import read_index
from dfeat.data.indexing import build_evaluation_index, build_train_index
from dfeat.data.pixels import PixelCache, cache_index, cache_inpainted
from dfeat.data.settings import EvaluationSet, TrainSet
from dfeat.diffusion.features import extract_features
from dfeat.diffusion.inpaint import inpaint_shard
from dfeat.diffusion.latents import encode_view
from dfeat.errors import UserError
from dfeat.evaluation.judge import judge
from dfeat.evaluation.origins import read_predictions_origin, read_verdicts_origin
from dfeat.evaluation.predict import TrainedModel, evaluate
from dfeat.occlusion.parts import choose_all, read_parts
from dfeat.places import OCCLUDED, TRAIN, Place, place_of, predicted_set, view_pictures, view_set
from dfeat.report.catalogue import find
from dfeat.report.made import check_shown, make, make_page
from dfeat.section import parse
from dfeat.storage.provenance import file_digest
from dfeat.storage.records import record_path
from dfeat.storage.shards import open_shard
from dfeat.training.loop import train
from dfeat.training.sources import Inputs
from dfeat.verify import Finding, verify_run
from tests.conftest import CPU, TINY_BACKBONE, World, make_settings
from tests.workflow.test_snakemake import ROOT

from .conftest import Tried

SHARDS = 2
VIEWS = (TRAIN, OCCLUDED, "imagenet_val@0", "imagenet_val@40", "dfeat_real@0")
METHODS = ("none", "sd_inpaint", "sd_features")
SHARE = "/ablation/share/0"
PAGE = ("index", "config", "data_card", "model_card", "report")
"""Files of the report that people read and no code."""


OTHERWISE = {
    "data.short_side": 72, "occlusion.share": 0.75, "occlusion.patch": 16, "diffusion.inpaint.steps": 3,
    "diffusion.features.timestep": 60, "training.learning_rate": 0.02, "evaluation.batch_size": 31,
}  # fmt: skip
"""Settings that reach every kind of artifact, each changed."""


def settings_of(world: World, model: Path, weights: Path, **changed: float) -> Settings:
    plain = make_settings(world.root, model).model_dump(mode="json")
    for key, value in changed.items():
        *sections, last = key.split(".")
        functools.reduce(operator.getitem, sections, plain)[last] = value
    plain["diffusion"]["inpaint"] |= {"shards": SHARDS}
    plain["diffusion"]["features"] |= {"shards": SHARDS}
    backbone = {**TINY_BACKBONE, "weights": str(weights)}
    plain["training"] |= {"methods": METHODS, "backbones": {"convnext": backbone}, "seeds": [0, 1], "epochs": 1}
    plain["ablation"] = {"share": {"methods": ["black_out"], "grid": {"occlusion.share": [0.25]}}}
    return parse(Settings, plain)


class Making:
    """A run's artifacts, made by each step's real code where Snakemake has them made."""

    def __init__(self, run: Run) -> None:
        self.run, self.place, self.settings = run, run.place, run.settings

    def stage(self, name: str):  # type: ignore[no-untyped-def]
        return stage_settings(self.settings, name, "convnext")

    def all(self) -> None:
        train_set, classes = parse(TrainSet, self.run.index_settings(TRAIN)), self.place.classes()
        build_train_index(train_set, self.place.data(TRAIN))
        for name in self.run.levels:
            chosen = parse(EvaluationSet, self.run.index_settings(name))
            build_evaluation_index(name, chosen, classes, self.place.data(name))
        for name in (TRAIN, *self.run.levels):
            cache_index(self.place.data(name), self.stage("pixels"), self.place.pixels(name))
        for at in ("", SHARE) if self.settings.ablation else ("",):
            self.pictures(Place(self.place.run, at))
        for view in VIEWS:
            self.features(self.place, view)
        self.features(Place(self.place.run, SHARE), OCCLUDED)
        for method in METHODS:
            for seed in self.settings.training.seeds:
                self.model(method, seed)
        nones = [self.place.model("none", "convnext", seed) for seed in self.settings.training.seeds]
        inputs = self.place.data(TRAIN), self.place.pixels(TRAIN), self.place.parts(), self.place.inpainted()
        judge(nones, *inputs, self.settings.evaluation, self.place.verdicts("convnext"), CPU)
        for name in ("table1", "table2"):
            make(find("table", name, self.settings), self.place.run, self.settings, self.place.report)
        make(find("figure", "gallery", self.settings), self.place.run, self.settings, self.place.report)
        make_page(self.place.run, self.settings, self.place.report / "index.html", ROOT / "workflow/report")

    def pictures(self, place: Place) -> None:
        """Parts and inpainted images of the run or of the point."""
        data, parts = self.place.data(TRAIN), place.parts()
        settings = self.run.at(place.at)
        choose_all(data, stage_settings(settings, "parts"), parts)
        shards = place.shards("inpaint", TRAIN, SHARDS)
        for number, shard in enumerate(shards):
            inpaint_shard(data, parts, stage_settings(settings, "inpaint"), shard, CPU, (number, SHARDS))
        cache_inpainted(shards, stage_settings(settings, "pixels"), place.inpainted())

    def features(self, place: Place, view: str) -> None:
        settings, name = self.run.at(place.at), "latents" if view_set(view) == TRAIN else "test_latents"
        stage = stage_settings(settings, name, set_name=view_set(view))
        pairs = zip(place.shards("latents", view, SHARDS), place.shards("features", view, SHARDS), strict=True)
        for number, (latents, features) in enumerate(pairs):
            data, parts = self.place.data(view_set(view)), place.parts()
            encode_view(data, view_pictures(view), stage, latents, CPU, parts, (number, SHARDS))
            extract_features(latents, stage_settings(settings, "features"), features, CPU)

    def model(self, method: str, seed: int) -> None:
        place, features = self.place, self.place.shards("features", TRAIN, SHARDS)
        twins = tuple(place.shards("features", OCCLUDED, SHARDS))
        data, pixels, parts = place.data(TRAIN), place.pixels(TRAIN), place.parts()
        inputs = Inputs(data, pixels, parts, place.inpainted(), tuple(features), twins)
        model = place.model(method, "convnext", seed)
        train(method, inputs, stage_settings(self.settings, "train", "convnext", method), seed, model, CPU)
        levels = {view: place.shards("features", view, SHARDS) for view in VIEWS if "@" in view}
        folder = place.predictions(method, "convnext", seed)
        evaluate(model, self.place.run / "data", levels, self.stage("evaluate"), folder, CPU)


@pytest.fixture(scope="module")
def finished(world: World, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    from safetensors.torch import save_file
    from timm import create_model

    folder = tmp_path_factory.mktemp("swapped")
    save_file(
        create_model(TINY_BACKBONE["name"], num_classes=0, **TINY_BACKBONE["kwargs"]).state_dict(), folder / "w.st"
    )
    (folder / "w.st").rename(folder / "weights.safetensors")
    settings = settings_of(world, tiny_models["four"], folder / "weights.safetensors")
    with contextlib.chdir(folder):
        run = Run(settings)
        Making(run).all()
        write_expected(run)
        assert not [finding for finding in verify_run(run.place.run) if finding.state != "whole"]
        yield run


def kind_of(path: Path) -> str:
    """What an artifact is: two of one kind are read by the same code."""
    _, inside = place_of(path) or (path, path.name)
    step, name = inside.removeprefix("ablation/share/0/").partition("/")[0], path.name
    if path.suffix == ".h5" and name != "pixels.h5":
        return f"{path.parent.parent.name} shard"
    if step in ("evaluation", "report") and path.suffix == ".csv":
        return "verdicts" if name == "verdicts.csv" else f"{step} csv"
    if step == "evaluation" and name != "verdicts.json":
        return "evaluation record"
    if path.parent.name == ".made":
        return "record of the report"
    return "file of the report" if step == "report" else name


def reader_of(run: Run, path: Path) -> Callable[[], object] | None:
    """What the code that uses an artifact does first with it; None where nothing reads such files."""
    place = Place(run.place.run, SHARE if "/ablation/" in path.as_posix() else "")
    index, parts = run.place.data(TRAIN), place.parts()
    if path.name == "pixels.h5":
        folder = path.parent if path.parent.parent.name == "data" else index
        hidden = read_parts(parts).digest if path == place.inpainted() else ""
        return lambda: PixelCache(path, index=read_index(folder).digest, parts=hidden)
    if path.suffix == ".h5":
        kind, view = path.parts[-3:-1]
        hidden = read_parts(parts).digest if kind == "inpaint" or view == OCCLUDED else ""
        digest = read_index(run.place.data(view_set(view))).digest
        return lambda: open_shard(path, kind, index=digest, parts=hidden).__enter__()
    if path.parent.parent.name == "data":
        whole = lambda: (read_index(path.parent), read_index(path.parent).annotations())  # noqa: E731
        return None if path.name == "problems.csv" else whole
    if path.name == "parts.json":
        return lambda: read_parts(path, index=read_index(index).digest)
    if path.name in ("run.json", "model.safetensors"):
        return lambda: TrainedModel(path.parent, CPU)
    if path.name in ("verdicts.csv", "verdicts.json"):
        return lambda: read_verdicts_origin(path.parent / "verdicts.csv").read_text(path.parent / "verdicts.csv")
    if path.parts[-5:-4] == ("evaluation",):
        name = path.name if path.suffix == ".csv" else f"{path.stem}@0.csv"
        return lambda: read_predictions_origin(path.parent, predicted_set(path)).read_text(path.with_name(name))
    return None if path.name == "metrics.jsonl" or path.stem in PAGE else lambda: check_shown(run, run.place.run)


@contextlib.contextmanager
def lying_at(other: Path, path: Path, recorded: bool) -> Iterator[None]:
    """`other` copied to the place of `path`: with its record, or with one made by `sha256sum` there."""
    kept = [(one, one.with_name(f"kept-{one.name}")) for one in (path, record_path(path))]
    for one, aside in kept:
        one.replace(aside)
    shutil.copyfile(other, path)
    if recorded:
        shutil.copyfile(record_path(other), record_path(path))
    else:
        record_path(path).write_text(f"{file_digest(other)}  {path.name}\n")
    yield
    for one, aside in kept:
        aside.replace(one)


def refused(read: Callable[[], object]) -> bool:
    try:
        read()
    except UserError:
        return True
    return False


def look(run: Run, path: Path) -> list[Finding]:
    """What verify finds of the files in the folder of `path`."""
    files = (one for one in path.parent.iterdir() if one.is_file() and not one.name.startswith("kept-"))
    return list(verify_run(run.place.run, sorted(files)))


@pytest.mark.slow
def test_artifacts_of_a_run_with_other_settings_are_found_and_refused(
    finished: Run, world: World, tiny_models: dict[str, Path], tried: Tried
) -> None:
    weights = Path("weights.safetensors").absolute()
    other = Run(settings_of(world, tiny_models["four"], weights, **OTHERWISE).model_copy(update={"run": "other"}))
    Making(other).all()
    used, count = [], 0
    for finding in verify_run(finished.place.run):
        path, strange = finished.place.run / finding.path, other.place.run / finding.path
        if path.name == "expected.json" or path.read_bytes() == strange.read_bytes():
            continue
        with lying_at(strange, path, recorded=True):
            count += 1
            found = any(seen.state == "bad" for seen in look(finished, path))
            read = reader_of(finished, path) if found else None
            if not found or (read is not None and not refused(read)):
                used.append(finding.path)
    tried("an artifact of the same place from a run with other settings", count, "found and refused", used=len(used))
    assert not used


@pytest.mark.slow
@pytest.mark.parametrize("recorded", [True, False], ids=["records along", "records made anew"])
def test_an_artifact_in_the_place_of_another_is_found_and_refused(
    finished: Run, recorded: bool, tried: Tried, capsys: pytest.CaptureFixture[str]
) -> None:
    of_kind: dict[str, list[Path]] = {}
    for finding in verify_run(finished.place.run):
        path = finished.place.run / finding.path
        if path.name != "expected.json":
            of_kind.setdefault(kind_of(path), []).append(path)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in of_kind}
    used: list[str] = []
    for kind, paths in of_kind.items():
        for path, other in permutations(paths, 2):
            if path.read_bytes() == other.read_bytes():
                counts[kind]["the same bytes"] += not recorded
                if not recorded:
                    continue
            with lying_at(other, path, recorded):
                counts[kind]["tried"] += 1
                found = any(finding.state == "bad" for finding in look(finished, path))
                counts[kind]["found"] += found
                read = reader_of(finished, path) if found else None
                counts[kind]["read"] += read is not None
                counts[kind]["refused"] += read is not None and refused(read)
                if not found or (read is not None and not refused(read)):
                    used.append(f"{other} as {path}")
    with capsys.disabled():
        print(f"\n{'kind':24} {'files':>5} {'tried':>6} {'found':>6} {'with a reader':>14} {'refused':>8}")
        for kind, count in sorted(counts.items()):
            row = [len(of_kind[kind]), count["tried"], count["found"], count["read"], count["refused"]]
            print(f"{kind:24} {row[0]:5} {row[1]:6} {row[2]:6} {row[3]:14} {row[4]:8}")
    swaps = sum(count["tried"] for count in counts.values())
    name = "an artifact in the place of another, " + ("its record along" if recorded else "its record made anew")
    tried(name, swaps, "found and refused", used=len(used))
    assert not used
    assert {finding.state for finding in verify_run(finished.place.run)} == {"whole"}
