"""The section `evaluation`, and the settings that `dfeat evaluate` depends on."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_serializer, model_serializer, model_validator

from dfeat.data.settings import CROP_PCT, IMAGE_SIZE, CropShare, Levels, Study
from dfeat.errors import UserError
from dfeat.occlusion.settings import OcclusionSettings
from dfeat.section import BatchSize, ImageSize, Name, Section
from dfeat.training.settings import Backbone


class EvaluationSettings(Section):
    """How models are evaluated [Sec. 4.2]."""

    crop_pct: CropShare = Field(CROP_PCT, description="share of the short side that the central crop keeps")
    batch_size: BatchSize = 128
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32", description="of the network's passes; float32: exact, no TF32; weights are always float32"
    )


class JudgeStage(EvaluationSettings):
    """The settings that `dfeat judge` depends on."""

    @model_serializer(mode="wrap")
    def _omit_later_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_later_defaults(serialize(self))


class EvaluateStage(Section):
    """The settings that `dfeat evaluate` depends on."""

    occlusion: OcclusionSettings = OcclusionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    levels: dict[Name, Levels] = Field(default_factory=dict)
    studies: dict[Name, Study] = Field(
        default_factory=dict, description="sets whose levels are those of a study, not of occlusion"
    )

    @property
    def sets(self) -> list[str]:
        """The sets to evaluate on. UserError where there is none."""
        if not self.levels:
            remedy = "give each set its levels of occlusion, e.g. {'dfeat_real': [0]}"
            raise UserError(f"the settings' `levels` have no set; {remedy}")
        return list(self.levels)

    def of_set(self, set_name: str) -> Self:
        """The settings of an evaluation of this set alone."""
        studies = {key: study for key, study in self.studies.items() if key == set_name}
        return self.model_copy(update={"levels": {set_name: self.levels[set_name]}, "studies": studies})

    @field_serializer("evaluation", mode="wrap")
    def _omit_later_defaults(
        self, evaluation: EvaluationSettings, serialize: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        return _without_later_defaults(serialize(evaluation))


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


def _without_later_defaults(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Omit `precision` at its default, so that what was made before the setting existed still matches."""
    return {key: value for key, value in evaluation.items() if (key, value) != ("precision", "float32")}
