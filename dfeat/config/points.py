"""A configured run and the points of its ablations: what each job is given, and which files it reads.

What enters: the settings. What leaves: a `Run`, which the workflow's rules ask. A run is the empty point; a point of a
grid has the same jobs under its own folder, and takes every artifact of the run that its changed settings do not reach.
Nothing heavy is imported: a plan needs neither numpy nor torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.config.bounds import fault_of_grid
from dfeat.config.run import Settings, ablation_points
from dfeat.config.shards import level_groups, shard_count
from dfeat.config.stages import stage_settings
from dfeat.errors import UserError
from dfeat.methods import PRETRAINED, REFERENCE, method
from dfeat.places import (
    HOLDOUT,
    OCCLUDED,
    RESULTS,
    TRAIN,
    Place,
    level_view,
    point_folder,
    prediction_files,
    predictions_origin,
    view_set,
)
from dfeat.section import Section
from dfeat.storage.provenance import as_argument
from dfeat.training.settings import Backbone
from dfeat.training.weights import has_imagenet_head, weights_path

Artifact = Literal["parts", "inpaint", "latents", "features", "train", "verdicts"]
RUN_ONLY: Final = "(?:)"
"""The pattern of `at` for the run itself: an empty alternative, which Snakemake takes in this form alone."""


class Run:
    """The jobs of a run. `at` is "" for the run itself, or the folder of a point (`places.point_folder`)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.place = Place(RESULTS / settings.run)
        self._points: dict[str, list[Settings]] = {}

    @cached_property
    def levels(self) -> dict[str, tuple[int, ...]]:
        """The levels of every evaluation set."""
        return {name: chosen.levels for name, chosen in self.settings.data.evaluation.items()}

    @cached_property
    def published(self) -> dict[str, tuple[int, ...]]:
        """The levels of the sets of Tables 1 and 2."""
        return {name: self.levels[name] for name in self.settings.data.published}

    @cached_property
    def holdout_levels(self) -> dict[str, tuple[int, ...]]:
        """The levels of the holdout, the set that grids are measured on unless they are on test."""
        return {HOLDOUT: self.settings.holdout.levels}

    @cached_property
    def all_levels(self) -> dict[str, tuple[int, ...]]:
        """The levels of every evaluation set, and of the holdout where images are held out."""
        return self.levels | (self.holdout_levels if self.settings.data.train.holdout else {})

    @cached_property
    def measured(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """The levels of the sets that the points of each grid are measured on."""
        sets = {name: self.settings.measured_on(name) for name in self.settings.grids}
        return {name: {key: chosen.levels for key, chosen in own.items()} for name, own in sets.items()}

    def evaluated_at(self, set_name: str) -> str:
        """The pattern of `at` where models are evaluated on a set: the run if it is one of its sets, and points."""
        points = self.points_pattern(set_name)
        return f"{RUN_ONLY}|{points}" if set_name in self.levels else points

    def points_pattern(self, set_name: str | None = None) -> str:
        """The pattern of `at` for every point of the grids that are measured on a set (default: all grids); one that
        matches nothing where there is none."""
        grids = {
            name: math.prod(map(len, chosen.grid.values()))
            for name, chosen in self.settings.grids.items()
            if set_name is None or set_name in self.measured[name]
        }
        numbers = [
            f"{re.escape(point_folder(name, ''))}(?:{'|'.join(map(str, range(count)))})"
            for name, count in grids.items()
        ]
        return "|".join(numbers) or r"(?!)"

    @property
    def methods(self) -> list[str]:
        """The methods that are trained: the run's, and those that only a grid asks for."""
        grids = [name for chosen in self.settings.grids.values() for name in chosen.methods]
        return list(dict.fromkeys([*self.settings.training.methods, *grids]))

    def points(self, ablation: str) -> list[Settings]:
        """The settings of a grid's points. UserError for a bad point."""
        if ablation not in self._points:
            self._points[ablation] = [point for _, point in ablation_points(self.settings, ablation)]
        return self._points[ablation]

    def trained(self, at: str) -> list[str]:
        """The methods that are evaluated in the run, or at a point."""
        return list(self.settings.grids[_grid_point(at)[0]].methods) if at else self.methods

    def asked(self) -> list[str]:
        """The grids that were asked for: points of them were taken here, or stand in the run's folder."""
        folder = self.place.run / "ablation"
        return [name for name in self.settings.grids if name in self._points or (folder / name).is_dir()]

    def at(self, at: str) -> Settings:
        """The settings of the run, or of a point."""
        if not at:
            return self.settings
        name, number = _grid_point(at)
        return self.points(name)[number]

    def stage(self, at: str, name: str, *read: Any) -> str:
        """A stage's part of the settings, as the one JSON argument that its verb takes."""
        return as_argument(self._stage(at, name, *read))

    def _stage(self, at: str, name: str, *read: Any) -> Section:
        return stage_settings(self.at(at), name, *read)

    def reached(
        self, at: str, artifact: Artifact, *, view: str = "", method_name: str = "", backbone: str = ""
    ) -> bool:
        """Whether a point's changed settings reach an artifact, by what its stage is given or by what it is made from."""

        def differs(name: str, *read: Any) -> bool:
            return self._stage(at, name, *read) != self._stage("", name, *read)

        if artifact == "parts":
            return differs("parts")
        if artifact == "inpaint":
            return differs("inpaint") or self.reached(at, "parts")
        if artifact == "verdicts":
            judge = self.reached(at, "train", method_name=REFERENCE, backbone=backbone)
            return judge or self.reached(at, "inpaint")
        if artifact == "latents":
            return self._other_crops(at) or (view == OCCLUDED and self.reached(at, "parts"))
        if artifact == "features":
            return differs("features") or self.reached(at, "latents", view=view)
        needs = method(method_name).needs
        return (
            differs("train", backbone, method_name)
            or self.reached(at, "parts")
            or ("inpainted" in needs and self.reached(at, "inpaint"))
            or ("features" in needs and self.reached(at, "features", view=TRAIN))
        )

    def _other_crops(self, at: str) -> bool:
        """Whether a point encodes other pictures than the run: all that a stage of latents is given but the share of
        hidden parts, which reaches the occluded view alone, by way of the parts."""
        crops = [self._stage(point, "latents").model_dump(exclude={"occlusion": {"share"}}) for point in (at, "")]
        return crops[0] != crops[1]

    def source(self, at: str, artifact: Artifact, **of: str) -> Place:
        """Where a point takes an artifact from: its own folders, or the run's."""
        return Place(self.place.run, at if self.reached(at, artifact, **of) else "")

    def shards(self, at: str, kind: Literal["inpaint", "latents", "features"], view: str) -> list[Path]:
        """The shards of a view that a point reads."""
        place = self.source(at, kind, view=view)
        return place.shards(kind, view, shard_count(self.at(place.at), kind, view))

    def level_jobs(self, kind: Literal["latents", "features"]) -> list[tuple[str, list[str]]]:
        """The views of evaluation sets, with the holdout's, in the groups that one job makes of a shard, and the name of
        the rule of each."""
        return [
            (
                f"{kind}_of_{name}" + (f"_from_{group[0]}" if number else ""),
                [level_view(name, level) for level in group],
            )
            for name, levels in self.all_levels.items()
            for number, group in enumerate(level_groups(self.settings, kind, name, levels))
        ]

    def parts(self, at: str) -> Path:
        """The chosen parts that a point reads."""
        return self.source(at, "parts").parts()

    def inpainted(self, at: str) -> Path:
        """The cache of inpainted images that a point reads."""
        return self.source(at, "inpaint").inpainted()

    def weights(self, at: str, method_name: str, backbone: str, seed: int | str) -> Path:
        """The weights of the model that a point evaluates."""
        return self.source(at, "train", method_name=method_name, backbone=backbone).weights(method_name, backbone, seed)

    def judges(self, at: str, backbone: str) -> list[Path]:
        """The weights of the None models that judge a point's inpainted images."""
        return [self.weights(at, REFERENCE, backbone, seed) for seed in self.settings.training.seeds]

    def method_inputs(self, at: str, method_name: str, backbone: str) -> dict[str, Path | list[Path]]:
        """What a training reads beside pixels and parts, by the name of the option of `dfeat train`."""
        needs, training = method(method_name).needs, self.at(at).training
        found: dict[str, Path | list[Path]] = {}
        if "inpainted" in needs:
            found["inpainted"] = self.inpainted(at)
            if training.inpainted == "accepted":
                found["verdicts"] = self.source(at, "verdicts", backbone=backbone).verdicts(backbone)
        if "features" in needs:
            found["features"] = self.shards(at, "features", TRAIN)
            if training.twin_features != "clean":
                found["twin_features"] = self.shards(at, "features", OCCLUDED)
        return found

    def test_features(self, at: str, method_name: str, set_name: str) -> list[tuple[str, Path]]:
        """(SET@LEVEL, shard) of all test-time features that an evaluation on a set reads."""
        if "features" not in method(method_name).needs:
            return []
        views = [level_view(set_name, level) for level in self.evaluated(at)[set_name]]
        return [(view, file) for view in views for file in self.shards(at, "features", view)]

    def evaluated(self, at: str) -> dict[str, tuple[int, ...]]:
        """The levels of the sets that models are evaluated on: a point's on those that its grid is measured on."""
        return self.measured[_grid_point(at)[0]] if at else self.levels

    def predictions(self, sets: Iterable[str], at: str = "", methods: Iterable[str] = ()) -> list[Path]:
        """The prediction files of all models on these sets, with their records; none without sets."""
        training = self.settings.training
        place, levels = Place(self.place.run, at), self.evaluated(at)
        return [
            place.predictions(name, backbone, seed) / file
            for file in prediction_files({key: levels[key] for key in sets})
            for name in methods or training.methods
            for backbone in training.backbones
            for seed in training.seeds
        ]

    def pretrained_predictions(self, sets: Iterable[str]) -> list[Path]:
        """The prediction files on these sets of those backbones that are read out before fine-tuning."""
        if not self.settings.report.before_fine_tuning:
            return []
        backbones = self.settings.training.backbones.items()
        return [
            self.place.predictions(PRETRAINED.name, name, 0) / file
            for key in sets
            for file in prediction_files({key: self.levels[key]})
            for name, chosen in backbones
            if self._is_read_out(name, chosen, key)
        ]

    def _is_read_out(self, name: str, backbone: Backbone, set_name: str) -> bool:
        """Whether a backbone is evaluated before fine-tuning: by its head, or where its weights are gone, whether it was."""
        if backbone.weights is None or weights_path(backbone.weights).exists():
            return has_imagenet_head(backbone)
        return (self.place.predictions(PRETRAINED.name, name, 0) / predictions_origin(set_name)).exists()

    def evaluation_files(self, place: Place, method_name: str, backbone: str, seed: str, set_name: str) -> list[Path]:
        """The files of one model's predictions on a set, with their record."""
        folder = place.predictions(method_name, backbone, seed)
        return [folder / file for file in prediction_files({set_name: self.all_levels[set_name]})]

    def indexed(self, set_name: str) -> list[Path]:
        """What an evaluation reads of its set: index and pixels."""
        return [self.place.index(set_name), self.place.pixels(set_name)]

    def index_settings(self, name: str) -> str:
        """The settings of one set, as JSON, but for what its index does not depend on: expected counts, levels, label."""
        data, unread = self.settings.data, {"expected_images": None}
        if name == TRAIN:
            return as_argument(data.train.model_copy(update=unread | {"expected_classes": None}))
        return as_argument(data.evaluation[name].model_copy(update=unread | {"levels": (0,), "label": None}))

    def point_predictions(self, ablation: str) -> list[Path]:
        """The prediction files of every point of a grid. UserError where its jobs are too many."""
        fault = fault_of_grid(self.settings, ablation)
        if fault:
            raise UserError(fault)
        methods, sets = self.settings.grids[ablation].methods, self.measured[ablation]
        numbers = range(len(self.points(ablation)))
        return [file for n in numbers for file in self.predictions(sets, point_folder(ablation, n), methods)]

    def latents_stage(self, at: str, view: str) -> str:
        """What `dfeat latents` is given for a view, as JSON."""
        set_name = view_set(view)
        return self.stage(at, "latents" if set_name == TRAIN else "test_latents", None, None, set_name)


def _grid_point(at: str) -> tuple[str, int]:
    """The grid and the number of a point, from its folder."""
    _, _, name, number = at.split("/")
    return name, int(number)
