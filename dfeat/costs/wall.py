"""How long a run takes on several devices: the jobs of each step side by side, one step after another.

What enters: the costs of the steps, the cards, and how many devices a training takes. What leaves: a `Wall`. An estimate like
those that it is made of; the jobs of a step are taken for equally long.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from dfeat.config import Settings
from dfeat.costs.efficiency import NOTHING, Range
from dfeat.costs.estimate import Cost, hours
from dfeat.costs.measured import Speeds
from dfeat.costs.text import NO_BREAK, filled
from dfeat.devices.cards import card_of
from dfeat.devices.driver import PRETENDED, visible_devices
from dfeat.errors import MachineError
from dfeat.progress import duration


@dataclass(frozen=True)
class Wall:
    """Hours of each step on some devices, whether these are the machine's own, and those of it that have no figures."""

    devices: tuple[str, ...]
    here: bool
    steps: dict[str, Range]
    unknown: tuple[str, ...] = ()

    @property
    def hours(self) -> Range:
        """Hours of the whole run."""
        return reduce(Range.plus, self.steps.values(), NOTHING)

    def plain(self) -> dict[str, Any]:
        """The same for programs."""
        steps = {step: one._asdict() for step, one in self.steps.items()}
        return {"devices": list(self.devices), "here": self.here, "hours": self.hours._asdict(), "steps": steps}

    def lines(self) -> list[str]:
        """The same for people."""
        counted = Counter(self.devices).items()
        on = " and ".join(f"{count} x {name}" for name, count in counted)
        if len(self.devices) == 1:
            on = f"{'the' if self.here else 'one'} {self.devices[0]}"
        elif self.here:
            on = f"the {on}"
        low, central, high = (duration(3600 * end) for end in self.hours)
        steps = ", ".join(
            f"{step} {duration(3600 * one.central)}".replace(" ", NO_BREAK) for step, one in self.steps.items()
        )
        return [
            *filled(f"On {on}{' here' if self.here else ''}: about {central} ({low} to {high}), an estimate."),
            *filled(f"Its steps, one after another: {steps}.", "  ", "  "),
            *(f"no figures for {name}: see `dfeat plan --tflops` and `--calibrate`" for name in self.unknown),
        ]


def devices_here() -> list[str]:
    """The names of the devices that a run here may use; none where the driver does not work, of which `dfeat doctor` tells."""
    try:
        return [device.name for device in visible_devices() if device.name != PRETENDED]
    except MachineError:
        return []


def wall_time(
    settings: Settings, costs: Sequence[Cost], speeds: Speeds, count: int | None, here: Sequence[str]
) -> Wall:
    """Hours on `count` devices of the given speeds; where no count is given, on the known cards of `here`, or on one."""
    known = [card for name in here if (card := card_of(name))] if count is None else []
    measured = {speeds.card: speeds}
    devices = [measured.get(card, Speeds(card)) for card in known] or [speeds] * (count or 1)
    steps = {
        cost.step: _side_by_side(cost, devices, settings.training.gpus if cost.step == "training" else 1)
        for cost in costs
        if cost.flops
    }
    unknown = () if count else tuple(dict.fromkeys(name for name in here if not card_of(name)))
    return Wall(tuple(one.card for one in devices), bool(known), steps, unknown)


def _side_by_side(cost: Cost, devices: Sequence[Speeds], together: int) -> Range:
    """Hours until the last of a step's jobs has ended, each on the devices that would end it first."""
    teams = [devices[start : start + together] for start in range(0, len(devices), together)]
    teams = [team for team in teams if len(team) == together] or [devices]
    jobs = [[hours(cost.flops / cost.jobs / len(team), cost.work, one, jobs=1) for one in team] for team in teams]
    slowest = [max(job, key=lambda one: one.central) for job in jobs]
    return Range(*(_last_end([job[end] for job in slowest], cost.jobs) for end in range(len(Range._fields))))


def _last_end(lengths: Sequence[float], jobs: int) -> float:
    """When the last of so many equal jobs ends, where a job takes `lengths` on each of the teams."""
    waiting = [(length, team) for team, length in enumerate(lengths)]
    heapq.heapify(waiting)
    last = 0.0
    for _ in range(jobs):
        end, team = heapq.heappop(waiting)
        last = max(last, end)
        heapq.heappush(waiting, (end + lengths[team], team))
    return last
