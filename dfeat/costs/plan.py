"""What the configured run takes on a named device: FLOPs, bytes and GPU-hours of each step and method, and what would be
faster.

What enters: the settings, the number of images of each set, and the speeds of a card. What leaves: a `Plan`, as text for
people and as plain values for programs. Estimates, computed before anything is; hours are low, central and high.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any, Final

from dfeat.config import Settings
from dfeat.config.files import lay_over
from dfeat.costs.counts import is_small
from dfeat.costs.efficiency import NOTHING, Range, arithmetic_of
from dfeat.costs.estimate import Cost, estimate
from dfeat.costs.measured import Speeds
from dfeat.costs.per_method import MethodCost, per_method
from dfeat.costs.text import aligned, filled
from dfeat.costs.wall import Wall, wall_time
from dfeat.devices.cards import Card
from dfeat.errors import UserError
from dfeat.section import parse

_SOLVER: Final = {"scheduler": "dpmsolver++", "steps": 25}
_REUSE: Final = _SOLVER | {"cache_interval": 3}
_PARTLY_GUIDED: Final = _REUSE | {"guidance_interval": [0, 0.8]}
FASTER: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("diffusion.inpaint: dpmsolver++, 25 steps", {"diffusion": {"inpaint": _SOLVER}}),
    ("the same and cache_interval: 3", {"diffusion": {"inpaint": _REUSE}}),
    ("the same and guidance_interval: [0, 0.8]", {"diffusion": {"inpaint": _PARTLY_GUIDED}}),
    ("diffusion.model.precision: {half}", {"diffusion": {"model": {"precision": "{half}"}}}),
    ("training.precision: bfloat16", {"training": {"precision": "bfloat16"}}),
    ("training.precision: bfloat16, training.compile: true", {"training": {"precision": "bfloat16", "compile": True}}),
)
"""Settings that cost less than the paper's, each with what it changes; `{half}` is the device's 16-bit type."""


SMALL: Final = 16
"""GB of a card for which the batch sizes of config.yaml are too large."""


@dataclass(frozen=True)
class Saving:
    """What a faster setting takes off the whole run: FLOPs, and hours on the device."""

    setting: str
    flops: float
    hours: Range


@dataclass(frozen=True)
class Plan:
    """The steps of a run with their costs, on one device, and how long they take on several."""

    run: str
    speeds: Speeds
    images: Mapping[str, int]
    costs: list[Cost]
    methods: list[MethodCost]
    savings: list[Saving]
    wall: Wall

    @property
    def hours(self) -> Range:
        """Hours of all steps on one device."""
        return _sum(cost.hours(self.speeds) for cost in self.costs)

    @property
    def sources(self) -> list[str]:
        """Where the speeds are from, each source once."""
        return list(dict.fromkeys(self.speeds.of(cost.work).source for cost in self.costs if cost.flops))


def _sum(hours: Iterable[Range]) -> Range:
    return reduce(Range.plus, hours, NOTHING)


def check_planned(settings: Settings) -> None:
    """Raise UserError for a run whose models are not those whose FLOPs are known."""
    if is_small(settings):
        raise UserError(
            f"the run {settings.run!r} has models of its own sizes (the demo's, or backbones with kwargs), and a plan "
            "knows full-size ones only; plan config.yaml, or take such a run's time from its benchmark files"
        )


def make_plan(
    settings: Settings, images: Mapping[str, int], speeds: Speeds, count: int | None = None, here: Sequence[str] = ()
) -> Plan:
    """The plan of a run, and its time on `count` devices, or else on those of `here`, by name.

    Raises UserError for models whose FLOPs are not known.
    """
    check_planned(settings)
    costs = estimate(settings, images)
    methods, savings = per_method(settings, images["train"], speeds), _savings(settings, images, speeds, costs)
    return Plan(settings.run, speeds, images, costs, methods, savings, wall_time(settings, costs, speeds, count, here))


def _savings(settings: Settings, images: Mapping[str, int], speeds: Speeds, costs: list[Cost]) -> list[Saving]:
    """Each faster setting alone, and all of them together; those that save nothing here are left out."""
    half = speeds.peaks.half
    choices = [(name.format(half=half), _with(change, half)) for name, change in FASTER]
    together: dict[str, Any] = {}
    for _, change in choices:
        lay_over(together, deepcopy(change))
    savings = []
    for name, change in [*choices, ("all of these", together)]:
        mapping = settings.model_dump(mode="json")
        lay_over(mapping, change)
        faster = estimate(parse(Settings, mapping), images)
        flops = sum(cost.flops for cost in costs) - sum(cost.flops for cost in faster)
        hours = _sum(cost.hours(speeds) for cost in costs).minus(_sum(cost.hours(speeds) for cost in faster))
        if hours.central > 0:
            savings.append(Saving(name, flops, hours))
    return savings if len(savings) > 2 else savings[:1]


def _with(change: dict[str, Any], half: str) -> dict[str, Any]:
    return {
        key: _with(value, half) if isinstance(value, dict) else half if value == "{half}" else value
        for key, value in change.items()
    }


def as_plain(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "run": plan.run,
        "device": plan.speeds.card,
        "images": dict(plan.images),
        "steps": [asdict(cost) | _computed(cost, plan.speeds) for cost in plan.costs],
        "flops": sum(cost.flops for cost in plan.costs),
        "bytes": sum(cost.bytes for cost in plan.costs),
        "hours": plan.hours._asdict(),
        "sources": plan.sources,
        "methods": [asdict(cost) for cost in plan.methods],
        "wall": plan.wall.plain(),
        "savings": [asdict(saving) | {"hours": saving.hours._asdict()} for saving in plan.savings],
    }


def _computed(cost: Cost, speeds: Speeds) -> dict[str, Any]:
    """Hours of a step, its speed in FLOP/s and as a share of the card's peak, and the source of these."""
    hours = {"hours": cost.hours(speeds)._asdict()}
    if not cost.flops:
        return hours
    speed, share = speeds.of(cost.work), speeds.share(cost.work)
    plain = {
        "speed": speed.flops._asdict(),
        "share_of_peak": share._asdict() if share else None,
        "source": speed.source,
    }
    return hours | plain


