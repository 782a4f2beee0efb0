"""What each verb is given: the part of the settings that its result depends on, and no more."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field, SerializerFunctionWrapHandler, field_serializer, model_validator

from dfeat.settings.base import METHODS, BatchSize, ImageSize, Method, Name, Section, Share, Study
from dfeat.settings.data import HiddenShare, Interpolation, Levels, OcclusionSettings, ShortSide, Unit
from dfeat.settings.diffusion import FeatureSettings, InpaintSettings, ModelSource, Resolution, Views
from dfeat.settings.run import Settings
from dfeat.settings.training import Backbone, CropScale, CropShare, EvaluationSettings, TrainingSettings

_DEFAULT: Final = Settings()
"""Where a stage's defaults come from: each stands once, in its section."""


class PartsStage(Section):
    """What `dfeat parts` is given: a change of anything else does not choose parts again."""

    unit: Unit = _DEFAULT.occlusion.unit
    share: HiddenShare = _DEFAULT.occlusion.share


class PixelsStage(Section):
    """What `dfeat pixels` is given."""

    short_side: ShortSide = _DEFAULT.data.short_side
    interpolation: Interpolation = _DEFAULT.data.interpolation


class InpaintStage(Section):
    """What `dfeat inpaint` is given."""

    model: ModelSource = ModelSource()
    resolution: Resolution = _DEFAULT.diffusion.resolution
    batch_size: BatchSize = _DEFAULT.diffusion.batch_size
    compile: bool = _DEFAULT.diffusion.compile
    inpaint: InpaintSettings = InpaintSettings()

    @field_serializer("inpaint", mode="wrap")
    def _without_an_only_copy(self, inpaint: InpaintSettings, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One copy goes without saying, so that what was made before there could be more is still what is asked for."""
        plain: dict[str, Any] = written(inpaint)
        return {key: value for key, value in plain.items() if key != "copies" or value > 1}


class LatentsStage(Section):
    """What `dfeat latents` is given."""

    model: ModelSource = ModelSource()
    resolution: Resolution = _DEFAULT.diffusion.resolution
    batch_size: BatchSize = _DEFAULT.diffusion.batch_size
    occlusion: OcclusionSettings = OcclusionSettings()
    study: Study | None = None
    image_size: ImageSize = _DEFAULT.training.image_size
    crop_pct: CropShare = _DEFAULT.evaluation.crop_pct
    compile: bool = _DEFAULT.diffusion.compile
    views: Views = _DEFAULT.diffusion.views
    view_seed: int = 0
    crop_scale: CropScale = _DEFAULT.training.crop_scale
    flip: Share = _DEFAULT.training.flip


class FeaturesStage(Section):
    """What `dfeat features` is given."""

    model: ModelSource = ModelSource()
    batch_size: BatchSize = _DEFAULT.diffusion.batch_size
    compile: bool = _DEFAULT.diffusion.compile
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
    levels: dict[Name, Levels] = Field(default_factory=dict)
    studies: dict[Name, Study] = Field(default_factory=dict, description="sets whose levels mean something else")


class PretrainedStage(EvaluateStage):
    """What `dfeat evaluate` is given for a backbone before fine-tuning."""

    backbone: Backbone
    image_size: ImageSize = _DEFAULT.training.image_size

    @model_validator(mode="before")
    @classmethod
    def _something_to_evaluate(cls, given: Any) -> Any:
        if isinstance(given, dict) and "backbone" not in given:
            raise ValueError(
                "has no 'backbone' to evaluate before fine-tuning, and --model, a folder that `dfeat train` wrote, is "
                "missing; give one of the two"
            )
        return given


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
        model["model"] = diffusion.inpainting_model
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


def _views_of(settings: Settings) -> dict[str, Any]:
    """What draws the crops of a training image's views; nothing of it is handed on where there is one view."""
    if settings.diffusion.views == 1:
        return {}
    training = settings.training
    return {"views": settings.diffusion.views, "crop_scale": training.crop_scale, "flip": training.flip}
