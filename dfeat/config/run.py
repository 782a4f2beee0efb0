"""The sections `report`, `ablations` and `resources`, and config.yaml as a whole."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from dfeat import methods
from dfeat.config.bounds import fault_of_size
from dfeat.config.labels import Labels, fault_of_labels, labels_of
from dfeat.config.names import fault_of_names
from dfeat.data.settings import DataSettings, EvaluationSet
from dfeat.devices.cards import CardName, canonical
from dfeat.diffusion.settings import DiffusionSettings
from dfeat.evaluation.settings import EvaluationSettings
from dfeat.methods import REFERENCE
from dfeat.occlusion.settings import OcclusionSettings
from dfeat.places import HOLDOUT, OCCLUDED, TRAIN
from dfeat.section import Commit, LocalPath, Name, Section, Seed, WithoutNulls, parse, typed
from dfeat.training.settings import MethodName, TrainingSettings


class ReportSettings(Section):
    """Tables and figures."""

    before_fine_tuning: bool = Field(
        True, description="a row for backbones before fine-tuning, where their weights have a head for ImageNet-1k"
    )
    note: str = Field("", description="printed above every table and figure")
    confidence: float = Field(0.95, gt=0, lt=1)
    tex_intervals: Literal["top1", "all", "none"] = Field(
        "top1", description="which accuracies have their interval in the LaTeX tables; the CSV has all"
    )
    ours: tuple[MethodName, ...] | None = Field(
        None,
        description="your own methods, which tables call ours and compare with the best of all others; null: SD Inpaint and SD "
        "Features are compared so, and called ours nowhere",
    )
    seed: Seed = 0
    gallery: int = Field(60, ge=1, le=2000, description="training images in the report's gallery")

    @field_validator("ours")
    @classmethod
    def _not_the_reference(cls, ours: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if REFERENCE in (ours or ()):
            raise ValueError(f"has {REFERENCE!r}, which all methods are compared with; take it out")
        return ours

    @model_serializer(mode="wrap")
    def _omit_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        later = {"tex_intervals": "top1", "ours": None}
        return {name: value for name, value in serialize(self).items() if name not in later or value != later[name]}


_OF_PARTS: Final = ("occlusion.share", "occlusion.min_visible")


class Ablation(Section):
    """One choice taken apart: every combination of some settings' values, each trained as the run is, and evaluated."""

    methods: tuple[MethodName, ...] = Field(min_length=1, description="methods that read these settings")
    on: Literal["holdout", "test"] | None = Field(
        None,
        description="what points are measured on: the images that data.train.holdout holds out, or the sets of Tables 1 and "
        "2; null: the holdout where there is one",
    )
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1, max_length=1000)]] = Field(
        min_length=1, description="a setting by its dotted key, e.g. training.fusion, and its values"
    )

    @field_validator("grid")
    @classmethod
    def _taken_apart(cls, grid: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key in grid:
            if not key.startswith(("diffusion.", "training.", *_OF_PARTS)):
                raise ValueError(
                    f"cannot take {key!r} apart; settings under diffusion and training can be, "
                    f"and {' and '.join(_OF_PARTS)}"
                )
        return {key: typed(values) for key, values in grid.items()}

    @model_serializer(mode="wrap")
    def _without_no_choice(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `on` when it is null, so that what was made before the setting existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key != "on" or value is not None}


LEARNING_RATE: Final = "learning_rate"
"""The grid of choose_learning_rate."""
RATE_KEY: Final = "training.learning_rate"
_RATES: Final = (0.001, 0.003, 0.01, 0.03)
"""The paper does not print its grid: both readings of its 10e-3, one rate between them and one above."""


def _ablations() -> dict[str, Ablation]:
    grids: dict[str, dict[str, tuple[Any, ...]]] = {
        "timestep": {
            "diffusion.features.timestep": (25, 100, 261, 500),
            "diffusion.features.blocks": (["mid"], ["up.1"]),
        },
        "fusion": {"training.fusion": ("concat", "sum", "gated", "attention")},
        "weights": {"training.alpha": (0.5, 1.0), "training.beta": (0.0, 0.5, 1.0)},
        "share": {"occlusion.share": (0.25, 0.5, 0.75, 1.0)},
        "copies": {"diffusion.inpaint.copies": (1, 2, 4)},
    }
    trained = {name: tuple(one.name for one in methods.METHODS if name in one.ablations) for name in grids}
    return {name: Ablation(methods=trained[name], grid=grid) for name, grid in grids.items()}


REQUEST: Final = r"^(gpu|nothing|--gpus(-per-node)?=([A-Za-z0-9_.]+:)?1|--gres=[A-Za-z0-9_]+(:[A-Za-z0-9_.]+)?:1)$"


class ResourceSettings(Section):
    """What a job asks for. Never what it computes: `threads` is fixed so that results do not depend on the machine."""

    threads: int = Field(4, ge=1, le=1024, description="torch threads of a job, whatever the machine has")
    workers: int = Field(
        4, ge=0, le=1024, description="processes or threads that prepare a GPU job's images; changes no result"
    )
    gpu: int = Field(1, ge=0, le=1, description="1: a GPU job takes a device, a training training.gpus; 0: the CPU")
    request: str = Field(
        "gpu",
        json_schema_extra={"pattern": REQUEST},
        description="what a scheduler is asked for a GPU job, apart from what the job takes. gpu: Snakemake's resource of that "
        "name, which is --gpus for SLURM; nothing: a partition alone; or SLURM's option for one device, such as "
        "--gres=gpu:1, --gres=gpu:a100:1, --gpus=a100:1 or --gpus-per-node=1",
    )
    device: Annotated[CardName, BeforeValidator(canonical)] = Field(
        "A100",
        description="what the GPUs are, by any name that the card has: sets the time that jobs are given, and names no file",
    )
    measured: LocalPath | None = Field(
        None,
        description="file that `dfeat plan --calibrate` wrote on these GPUs: the plan and the time limits take its figures",
    )
    checkpoint_minutes: int = Field(
        10,
        ge=0,
        le=100_000,
        description="between two checkpoints of a training; 0: after every step; changes no result",
    )
    mem_mb: int = Field(16_000, ge=100, le=100_000_000)
    runtime: int = Field(60, ge=1, le=1_000_000, description="minutes")

    @field_validator("request")
    @classmethod
    def _for_one_device(cls, request: str) -> str:
        if not re.fullmatch(REQUEST, request):
            raise ValueError(
                "write what a scheduler is asked for one device: gpu, nothing, --gres=gpu:1, --gres=gpu:a100:1, --gpus=a100:1 "
                "or --gpus-per-node=1; for several devices the 1 becomes their number"
            )
        return request

    def requested(self, devices: int) -> dict[str, int | str]:
        """Snakemake's resources of a job that takes so many devices: what a scheduler is asked, and `devices`, what it takes.

        By default one resource, `gpu`, is both. Snakemake's executor for SLURM makes --gpus of `gpu`, --gres of `gres`, and
        takes any other option from `slurm_extra`.
        """
        if self.request == "gpu":
            return {"gpu": devices}
        taken: dict[str, int | str] = {"devices": devices}
        option, _, one = self.request.partition("=")
        asked = f"{one.removesuffix('1')}{devices}"
        if not devices or self.request == "nothing":
            return taken
        if option == "--gres":
            return taken | {"gres": asked}
        if option == "--gpus" and ":" in one:
            return taken | {"gpu": devices, "gpu_model": one.partition(":")[0]}
        return taken | ({"gpu": devices} if option == "--gpus" else {"slurm_extra": f"{option}={asked}"})

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `measured` and `request` at their defaults, so that what was made before they existed still matches."""
        plain: dict[str, Any] = written(self)
        later = {"measured": None, "request": "gpu"}
        return {key: value for key, value in plain.items() if key not in later or value != later[key]}


class Settings(Section):
    """config.yaml, whole."""

    run: Name = Field("paper", description="results go to results/<run>")
    base: Name | None = Field(
        None,
        description="another run, whose indexes, pixels, parts, inpaintings, latents and features are linked where they were "
        "made from the same by the same settings",
    )
    data: DataSettings = DataSettings()
    occlusion: OcclusionSettings = OcclusionSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    report: ReportSettings = ReportSettings()
    ablation: dict[Name, Ablation] = Field(
        default_factory=_ablations, description="grids of settings, each a target `ablation_NAME`; none runs unasked"
    )
    resources: ResourceSettings = ResourceSettings()
    pins: WithoutNulls[dict[str, Commit]] = Field(
        default_factory=dict,
        max_length=1000,
        description="commits of Hub models without a `revision`, by their path or timm name; `dfeat fetch` writes them",
    )

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `base` and `pins` when there are none, so that what was made before they existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key not in ("base", "pins") or value}

    @model_validator(mode="after")
    def _revisions_from_pins(self) -> Self:
        """The settings with a pinned `revision` wherever a model has none of its own."""
        if not self.pins:
            return self
        backbones = {
            name: one.model_copy(
                update={"revision": one.revision or (None if one.weights else self.pins.get(one.name))}
            )
            for name, one in self.training.backbones.items()
        }
        models = {
            use: source.model_copy(update={"revision": source.revision or self.pins.get(str(source.path))})
            for use in ("model", "inpaint_model")
            if (source := getattr(self.diffusion, use)) is not None
        }
        return self.model_copy(
            update={
                "diffusion": self.diffusion.model_copy(update=models),
                "training": self.training.model_copy(update={"backbones": backbones}),
            }
        )

    @model_validator(mode="after")
    def _base_is_another_run(self) -> Self:
        if self.base == self.run:
            raise ValueError(f"base is {self.base!r}, this very run; name another run, or leave it out")
        return self

    @model_validator(mode="after")
    def _something_is_trained(self) -> Self:
        if not self.training.backbones:
            raise ValueError(
                "training.backbones has none left; name a timm model there, e.g. convnext: {name: convnext_tiny}"
            )
        return self

    @model_validator(mode="after")
    def _names_are_apart(self) -> Self:
        fault = fault_of_names(self) or fault_of_labels(self)
        if fault:
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _sets_have_names_of_their_own(self) -> Self:
        taken = sorted({TRAIN, OCCLUDED, HOLDOUT} & set(self.data.evaluation))
        if taken:
            raise ValueError(
                f"data.evaluation has a set named {taken[0]!r}, as the training images or those held out of them are; give it "
                "another name"
            )
        return self

    @property
    def labels(self) -> Labels:
        """What tables, figures and the page call methods, backbones and sets."""
        return labels_of(self)

    @property
    def ours(self) -> tuple[str, ...]:
        """The trained methods that are compared with the best of all others: `report.ours`, by default the paper's."""
        own = self.report.ours
        return tuple(
            name for name in self.training.methods if (methods.method(name).ours if own is None else name in own)
        )

    @property
    def grids(self) -> dict[str, Ablation]:
        """The section `ablation`, and the grid of choose_learning_rate, where the section has none of that name."""
        rates = Ablation(methods=self.training.methods, on="holdout", grid={RATE_KEY: _RATES})
        return {LEARNING_RATE: rates} | self.ablation

    def measured_on(self, ablation: str) -> dict[str, EvaluationSet]:
        """The evaluation sets that a grid's points are measured on: the holdout, or those of Tables 1 and 2."""
        on = self.grids[ablation].on or ("holdout" if self.data.train.holdout else "test")
        if on == "holdout":
            return {HOLDOUT: self.holdout}
        return {name: self.data.evaluation[name] for name in self.data.published}

    @property
    def holdout(self) -> EvaluationSet:
        """The held-out images as an evaluation set, at the levels of the sets of Tables 1 and 2."""
        levels = {level for name in self.data.published for level in self.data.evaluation[name].levels}
        train = self.data.train
        return EvaluationSet(kind=train.kind, root=train.root, levels=tuple(sorted(levels or {0})))

    @model_validator(mode="after")
    def _grids_have_images(self) -> Self:
        named = next((name for name, grid in self.ablation.items() if grid.on == "holdout"), None)
        if named and not self.data.train.holdout:
            raise ValueError(
                f"ablation.{named}.on is 'holdout', and data.train.holdout is 0; hold out images of each class (for "
                f"example data.train.holdout: 10), or set ablation.{named}.on to test"
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.occlusion.protocol == "grid" and self.training.image_size % self.occlusion.patch:
            raise ValueError(
                f"occlusion.patch {self.occlusion.patch} does not divide training.image_size "
                f"{self.training.image_size}; the grid protocol needs whole patches"
            )
        if self.training.inpainted == "accepted" and REFERENCE not in self.training.methods:
            raise ValueError(f"training.inpainted 'accepted' is judged by None; add {REFERENCE!r} to training.methods")
        bare = [
            name for name, one in self.data.evaluation.items() if one.kind != "partimagenet" and set(one.levels) - {0}
        ]
        if self.occlusion.protocol == "object" and bare:
            raise ValueError(
                f"occlusion.protocol 'object' needs the object's mask, which {bare[0]!r} does not have; give such sets "
                "the level 0 alone, or kind 'partimagenet', or take protocol grid, image or random"
            )
        if self.data.short_side * self.evaluation.crop_pct < self.training.image_size - 1:
            raise ValueError(
                f"data.short_side {self.data.short_side} times evaluation.crop_pct {self.evaluation.crop_pct} is "
                f"less than training.image_size {self.training.image_size}; raise data.short_side"
            )
        return self

    @model_validator(mode="after")
    def _studies_have_levels(self) -> Self:
        for name, chosen in self.data.evaluation.items():
            if chosen.study == "part_cost" and set(chosen.levels) != {0, 100}:
                raise ValueError(
                    f"data.evaluation.{name} has study 'part_cost', which needs the levels [0, 100]; give it both"
                )
            if chosen.study and len(chosen.levels) < 2:
                raise ValueError(
                    f"data.evaluation.{name} has study {chosen.study!r}, which needs several levels; give it some"
                )
        return self

    @model_validator(mode="after")
    def _is_no_larger_than_a_plan_can_be(self) -> Self:
        fault = fault_of_size(self)
        if fault:
            raise ValueError(fault)
        return self


def table_settings(settings: Settings, sets: Iterable[str]) -> Settings:
    """What a table of these sets reads, all else at its default: a change elsewhere does not make the table again."""
    training = settings.training
    unread = {"root": "-", "labels": None, "expected_images": None, "per_class": None}
    kept = {name: settings.data.evaluation[name].model_copy(update=unread) for name in sets}
    return Settings(
        data=DataSettings(evaluation=kept),
        training=TrainingSettings(
            methods=training.methods, backbones=training.backbones, seeds=training.seeds, labels=training.labels
        ),
        report=settings.report.model_copy(update={"gallery": ReportSettings().gallery}),
    )


def ablation_points(settings: Settings, name: str) -> list[tuple[dict[str, Any], Settings]]:
    """The points of a grid, in its order: the changed settings by key, and the run's settings with them.

    A point's evaluation sets are those that the grid is measured on. A grid of learning rates is of all methods and
    backbones alike: its points have no `training.learning_rates`. UserError for a bad point.
    """
    grid, points = settings.grids[name].grid, []
    measured = settings.data.model_copy(update={"evaluation": settings.measured_on(name)})
    for values in itertools.product(*grid.values()):
        plain = settings.model_dump(mode="json")
        if RATE_KEY in grid:
            plain["training"].pop("learning_rates", None)
        _unpin(plain, settings.pins)
        for key, value in zip(grid, values, strict=True):
            *sections, last = key.split(".")
            section = plain
            for part in sections:
                below = section.get(part)
                section[part] = below if isinstance(below, dict) else {}
                section = section[part]
            section[last] = value
        point = dict(zip(grid, values, strict=True))
        changed = parse(Settings, plain, f"ablation.{name} at {point}")
        points.append((point, changed.model_copy(update={"data": measured})))
    return points


def _unpin(plain: dict[str, Any], pins: Mapping[str, str]) -> None:
    """Take out the revisions that are from `pins`, since another model may be put in a model's place."""
    for model in (plain["diffusion"]["model"], plain["diffusion"]["inpaint_model"]):
        if model is not None and model["revision"] == pins.get(model["path"]):
            model["revision"] = None


def config_schema() -> str:
    """The JSON Schema of config.yaml, as text."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"