def as_text(plan: Plan, basis: bool = False) -> str:
    """The plan for people, at most COLUMNS wide: a table of steps, times, and what would be faster; `basis`: whence."""
    images = ", ".join(f"{name} {count:,}" for name, count in plan.images.items())
    lines = [
        *filled(f'The run "{plan.run}" on one {plan.speeds.card}, estimated. Images: {images}.'),
        "",
        *aligned(_step_rows(plan)),
        "",
        *plan.wall.lines(),
        *[line for note in card_notes(plan.speeds.peaks, plan.costs) for line in filled(note)],
        "",
        *filled(
            "Hours are central estimates (low to high) where the device waits for no image, with the start of each job. "
            "None was measured by this project."
            + ("" if basis else " What they are from, and what each method costs: --basis.")
        ),
    ]
    if basis:
        lines += ["", *_basis(plan)]
    if plan.savings:
        lines += ["", "What faster settings save (approximations of the paper's choice: see docs/performance.md)"]
        savings = plan.savings
        lines += aligned([(s.setting, f"{_tera(s.flops)} TFLOP", f"{s.hours} GPU-hours") for s in savings])
    return "\n".join(lines) + "\n"


def card_notes(card: Card, costs: Sequence[Cost]) -> list[str]:
    """What to set for a card that lacks units or memory which the steps would take."""
    slow = [cost.step for cost in costs if cost.flops and arithmetic_of(card, cost.precision) == "converted"]
    notes = []
    if slow:
        notes.append(
            f"A {card.name} has no units for bfloat16 and converts every factor, in {', '.join(slow)}: set "
            "diffusion.model.precision to float16 and training.precision to float32, as config/single-gpu.yaml does."
        )
    if 0 < card.memory <= SMALL:
        notes.append(
            f"The smallest {card.name} has {card.memory} GB: config/single-gpu.yaml has batch sizes estimated to fit."
        )
    return notes


