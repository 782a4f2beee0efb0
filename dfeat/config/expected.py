"""What a configuration makes of every place of its run, written where readers of the artifacts look (`storage.expected`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal

from dfeat.config.points import Run
from dfeat.config.run import ResourceSettings
from dfeat.config.shards import shard_count
from dfeat.methods import PRETRAINED, REFERENCE
from dfeat.places import HOLDOUT, OCCLUDED, TRAIN, Place, level_view, point_folder, view_pictures
from dfeat.storage.atomic import json_bytes, write_bytes
from dfeat.storage.expected import FILE
from dfeat.storage.records import read_bytes

Kind = Literal["inpaint", "latents", "features"]


def write_expected(run: Run) -> None:
    """Write what the run's configuration expects into the run's folder, unless it is there already."""
    path, content = run.place.run / FILE, json_bytes(expected(run))
    if not path.is_file() or read_bytes(path, "adopt") != content:
        write_bytes(path, content)


def expected(run: Run) -> dict[str, dict[str, Any]]:
    """By place inside the run's folder: under `settings` those that its artifact records, under `shards` their number; and
    the `configuration`, by which `dfeat status` says what is left to make.

    A point of a grid has places for what its settings reach, as it has artifacts.
    """
    settings: dict[str, Any] = {}
    shards: dict[str, int] = {}
    held_out = [HOLDOUT] if run.settings.data.train.holdout else []
    for name in (TRAIN, *held_out, *run.levels):
        settings[f"data/{name}/source.json"] = json.loads(run.index_settings(TRAIN if name == HOLDOUT else name))
        settings[f"data/{name}/pixels.h5"] = json.loads(run.stage("", "pixels"))
    for at in _points(run):
        place = Place(run.place.run, at)
        for file, recorded in _of_point(run, place):
            settings[_inside(run, file)] = recorded
        for kind, view in _views(run, at):
            shards[_inside(run, place.view(kind, view))] = shard_count(run.at(at), kind, view)
    unneeded = set(ResourceSettings.model_fields) - {"device", "measured"}  # how a run computes is not what it makes
    configuration = run.settings.model_dump(mode="json", exclude={"resources": unneeded})
    return {"settings": settings, "shards": shards, "configuration": configuration}


def _points(run: Run) -> list[str]:
    """The run itself and every point of the grids that are asked for, as `at`: a bad point of another stops no run."""
    return ["", *(point_folder(name, n) for name in run.asked() for n in range(len(run.points(name))))]


def _inside(run: Run, path: PurePath) -> str:
    return path.relative_to(run.place.run).as_posix()


def _of_point(run: Run, place: Place) -> Iterator[tuple[PurePath, Any]]:
    """The artifacts that the run, or a point, makes of its own, each with the settings that it records."""
    at = place.at
    if not at or run.reached(at, "parts"):
        yield place.parts(), json.loads(run.stage(at, "parts"))
    if not at or run.reached(at, "inpaint"):
        yield place.view("inpaint", TRAIN), json.loads(run.stage(at, "inpaint"))
        copies = run.at(at).diffusion.inpaint.copies
        yield place.inpainted(), json.loads(run.stage(at, "pixels")) | ({"copies": copies} if copies > 1 else {})
    for kind, view in _views(run, at):
        if kind != "inpaint":
            made_at = run.source(at, "latents", view=view).at
            latents = json.loads(run.latents_stage(made_at, view)) | {"view": view_pictures(view)}
            of_features = {"latents": latents} if kind == "features" else {}
            own = json.loads(run.stage(at, "features")) if kind == "features" else latents
            yield place.view(kind, view), own | of_features
    for method in run.trained(at):
        for backbone in run.settings.training.backbones:
            if not at or run.reached(at, "train", method_name=method, backbone=backbone):
                yield place.model(method, backbone, 0).parent, json.loads(run.stage(at, "train", backbone, method))
            yield place.predictions(method, backbone, 0).parent, json.loads(run.stage(at, "evaluate"))
    for backbone in run.settings.training.backbones:
        if not at:
            untrained = json.loads(run.stage(at, "pretrained", backbone))
            yield place.predictions(PRETRAINED.name, backbone, 0).parent, untrained
        if not at or run.reached(at, "verdicts", method_name=REFERENCE, backbone=backbone):
            yield place.verdicts(backbone).parent, json.loads(run.stage(at, "judge"))


def _views(run: Run, at: str) -> Iterator[tuple[Kind, str]]:
    """(kind, view) of the shards that the run, or a point, makes of its own."""
    levels = run.evaluated(at) if at else run.all_levels
    tests = [level_view(name, level) for name, of_set in levels.items() for level in of_set]
    kinds: list[tuple[Kind, str]] = [("inpaint", TRAIN)]
    kinds += [(kind, view) for view in (TRAIN, OCCLUDED, *tests) for kind in ("latents", "features")]
    yield from ((kind, view) for kind, view in kinds if not at or run.reached(at, kind, view=view))
