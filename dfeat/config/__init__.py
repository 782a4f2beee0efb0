"""config.yaml as a whole: the sections composed, and the part of them that each stage is given.

What enters: the mapping read from config.yaml with its overlays. What leaves: a frozen `Settings`, whose sections are
handed to the verbs as JSON. `config_schema()` is the JSON Schema of the same models. Each section stands beside the
component it sets, with its defaults: the paper's (section in brackets); docs/choices.md discusses what it leaves open.
"""

from __future__ import annotations

from dfeat.config.run import (
    LEARNING_RATE,
    RATE_KEY,
    Ablation,
    ReportSettings,
    ResourceSettings,
    Settings,
    ablation_points,
    config_schema,
    table_settings,
)
from dfeat.config.stages import stage_settings

__all__ = [
    "LEARNING_RATE", "RATE_KEY", "Ablation", "ReportSettings", "ResourceSettings", "Settings", "ablation_points",
    "config_schema", "stage_settings", "table_settings",
]  # fmt: skip
