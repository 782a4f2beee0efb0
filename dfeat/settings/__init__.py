"""The settings of a run: one pydantic model for each section of config.yaml, and the only place defaults live.

What enters: the mapping read from config.yaml with its overlays. What leaves: a frozen `Settings`, whose
sections are handed to the verbs as JSON. `config_schema()` is the JSON Schema of the same models. Defaults
are the paper's (arXiv text, section in brackets); docs/choices.md discusses what the paper leaves open.
"""

from __future__ import annotations

from dfeat.settings.base import (
    METHODS,
    Method,
    Name,
    Precision,
    Protocol,
    Section,
    Share,
    Study,
    Timestep,
    parse,
    safe_inside,
    without_nulls,
)
from dfeat.settings.data import DataSettings, DrawnData, EvaluationSet, OcclusionSettings, TrainSet
from dfeat.settings.diffusion import DiffusionSettings, FeatureSettings, InpaintSettings, ModelSource
from dfeat.settings.run import (
    Ablation,
    ReportSettings,
    ResourceSettings,
    Settings,
    ablation_points,
    config_schema,
    table_settings,
)
from dfeat.settings.stages import (
    EvaluateStage,
    FeaturesStage,
    InpaintStage,
    LatentsStage,
    PartsStage,
    PixelsStage,
    PretrainedStage,
    TrainStage,
    stage_settings,
)
from dfeat.settings.training import Backbone, EvaluationSettings, TrainingSettings

__all__ = [
    "METHODS",
    "Ablation",
    "Backbone",
    "DataSettings",
    "DiffusionSettings",
    "DrawnData",
    "EvaluateStage",
    "EvaluationSet",
    "EvaluationSettings",
    "FeatureSettings",
    "FeaturesStage",
    "InpaintSettings",
    "InpaintStage",
    "LatentsStage",
    "Method",
    "ModelSource",
    "Name",
    "OcclusionSettings",
    "PartsStage",
    "PixelsStage",
    "Precision",
    "PretrainedStage",
    "Protocol",
    "ReportSettings",
    "ResourceSettings",
    "Section",
    "Settings",
    "Share",
    "Study",
    "Timestep",
    "TrainSet",
    "TrainStage",
    "TrainingSettings",
    "ablation_points",
    "config_schema",
    "parse",
    "safe_inside",
    "stage_settings",
    "table_settings",
    "without_nulls",
]
