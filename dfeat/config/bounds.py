"""How large a run may be: its jobs, the files that one job names, and the settings that a verb is handed.

What enters: the settings. What leaves: one sentence with the number found, the number allowed and the setting to lower,
or nothing. Every bound is far above what a run needs and far below what keeps a plan from ever ending.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from dfeat.config.shards import shard_count
from dfeat.diffusion.settings import MOST_SHARDS
from dfeat.methods import needed
from dfeat.places import HOLDOUT, OCCLUDED, TRAIN, level_view
from dfeat.storage.provenance import as_argument

if TYPE_CHECKING:
    from dfeat.config.run import Ablation, Settings

MOST_JOBS: Final = 50_000
MOST_POINTS: Final = 1_000
MOST_BYTES: Final = 120_000
"""Of settings as JSON; Linux gives one argument of a command 131,072 bytes (MAX_ARG_STRLEN)."""


def fault_of_size(settings: Settings) -> str:
    """What is too large about a run, in one sentence; empty where nothing is."""
    return _grid_fault(settings) or _file_fault(settings) or _job_fault(settings) or _text_fault(settings)


def has_long_commands(settings: Settings) -> bool:
    """Whether a command may have 64 KiB, which Snakemake writes to a script and names unquoted in a shell."""
    quoted = shlex.quote(as_argument(settings)).replace("'", r"'\''")
    return len(quoted) > 30_000 or max(_files(settings).values()) > 100


def jobs_of(settings: Settings) -> dict[str, int]:
    """Jobs of a run by the settings that multiply them; tables and figures, a few dozen, are left out."""
    training, files = settings.training, _files(settings)
    models = len(training.methods) * len(training.backbones) * len(training.seeds)
    return {
        "training.methods x training.backbones x training.seeds x data.evaluation": models
        * (1 + len(settings.data.evaluation)),
        "data.evaluation": 2 * len(settings.data.evaluation),
        "diffusion.inpaint.shards": files["inpaint"],
        "diffusion.features.shards x views of the sets": 2 * (files["train"] + sum(_test_files(settings).values())),
    }


def _files(settings: Settings) -> dict[str, int]:
    """Files that one command names: the shards of inpaintings, of training features, and of the features of a test set."""
    needs = _needs(settings)
    train = sum(shard_count(settings, "features", view) for view in (TRAIN, OCCLUDED))
    return {
        "inpaint": shard_count(settings, "inpaint", TRAIN) if "inpainted" in needs else 0,
        "train": train if "features" in needs else 0,
        "test": max(_test_files(settings).values(), default=0),
    }


def _test_files(settings: Settings) -> dict[str, int]:
    """The shards of the features of each test set, at all its levels."""
    if "features" not in _needs(settings):
        return {}
    test = {name: one.levels for name, one in settings.data.evaluation.items()}
    if settings.data.train.holdout:
        test[HOLDOUT] = settings.holdout.levels
    return {
        name: sum(shard_count(settings, "features", level_view(name, level)) for level in levels)
        for name, levels in test.items()
    }


def _needs(settings: Settings) -> Collection[str]:
    grids = [name for grid in settings.ablation.values() for name in grid.methods]
    return needed((*settings.training.methods, *grids))


def fault_of_grid(settings: Settings, name: str) -> str:
    """What is too large about a grid that is asked for; those that are not cost nothing."""
    grid, training = settings.grids[name], settings.training
    models = _points(grid) * len(grid.methods) * len(training.backbones) * len(training.seeds)
    jobs = models * (1 + len(settings.measured_on(name)))
    if jobs <= MOST_JOBS:
        return ""
    return (
        f"ablation.{name} would have {jobs:,} jobs, more than {MOST_JOBS:,}; take values out of its grid, or shorten its "
        "methods, training.backbones or training.seeds"
    )


def _points(grid: Ablation) -> int:
    return math.prod(map(len, grid.grid.values()))


def _grid_fault(settings: Settings) -> str:
    for name, grid in settings.ablation.items():
        if _points(grid) > MOST_POINTS:
            return (
                f"ablation.{name}.grid has {_points(grid):,} points, more than the {MOST_POINTS:,} that a grid may have; "
                "take values out of it"
            )
    return ""


def _file_fault(settings: Settings) -> str:
    keys = {
        "inpaint": "diffusion.inpaint.shards",
        "train": "diffusion.features.shards",
        "test": "diffusion.features.shards",
    }
    for kind, count in _files(settings).items():
        if count > MOST_SHARDS:
            return (
                f"one job would read {count:,} files of {'inpaintings' if kind == 'inpaint' else 'features'}, more than the "
                f"{MOST_SHARDS:,} that a command may name; set {keys[kind]} to a smaller number of files, or lower "
                "what multiplies them (images, copies, views, levels)"
            )
    return ""


def _job_fault(settings: Settings) -> str:
    jobs = jobs_of(settings)
    if sum(jobs.values()) <= MOST_JOBS:
        return ""
    most = max(jobs, key=lambda key: jobs[key])
    return (
        f"the run would have {sum(jobs.values()):,} jobs, more than {MOST_JOBS:,}; {jobs[most]:,} of them come from {most}: "
        "lower these"
    )


def _text_fault(settings: Settings) -> str:
    size = len(as_argument(settings))
    if size <= MOST_BYTES:
        return ""
    return (
        f"{_heaviest(settings.model_dump(mode='json'))} is too long: the settings have {size:,} characters as JSON, and a "
        f"command takes {MOST_BYTES:,}; shorten it"
    )


def _heaviest(plain: Any) -> str:
    """The key that holds most of the text, as deep as one key holds more than half of what is above it."""
    key: list[str] = []
    while isinstance(plain, dict) and plain:
        sizes = {name: len(json.dumps(value)) for name, value in plain.items()}
        name = max(sizes, key=lambda one: sizes[one])
        if key and sizes[name] * 2 < sum(sizes.values()):
            break
        key.append(name)
        plain = plain[name]
    return repr(".".join(key))
