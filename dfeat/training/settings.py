"""The section `training`, and the settings that `dfeat train` depends on."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from dfeat.data.settings import CROP_SCALE, FLIP, IMAGE_SIZE, CropScale
from dfeat.errors import UserError, nearest
from dfeat.methods import NAMES, PAPER_NAMES, PRETRAINED, method
from dfeat.section import (
    BatchSize,
    Commit,
    ImageSize,
    Label,
    LocalPath,
    Name,
    Section,
    Seed,
    Share,
    WithoutNulls,
    typed,
)


def _listed(name: str) -> str:
    try:
        return method(name).name
    except UserError as error:
        raise ValueError(str(error)) from None


MethodName = Annotated[str, AfterValidator(_listed), WithJsonSchema({"enum": list(NAMES), "type": "string"})]
"""The name of a method in `dfeat.methods`."""


Rate = Annotated[float, Field(gt=0)]


def _range_of_shares(shares: tuple[float, float]) -> tuple[float, float]:
    least, most = shares
    if not 0 <= least <= most <= 0.9:
        raise ValueError(
            f"[{least}, {most}] is no range of shares; give two numbers from 0 to 0.9, the smaller one first"
        )
    return shares


Shares = Annotated[tuple[float, float], AfterValidator(_range_of_shares)]
"""Least and greatest share of an image that is hidden."""


class Backbone(Section):
    """A timm model and its ImageNet-1k weights [Sec. 4.2]."""

    name: str = Field(description="timm name with tag, e.g. convnext_base.fb_in1k")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="timm model arguments, for unusual sizes")
    weights: LocalPath | None = Field(None, description="local .safetensors file; null downloads timm's")
    revision: Commit | None = Field(None, description="commit of timm's weights on the Hub, wanted without `weights`")

    @field_validator("kwargs")
    @classmethod
    def _without_dropout(cls, given: dict[str, Any]) -> dict[str, Any]:
        kwargs: dict[str, Any] = typed(given)
        random = [key for key in kwargs if "drop" in key]
        if random:
            raise ValueError(
                f"sets {', '.join(random)}; the only dropout in a training is stochastic depth, equal for all backbones: "
                "set training.drop_path instead"
            )
        return kwargs


class TrainingSettings(Section):
    """Fine-tuning [Sec. 4.2]: what is trained, and how."""

    methods: tuple[MethodName, ...] = Field(PAPER_NAMES, min_length=1)
    backbones: WithoutNulls[dict[Name, Backbone]] = Field(
        default_factory=lambda: {
            "convnext": Backbone(name="convnext_base.fb_in1k"),
            "swin": Backbone(name="swin_base_patch4_window7_224.ms_in1k"),
        }
    )
    labels: dict[Name, Label] = Field(
        default_factory=dict, description="what tables and figures call methods and backbones, by their keys"
    )
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, max_length=1000)
    image_size: ImageSize = Field(IMAGE_SIZE, description="side of the network's input")
    epochs: int = Field(30, ge=1, le=1_000_000, description="passes over originals and augmented images [25-30]")
    batch_size: BatchSize = 64
    gpus: int = Field(1, ge=1, le=64, description="devices of a node that share each batch; 1: models side by side")
    accumulate: int = Field(
        1, ge=1, le=1_000_000, description="parts a batch is computed in, one after another, to save memory"
    )
    halve: bool = Field(
        False, description="double `accumulate` and repeat the step where the device's memory runs out; false: end"
    )
    learning_rate: Rate = Field(0.01, description="the paper prints 10e-3")
    learning_rates: dict[MethodName, dict[Name, Rate]] = Field(
        default_factory=dict,
        description="rates by method and backbone, as choose_learning_rate prints them; all others take learning_rate",
    )
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth: share of rows that skip the last branch")
    schedule: Literal["cosine", "constant"] = "cosine"
    twins: Share = Field(
        0.5, description="share of twins among the images of an epoch; steps stay equal. 1: twins alone, each twice"
    )
    crop_scale: CropScale = Field(CROP_SCALE, description="area of the random resized crop")
    flip: Share = FLIP
    inpainted: Literal["all", "accepted"] = Field(
        "all", description="which inpainted twins are trained on: all, or those in which None still sees the class"
    )
    alpha: float = Field(1.0, ge=0, description="Eq. 1: weight of the loss on images")
    beta: float = Field(0.5, ge=0, description="Eq. 1: weight of the loss on masks (replace)")
    mask_image: Literal["object", "chosen"] = Field("object", description="Eq. 1: whose mask is classified")
    cutmix_alpha: float = Field(1.0, gt=0, description="CutMix: Beta(alpha, alpha) draws the kept area")
    erased_area: Shares = Field((0.02, 0.4), description="Random Erasing: range of the box's share of the image")
    cutout_side: float = Field(0.5, gt=0, le=1, description="Cutout: side of the square, as a share of the image's")
    hide_probability: Share = Field(0.5, description="Hide-and-Seek: probability that a cell of the grid is hidden")
    patch: int = Field(
        16, ge=1, le=1024, description="Patch Drop, Patch Mixing: side of a patch in pixels of the network's input"
    )
    dropped: Shares = Field(
        (0.0, 0.8), description="Patch Drop, Patch Mixing: range of the share of patches that are hidden"
    )
    mixup_alpha: float = Field(0.2, gt=0, description="MixUp: Beta(alpha, alpha) draws the weight")
    patch_mixing_label: Literal["kept", "mixed"] = Field(
        "kept", description="Patch Mixing: kept: the occluded image's; mixed: both images' by area, as Lee et al. do"
    )
    twin_features: Literal["occluded", "clean"] = Field(
        "occluded",
        description="sd_features: twins are occluded, with features of their own; clean: twins are originals",
    )
    head: Literal["new", "pretrained"] = Field(
        "new", description="pretrained: start from the rows of the run's classes in the weights' ImageNet-1k head"
    )
    fusion: Literal["concat", "sum", "gated", "attention"] = Field("concat", description="of l_f and l_d into l_a")
    feature_norm: Literal["layer", "channels"] = Field(
        "layer",
        description="of l_d; layer: each row over its channels; channels: each channel by its moments in training",
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="of the network's passes; float32: exact, no TF32; weights and optimiser are always float32",
    )
    compile: bool = Field(False, description="torch.compile of the backbone: minutes at the start, faster steps after")

    def rate(self, method_name: str | None, backbone: str) -> float:
        """The learning rate of a method with a backbone."""
        return self.learning_rates.get(method_name or "", {}).get(backbone, self.learning_rate)

    @model_validator(mode="before")
    @classmethod
    def _originals(cls, given: Any) -> Any:
        """`originals: false`, the setting of earlier versions and of their models' records, is `twins: 1`."""
        if not isinstance(given, dict) or not isinstance(given.get("originals"), bool):
            return given
        others = {key: value for key, value in given.items() if key != "originals"}
        return others if given["originals"] else {"twins": 1.0} | others

    @model_serializer(mode="wrap")
    def _without_empty(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `learning_rates` and `labels` without entries, so that what was made before they existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key not in ("learning_rates", "labels") or value}

    @model_validator(mode="after")
    def _labels_of_rows(self) -> Self:
        known = (*NAMES, PRETRAINED.name, *self.backbones)
        unknown = next((name for name in self.labels if name not in known), None)
        if unknown is not None:
            raise ValueError(
                f"labels has one for {unknown!r}, which is no method ({', '.join(NAMES)}, {PRETRAINED.name}) and no backbone of "
                f"the run ({', '.join(self.backbones)}){nearest(unknown, known)}"
            )
        return self

    @model_validator(mode="after")
    def _rates_of_backbones(self) -> Self:
        unknown = [name for rates in self.learning_rates.values() for name in rates if name not in self.backbones]
        if unknown:
            raise ValueError(
                f"learning_rates has a rate for {unknown[0]!r}, which is no backbone of the run "
                f"({', '.join(self.backbones)}){nearest(unknown[0], self.backbones)}"
            )
        return self

    @model_validator(mode="after")
    def _rows_for_every_device(self) -> Self:
        if self.gpus > self.batch_size:
            raise ValueError(f"gpus is {self.gpus}, more than the {self.batch_size} images of a batch; lower it")
        return self

    @model_validator(mode="after")
    def _halves_alone(self) -> Self:
        # A device that runs out in a backward pass cannot tell the others, which already wait for its gradients.
        if self.halve and self.gpus > 1:
            raise ValueError(
                f"halve is true and gpus is {self.gpus}; devices that share a batch cannot halve it one by one, so set "
                "`accumulate` to a number and halve to false, or gpus to 1"
            )
        return self

    @field_validator("methods", "seeds")
    @classmethod
    def _unique(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("has a value twice; name each once")
        return values


class TrainStage(Section):
    """The settings that `dfeat train` depends on."""

    backbone: Backbone
    training: TrainingSettings = TrainingSettings()
    partner_seed: Seed = Field(0, description="occlusion.seed, which draws whose pixels replace hidden ones")

    @field_serializer("training", mode="wrap")
    def _without_later_defaults(
        self, training: TrainingSettings, written: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Omit a setting beyond the first ones while it has its default, so that models trained before it still match."""
        plain: dict[str, Any] = written(training)
        default = TrainingSettings()
        plain["originals"] = plain["twins"] < 1
        if plain["twins"] in (1, default.twins):
            del plain["twins"]
        return {
            key: value
            for key, value in plain.items()
            if key in _FIRST or getattr(training, key) != getattr(default, key)
        }


_FIRST: Final = frozenset((
    "methods", "backbones", "seeds", "image_size", "epochs", "batch_size", "gpus", "accumulate", "learning_rate",
    "momentum", "weight_decay", "schedule", "originals", "crop_scale", "flip", "inpainted", "alpha", "beta", "mask_image",
    "cutmix_alpha", "twin_features", "head", "fusion", "precision", "compile",
))  # fmt: skip
"""The settings that every model trained so far records. Frozen: a new setting is not added here."""
