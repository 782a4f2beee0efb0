"""The section `data`, and what draws and cuts the crops that networks see."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from dfeat.section import WNID, Label, LocalPath, Name, Section, Seed, WithoutNulls


def _once(levels: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(levels)) != len(levels):
        raise ValueError("has a level twice; name each level once")
    return levels


Study = Literal["sweep", "object_occlusion", "part_cost"]
"""A table of its own for an evaluation set: fine steps, shares of the object, or each part on its own."""
Levels = Annotated[tuple[Annotated[int, Field(ge=0, le=100)], ...], Field(min_length=1), AfterValidator(_once)]
"""Percents of occlusion, each an evaluation of its own."""
ShortSide = Annotated[int, Field(ge=8, le=2048)]
Interpolation = Literal["bicubic", "bilinear"]


def _of_an_image(scale: tuple[float, float]) -> tuple[float, float]:
    low, high = scale
    if not 0 < low <= high <= 1:
        raise ValueError("is no range of areas; give [least, most] as shares of the image, with 0 < least <= most <= 1")
    return scale


CropScale = Annotated[tuple[float, float], AfterValidator(_of_an_image)]
"""Least and greatest area of a random crop, as shares of the image."""
CropShare = Annotated[float, Field(gt=0, le=1)]
IMAGE_SIZE: Final = 224
"""Side of the networks' input [Sec. 4.2], in pixels."""
CROP_PCT: Final = 0.875
"""Share of the short side that the evaluation crop keeps."""
CROP_SCALE: Final = (0.35, 1.0)
MOST_IMAGES: Final = 100_000_000
MOST_DRAWN: Final = 10_000
"""Images of a class that one job draws."""
FLIP: Final = 0.5
"""The chance that a random crop is mirrored."""


class TrainSet(Section):
    """The training images and their part annotations [Sec. 4.1]."""

    kind: Literal["partimagenet"] = "partimagenet"
    root: LocalPath = Field(
        LocalPath("data/PartImageNet"), description="folder or .zip of PartImageNet_OOD or PartImageNet_Seg"
    )
    layout: Literal["auto", "ood", "seg", "by_class"] = Field(
        "auto",
        description="how files are laid out; auto looks; by_class: an annotation file a class, as in PartImageNet++",
    )
    wnid: str | None = Field(
        None, pattern=WNID, description="class of images whose names and folders carry none (one-class sets)"
    )
    expected_images: int | None = Field(
        24_095, ge=1, le=MOST_IMAGES, description="the count the paper states; doctor compares"
    )
    expected_classes: int | None = Field(
        158, ge=1, le=MOST_IMAGES, description="the count the paper states; doctor compares"
    )
    holdout: int = Field(
        0,
        ge=0,
        le=MOST_IMAGES,
        description="images of each class that nothing is trained on, at most half of them: the set `holdout`, on which "
        "ablations and choose_learning_rate are measured",
    )

    @property
    def expected_holdout(self) -> int:
        """The number of images held out of a set with the expected counts; 0 where one of them is null."""
        return min(self.holdout * (self.expected_classes or 0), (self.expected_images or 0) // 2)

    @model_serializer(mode="wrap")
    def _without_no_holdout(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `holdout` when it is 0, so that an index made before the setting existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key != "holdout" or value}


class EvaluationSet(Section):
    """A labelled set of images to evaluate on [Sec. 4.1], cut to the classes of the training set."""

    kind: Literal["imagenet", "folder", "partimagenet"] = Field(
        "folder",
        description="imagenet: ImageNet val in any of its layouts; folder: one folder a class; partimagenet: images with "
        "part annotations, as the training set has them",
    )
    root: LocalPath = Field(description="folder (or .tar for imagenet) that holds the images")
    labels: LocalPath | None = Field(None, description="imagenet, flat layout: label file, wnid or index form")
    levels: Levels = Field((0,), description="percent of patches blacked out, one evaluation each")
    expected_images: int | None = Field(
        None, ge=1, le=MOST_IMAGES, description="the count the paper states; doctor compares"
    )
    study: Study | None = Field(
        None,
        description="a table of its own instead of Tables 1 and 2: sweep (many levels), object_occlusion (levels are shares "
        "of the object), part_cost (each part hidden on its own; levels 0 and 100)",
    )
    per_class: int | None = Field(
        None, ge=1, le=MOST_IMAGES, description="at most so many images of a class, drawn by seed"
    )
    label: Label | None = Field(
        None,
        description="what tables and figures call the set; null: the paper's name of its set, or the key with spaces",
    )

    @model_serializer(mode="wrap")
    def _without_no_label(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `label` when it is null, so that what was made before the setting existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key != "label" or value is not None}

    @model_validator(mode="after")
    def _study_fits(self) -> Self:
        if self.study in ("object_occlusion", "part_cost") and self.kind != "partimagenet":
            raise ValueError(f"study {self.study!r} needs masks of the object's parts, so kind 'partimagenet'")
        if self.study == "part_cost" and not set(self.levels) <= {0, 100}:
            raise ValueError("study 'part_cost' hides a part or does not: its levels are [0, 100]")
        return self


class DrawnData(Section):
    """The built-in data sets: how many drawn objects a class, and their seed."""

    train: int = Field(60, ge=1, le=MOST_DRAWN)
    val: int = Field(40, ge=1, le=MOST_DRAWN)
    real: int = Field(15, ge=1, le=MOST_DRAWN)
    parts: int = Field(
        0, ge=0, le=MOST_DRAWN, description="further images with part annotations, on which nothing is trained"
    )
    seed: Seed = 0


class DataSettings(Section):
    """Which images are read, and the cache of decoded pixels that training reads."""

    drawn: DrawnData | None = Field(None, description="draw the built-in data into results/<run>/raw first")
    train: TrainSet = TrainSet()
    evaluation: WithoutNulls[dict[Name, EvaluationSet]] = Field(
        default_factory=lambda: {
            "imagenet_val": EvaluationSet(
                kind="imagenet", root=LocalPath("data/imagenet/val"), levels=(0, 20, 40, 60, 80), expected_images=7_900
            ),
            "dfeat_real": EvaluationSet(kind="folder", root=LocalPath("data/dfeat_real"), expected_images=300),
        }
    )
    short_side: ShortSide = Field(256, description="short side of cached pixels; images are never enlarged twice")
    interpolation: Interpolation = Field("bicubic", description="how pixels are brought to short_side")

    @property
    def published(self) -> tuple[str, ...]:
        """The sets of Tables 1 and 2, in order: those without a study."""
        return tuple(name for name, chosen in self.evaluation.items() if chosen.study is None)


_DEFAULT: Final = DataSettings()


class PixelsStage(Section):
    """The settings `dfeat pixels` depends on."""

    short_side: ShortSide = _DEFAULT.short_side
    interpolation: Interpolation = _DEFAULT.interpolation
