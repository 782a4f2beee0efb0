"""The section `evaluation`, and the settings that `dfeat evaluate` depends on."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from dfeat.data.settings import CROP_PCT, IMAGE_SIZE, CropShare, Levels, Study
from dfeat.occlusion.settings import OcclusionSettings
from dfeat.section import BatchSize, ImageSize, Name, Section
from dfeat.training.settings import Backbone


class EvaluationSettings(Section):
    """How models are evaluated [Sec. 4.2]."""

    crop_pct: CropShare = Field(CROP_PCT, description="share of the short side that the central crop keeps")
    batch_size: BatchSize = 128


class EvaluateStage(Section):
    """The settings that `dfeat evaluate` depends on."""

    occlusion: OcclusionSettings = OcclusionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    levels: dict[Name, Levels] = Field(default_factory=dict)
    studies: dict[Name, Study] = Field(
        default_factory=dict, description="sets whose levels are those of a study, not of occlusion"
    )


class PretrainedStage(EvaluateStage):
    """The settings that `dfeat evaluate` depends on for a backbone before fine-tuning."""

    backbone: Backbone
    image_size: ImageSize = IMAGE_SIZE

    @model_validator(mode="before")
    @classmethod
    def _has_backbone(cls, given: Any) -> Any:
        if isinstance(given, dict) and "backbone" not in given:
            raise ValueError(
                "has no 'backbone' to evaluate before fine-tuning, and --model, a folder that `dfeat train` wrote, is "
                "missing; give one of the two"
            )
        return given
