"""Whether the names of a run's sets, backbones and grids stay apart: from each other, and from what every run has.

What enters: the settings. What leaves: one sentence, or nothing. Names become folders, logs and targets; some file
systems do not tell capital letters from small ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from dfeat.methods import PRETRAINED
from dfeat.places import HOLDOUT, OCCLUDED, TRAIN

if TYPE_CHECKING:
    from dfeat.config.run import Settings

_STEPS: Final = ("data", "occlusion", "diffusion", "training", "evaluation", "report")
RESERVED: Final = frozenset((
    *_STEPS, "labels", "raw", "logs", "benchmarks", "ablation", TRAIN, OCCLUDED, HOLDOUT, PRETRAINED.name,
))  # fmt: skip
"""Folders and steps of every run: no set and no backbone has such a name."""


def fault_of_names(settings: Settings) -> str:
    """The first name that would be taken for another, in one sentence; empty where there is none."""
    sets, backbones, grids = settings.data.evaluation, settings.training.backbones, settings.ablation
    own = {TRAIN, OCCLUDED, HOLDOUT}
    named = {"data.evaluation": [name for name in sets if name not in own], "training.backbones": list(backbones)}
    for section, names in named.items():
        taken = next((name for name in names if name.lower() in RESERVED), None)
        if taken:
            return f"{section} has one named {taken!r}, as a folder or step of every run is; give it another name"
    for section, names in {**named, "ablation": list(grids)}.items():
        pair = _alike(names)
        if pair:
            return (
                f"{section} has {pair[0]!r} and {pair[1]!r}, which differ in capital letters alone; rename one of them"
            )
    figure = next((name for name in grids if f"{name}_figure" in grids), None)
    if figure is not None:
        return f"ablation.{figure}_figure would write the log of the figure of ablation.{figure}; rename one of the two"
    return _same_log(settings)


def _alike(names: Iterable[str]) -> tuple[str, str] | None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            return other, name
    return None


def _same_log(settings: Settings) -> str:
    """Two trainings whose log would have one name, METHOD_BACKBONE: sd_features of placebo_x, sd_features_placebo of x."""
    methods = dict.fromkeys(
        [*settings.training.methods, *(one for grid in settings.ablation.values() for one in grid.methods)]
    )
    seen: dict[str, str] = {}
    for method in methods:
        for backbone in settings.training.backbones:
            other = seen.setdefault(f"{method}_{backbone}".lower(), backbone)
            if other != backbone:
                return (
                    f"training.backbones has {other!r} and {backbone!r}: {method} and another method would write the log "
                    f"{method}_{backbone} of both; rename one of them"
                )
    return ""
