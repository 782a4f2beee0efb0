"""The part of the settings that each verb's result depends on, and no more. Changing any other setting does not rerun it."""

from __future__ import annotations

from typing import Any

from dfeat import methods
from dfeat.config.run import Settings
from dfeat.data.settings import PixelsStage
from dfeat.diffusion.settings import FeaturesStage, InpaintStage, LatentsStage
from dfeat.evaluation.settings import EvaluateStage, JudgeStage, PretrainedStage
from dfeat.occlusion.settings import PartsStage
from dfeat.section import Section
from dfeat.training.settings import TrainingSettings, TrainStage


def stage_settings(
    settings: Settings,
    stage: str,
    backbone: str | None = None,
    method: str | None = None,
    set_name: str | None = None,
) -> Section:
    """The part of `settings` that a verb depends on, as the stage's own model.

    For `train` the lists of jobs (methods, backbones, seeds) are constants, and settings of other methods have their
    defaults, so adding a job or changing another method's setting retrains nothing. `test_latents` is `latents` of an
    evaluation set; `evaluate` and `pretrained` are of all sets, or of the one that is given.
    """
    diffusion, occlusion = settings.diffusion, settings.occlusion
    model = {"model": diffusion.model, "batch_size": diffusion.batch_size, "compile": diffusion.compile}
    if stage == "parts":
        return PartsStage(unit=occlusion.unit, share=occlusion.share, min_visible=occlusion.min_visible)
    of_tests = occlusion.model_copy(update={"min_visible": 0})
    if stage == "judge":
        return JudgeStage(**dict(settings.evaluation))
    if stage == "pixels":
        return PixelsStage(short_side=settings.data.short_side, interpolation=settings.data.interpolation)
    if stage == "inpaint":
        model["model"] = diffusion.inpainting_model
        return InpaintStage(**model, resolution=diffusion.resolution, inpaint=diffusion.inpaint)
    if stage in ("latents", "test_latents"):
        known = settings.data.evaluation.get(set_name) if set_name else None
        return LatentsStage(
            **model, resolution=diffusion.resolution, occlusion=of_tests, study=known.study if known else None,
            image_size=settings.training.image_size, crop_pct=settings.evaluation.crop_pct,
            **(_views_of(settings) if stage == "latents" else {}),
        )  # fmt: skip
    if stage == "features":
        return FeaturesStage(**model, features=diffusion.features)
    if stage == "train":
        assert backbone is not None
        unread = _unread(method) if method else frozenset()
        defaults = {name: value for name, value in TrainingSettings() if name in unread}
        own = {"learning_rate": settings.training.rate(method, backbone), "learning_rates": {}, "labels": {}}
        alone = settings.training.model_copy(
            update={"methods": methods.PAPER_NAMES, "backbones": {}, "seeds": (0,), **own, **defaults}
        )
        partner_seed = 0 if "partner_seed" in unread else occlusion.seed
        return TrainStage(backbone=settings.training.backbones[backbone], training=alone, partner_seed=partner_seed)
    levels = {name: chosen.levels for name, chosen in settings.data.evaluation.items()}
    studies = {name: chosen.study for name, chosen in settings.data.evaluation.items() if chosen.study}
    evaluate = EvaluateStage(occlusion=of_tests, evaluation=settings.evaluation, levels=levels, studies=studies)
    if set_name is not None:
        evaluate = evaluate.of_set(set_name)
    if stage == "pretrained":
        assert backbone is not None
        chosen, size = settings.training.backbones[backbone], settings.training.image_size
        return PretrainedStage(**dict(evaluate), backbone=chosen, image_size=size)
    assert stage == "evaluate", f"no stage {stage}"
    return evaluate


def _unread(name: str) -> frozenset[str]:
    """The settings of the train stage that only other methods depend on; they are given their defaults."""
    own, listed = methods.method(name), {setting for one in methods.METHODS for setting in one.reads}
    twins = set() if own.augments else {"twins"}
    return frozenset(listed - set(own.reads) | twins)


def _views_of(settings: Settings) -> dict[str, Any]:
    """The settings that draw the crops of a training image's views; empty if there is one view."""
    if settings.diffusion.views == 1:
        return {}
    training = settings.training
    return {"views": settings.diffusion.views, "crop_scale": training.crop_scale, "flip": training.flip}