def _basis(plan: Plan) -> list[str]:
    """Where the figures of the steps are from, and the table of methods."""
    rows = [("step", "basis")] + [(cost.step, _basis_of(plan, cost)) for cost in plan.costs]
    width = max(len(step) for step, _ in rows) + 2
    return [
        *(line for step, how in rows for line in filled(how, f"{step:{width}}", " " * width)),
        "",
        "Sources of the speeds:",
        *(line for number, one in enumerate(plan.sources, 1) for line in filled(one, f"[{number}] ", " " * 4)),
        "",
        *filled(
            "Each method, in training (preparing and training one model, a training image) and at inference (a test image). "
            "Memory is that of weights, gradients and momentum; activations come on top. Shipped is what classifying needs: "
            "the classifier, and for diffusion features the VAE's encoder and the U-Net up to the last block, without the "
            "text encoder, since the null prompt's embedding can be stored. Even after so many test images, the extra "
            "operations of inference exceed those of the whole training. Seconds are central estimates."
        ),
        *aligned(_method_rows(plan.methods)),
    ]


def _basis_of(plan: Plan, cost: Cost) -> str:
    if not cost.flops:
        return cost.how
    share = plan.speeds.share(cost.work)
    percent = share.times(100) if share else None
    shown = f"{percent.central:.0f} ({percent.low:.0f} to {percent.high:.0f}) % of the peak " if percent else ""
    return f"{cost.how}; {shown}[{plan.sources.index(plan.speeds.of(cost.work).source) + 1}]"


def _step_rows(plan: Plan) -> list[tuple[str, ...]]:
    """The lines of the table of steps."""
    rows: list[tuple[str, ...]] = [("step", "items", "jobs", "TFLOP", "GB", "precision", "GPU-hours", "min/job")]
    for cost in plan.costs:
        times: tuple[str, ...] = ("", "")
        if cost.flops:
            hours = cost.hours(plan.speeds)
            times = (str(hours), f"{hours.central * 60 / cost.jobs:.1f}")
        precision = f"{cost.precision}, compiled" if cost.compiled else cost.precision
        work = (f"{cost.items:,}", str(cost.jobs), _tera(cost.flops), f"{cost.bytes / 1e9:.2f}", precision)
        rows.append((cost.step, *work, *times))
    flops, size = _tera(sum(cost.flops for cost in plan.costs)), f"{sum(cost.bytes for cost in plan.costs) / 1e9:.2f}"
    return [*rows, ("all", "", "", flops, size, "", str(plan.hours), "")]


def _method_rows(costs: list[MethodCost]) -> list[tuple[str, ...]]:
    """The lines of the table of methods."""
    head = (
        "method", "backbone", "train TFLOP", "s", "GB", "infer GFLOP", "ms", "GB", "ship MB", "even after",
    )  # fmt: skip
    lines = [
        (
            cost.method, cost.backbone, f"{cost.training_flops / 1e12:.1f}", f"{cost.training_seconds:.2f}",
            f"{cost.training_memory / 1e9:.1f}", f"{cost.inference_flops / 1e9:,.0f}",
            f"{1000 * cost.inference_seconds:.2f}", f"{cost.inference_memory / 1e9:.1f}", f"{cost.shipped / 1e6:,.0f}",
            "never" if cost.break_even is None else f"{cost.break_even:,.0f}",
        )
        for cost in costs
    ]  # fmt: skip
    return [head, *lines]


def _tera(flops: float) -> str:
    return f"{flops / 1e12:,.0f}"
