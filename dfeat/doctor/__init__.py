"""What would spoil a run, found before anything is computed: data, counts, weights, disk, time, versions.

What enters: the settings, and what is on disk. What leaves: a `Report`, whose `faults` are what would spoil the
run, one sentence each; notes on what is made already are no faults. Nothing is decoded, and no torch is imported unless
it is asked for. `missing_inputs` is the part that is quick enough to be asked each time Snakemake reads its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from dfeat.config import Settings
from dfeat.costs.estimate import Cost, estimate
from dfeat.costs.measured import speeds_of
from dfeat.costs.wall import devices_here
from dfeat.doctor.inpaintings import InpaintReport, look_at_inpaintings
from dfeat.doctor.machine import bytes_in, compiler_faults, devices_held, devices_seen, free_bytes, installed_versions
from dfeat.doctor.sets import (
    HiddenReport,
    SetReport,
    expected_set,
    look_at_index,
    look_at_parts,
    look_at_set,
    look_at_sets,
    sets_in_run,
)
from dfeat.doctor.weights import WeightsReport, look_at_weights
from dfeat.errors import UserError
from dfeat.places import RESULTS, Place

FOLDERS: Final = {
    "pixels": "data", "inpaint": "diffusion/inpaint", "latents": "diffusion/latents", "features": "diffusion/features",
    "training": "training", "evaluation": "evaluation",
}  # fmt: skip
"""Where a step's files go in results/<run>."""

At = ParamSpec("At")
Found = TypeVar("Found")


@dataclass
class Report:
    """All that `dfeat doctor` has to say. `already` are bytes that earlier steps left, `free` those of the disk; `devices`
    are those of the machine, `usable` those that a run may use."""

    run: str
    sets: list[SetReport]
    hidden: HiddenReport | None
    inpaintings: InpaintReport | None
    weights: list[WeightsReport]
    costs: list[Cost]
    already: dict[str, int]
    free: int
    devices: list[str]
    usable: list[str]
    leases: list[str]
    packages: dict[str, str]
    faults: list[str]


def examine(settings: Settings, ask_torch: bool = False) -> Report:
    """Look at everything a run needs; `ask_torch` lets torch say which devices there are."""
    folder = RESULTS / settings.run
    sets = look_at_sets(settings, folder)
    weights = look_at_weights(settings, digest=True)
    costs = estimate(settings, {found.name: found.count for found in sets})
    already, free = _bytes_there(folder, costs), free_bytes(folder)
    faults = [fault for of_set in sets for fault in of_set.faults]
    faults += [fault for of_model in weights for fault in of_model.faults]
    faults += _disk_faults(folder, costs, already, free) + _measured_faults(settings)
    hidden = _or_fault(faults, look_at_parts, settings, Place(folder).parts())
    inpaintings = _or_fault(faults, look_at_inpaintings, settings, Place(folder))
    asked = faults if settings.resources.gpu else []
    devices, packages = _or_fault(asked, devices_seen, ask_torch), installed_versions()
    held = ["not known: the driver does not work"] if devices is None else _or_fault(asked, devices_held)
    faults += compiler_faults(settings, devices or [])
    return Report(
        settings.run,
        sets,
        hidden,
        inpaintings,
        weights,
        costs,
        already,
        free,
        devices or [],
        devices_here(),
        held or [],
        packages,
        faults,
    )


def _or_fault(faults: list[str], look: Callable[At, Found], *at: At.args, **how: At.kwargs) -> Found | None:
    """What `look` finds; None where it raises UserError, whose message is added to `faults`."""
    try:
        return look(*at, **how)
    except UserError as error:
        faults.append(str(error))
        return None


def images_of(settings: Settings) -> dict[str, int]:
    """How many images each set has: those of its index, or as many as are expected, or as there are files."""
    folder = RESULTS / settings.run
    return {found.name: found.count for found in look_at_sets(settings, folder)}


def missing_inputs(settings: Settings) -> list[str]:
    """What would spoil the run, as far as names and small files show it; one sentence each.

    The files of a set that is indexed already may be gone: what was made from them is still good. Those of one that is
    not are counted by their names, which takes a second for the paper's sets.
    """
    return missing_data(settings) + missing_weights(settings)


def missing_weights(settings: Settings, only: Collection[str] | None = None) -> list[str]:
    """The part of `missing_inputs` that is of weights; `only` is that of `look_at_weights`."""
    return [fault for found in look_at_weights(settings, digest=False, only=only) for fault in found.faults]


def missing_data(settings: Settings, read: bool = True) -> list[str]:
    """The part of `missing_inputs` that is of data, time limits and the disk.

    Where `read` is False, sets without an index are passed over: nothing is to be made that reads their files.
    """
    folder = RESULTS / settings.run
    faults: list[str] = []
    images: dict[str, int] = {}
    classes: tuple[str, ...] = ()
    for name, chosen in sets_in_run(settings):
        runs = [folder, *([RESULTS / settings.base] if settings.base else [])]
        indexed = next(filter(None, (look_at_index(name, chosen, Place(run).data(name)) for run in runs)), None)
        if indexed is None and (settings.data.drawn or not read):
            images[name] = expected_set(name, chosen).count  # what is drawn may be drawn anew before it is indexed
            continue
        found = indexed or look_at_set(name, chosen, settings, folder, classes)
        classes = found.wnids if name == "train" else classes
        images[name] = found.count
        faults += found.faults
    costs = estimate(settings, images)
    return (
        faults
        + _measured_faults(settings)
        + _disk_faults(folder, costs, _bytes_there(folder, costs), free_bytes(folder))
    )


def _measured_faults(settings: Settings) -> list[str]:
    """Why time limits cannot be had from `resources.measured`, if they cannot."""
    try:
        speeds_of(settings)
    except UserError as error:
        return [str(error)]
    return []


def _bytes_there(folder: Path, costs: list[Cost]) -> dict[str, int]:
    """Bytes that each step has left already."""
    return {cost.step: bytes_in(folder / FOLDERS[cost.step]) for cost in costs}


def _disk_faults(folder: Path, costs: list[Cost], already: dict[str, int], free: int) -> list[str]:
    """Whether what is still to be written fits on the disk."""
    needed = sum(max(0, cost.bytes - already[cost.step]) for cost in costs)
    if needed <= free:
        return []
    return [
        f"{folder} will need about {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB are free there; make room, or "
        "make results a link to a larger disk"
    ]
