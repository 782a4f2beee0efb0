"""The jobs of a configured run, by the rules' names, with what each makes: what `all` and the grids that were asked for need.

What enters: a `Run`. What leaves: its jobs in the order of the steps, each once. A job is named as its log is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dfeat.config.points import Run
from dfeat.methods import needed
from dfeat.places import HOLDOUT, OCCLUDED, TRAIN, Place, job_of, level_view, point_folder, predictions_origin
from dfeat.report.catalogue import catalogue, wanted


@dataclass(frozen=True)
class Job:
    """A job: `kind` is what jobs that take as long have in common, `makes` the files that say that it was done."""

    place: Place
    step: str
    kind: str
    name: str
    makes: tuple[Path, ...]

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.place.log(self.step, self.name)

    @property
    def title(self) -> str:
        """Its name for people, with the point of a grid that it belongs to."""
        at = self.place.at.removeprefix("/ablation/")
        return f"{self.name} ({at})" if at else self.name


def jobs_of(run: Run) -> list[Job]:
    """All jobs of a run and of the grids that were asked for; tables and figures that are made by name alone are none."""
    points = [point_folder(name, number) for name in run.asked() for number in range(len(run.points(name)))]
    found = [*_of_data(run), *(job for at in ["", *points] for job in _of_point(run, at)), *_of_report(run)]
    return list({job.makes: job for job in found}.values())


def _of_data(run: Run) -> Iterator[Job]:
    place = run.place
    for name in (TRAIN, *run.levels):
        yield Job(place, "data", "index", f"index_{name}", (place.index(name),))
    held_out = [HOLDOUT] if any(HOLDOUT in run.measured[name] for name in run.asked()) else []
    for name in (TRAIN, *held_out, *run.levels):
        yield Job(place, "data", "pixels", f"pixels_{name}", (place.pixels(name),))


def _of_point(run: Run, at: str) -> Iterator[Job]:
    """What the run, or a point of a grid, reads of the frozen model, and its models and predictions."""
    settings, methods = run.at(at), run.trained(at)
    needs, backbones = needed(methods), list(settings.training.backbones)
    parts = run.source(at, "parts")
    yield Job(parts, "occlusion", "parts", "parts", (parts.parts(),))
    if "inpainted" in needs:
        for path in run.shards(at, "inpaint", TRAIN):
            yield _named(run, "inpaint", [path])
        pixels = run.inpainted(at)
        yield Job(run.source(at, "inpaint"), "diffusion", "inpainted pixels", "inpainted_pixels", (pixels,))
    if "features" in needs:
        yield from _of_features(run, at)
    models = [
        (method, backbone, seed) for method in methods for backbone in backbones for seed in settings.training.seeds
    ]
    for method, backbone, seed in models:
        yield _named(run, f"training of {backbone}", [run.weights(at, method, backbone, seed)])
    if settings.training.inpainted == "accepted" and "inpainted" in needs:
        for backbone in backbones:
            yield _named(run, "verdicts", [run.source(at, "verdicts", backbone=backbone).verdicts(backbone)])
    own = Place(run.place.run, at)
    for method, backbone, seed in models:
        for set_name in run.evaluated(at):
            record = own.predictions(method, backbone, seed) / predictions_origin(set_name)
            yield _named(run, f"evaluation of {backbone} on {set_name}", [record])
    if not at:
        for record in (path for path in run.pretrained_predictions(run.published) if path.suffix == ".json"):
            yield _named(run, f"evaluation of {record.parts[-3]} on {record.stem}", [record])


def _of_features(run: Run, at: str) -> Iterator[Job]:
    """The shards of latents and features: one of each view of the training images, one of several levels of a set."""
    tests = {level_view(name, level) for name, levels in run.evaluated(at).items() for level in levels}
    twins = [OCCLUDED] if run.at(at).training.twin_features != "clean" else []
    kinds: tuple[Literal["latents", "features"], ...] = ("latents", "features")
    for kind in kinds:
        groups = [[TRAIN], *([view] for view in twins), *(views for _, views in run.level_jobs(kind))]
        for views in groups:
            read = [view for view in views if view in tests or view in (TRAIN, OCCLUDED)]
            for paths in zip(*(run.shards(at, kind, view) for view in read), strict=True) if read else ():
                yield _named(run, kind, paths)


def _named(run: Run, kind: str, makes: Sequence[Path]) -> Job:
    """The job that makes shards, a model or its predictions, by the first of them."""
    job = job_of(makes[0])
    assert job is not None
    place, step, name = job
    return Job(Place(run.place.run, place.at), step, kind, name, tuple(makes))


def _of_report(run: Run) -> Iterator[Job]:
    grids = {f"ablation_{name}" for name in run.asked()}
    shown = {(entry.kind, entry.name) for entry in wanted(run.settings)}
    for entry in catalogue(run.settings):
        if (entry.kind, entry.name) in shown or entry.name in grids:
            yield Job(run.place, "report", "table or figure", entry.job, tuple(entry.files(run)))
    yield Job(run.place, "report", "page", "report", (run.place.report / "index.html",))
