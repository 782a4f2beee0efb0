"""How many FLOP/s a step reaches on a card: low, central and high, each with its source.

What enters: a card, and what a step computes: the network, the precision, compiled or not, the FLOPs of one pass. What
leaves: a `Speed`. It is the share of the card's peak in SHARES, and no more than the host can launch kernels for; or
what `dfeat plan --calibrate` measured on the card (`measured`). None of the figures in SHARES was measured by this
project. Each is counted from a public rate by the FLOPs of `operations`, or is an estimate, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from dfeat.devices.cards import CARDS, Card, Family

Step = Literal["inpaint", "latents", "features", "training", "evaluation"]
STEPS: Final[tuple[str, ...]] = get_args(Step)
"""The steps that compute on a GPU."""


class Range(NamedTuple):
    """A low, a central and a high figure."""

    low: float
    central: float
    high: float

    def times(self, factor: float) -> Range:
        """The range multiplied by a positive number."""
        return Range(*(factor * value for value in self))

    def plus(self, other: Range) -> Range:
        """The sum, low with low and high with high: what moves one estimate on a card moves the others too."""
        return Range(*(one + two for one, two in zip(self, other, strict=True)))

    def minus(self, other: Range) -> Range:
        """The difference, likewise."""
        return self.plus(other.times(-1))

    def __str__(self) -> str:
        return f"{_short(self.central)} ({_short(self.low)} to {_short(self.high)})"


NOTHING: Final = Range(0, 0, 0)


def _short(value: float) -> str:
    """A figure to two digits or to the hundredth."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


@dataclass(frozen=True)
class Work:
    """What decides a step's speed. `pass_flops` are those of one pass of its network over a batch."""

    step: Step
    precision: str
    compiled: bool
    pass_flops: float


@dataclass(frozen=True)
class Speed:
    """FLOP/s of a step on a card, with the source of the figures in words."""

    flops: Range
    source: str

    def seconds(self, flops: float) -> Range:
        """Seconds that so many FLOPs take; the low figure at the high speed."""
        low, central, high = self.flops
        return Range(flops / high, flops / central, flops / low)


_Shares = tuple[float, float, float]
_Row = tuple[str, tuple[Family, ...], tuple[str, ...], _Shares, _Shares, str]

_DIFFUSERS: Final = (
    "Diffusers' documentation, PyTorch 2.0: Stable Diffusion 1.5, 512 px, float16, 16 images a batch, on an A100 3.0 to "
    "3.7 U-Net passes a second and 3.8 to 4.8 compiled (25 to 30 and 31 to 39 % of the peak)"
)
_AS_WHOLE: Final = "an estimate: as the whole U-Net, from"
_T4: Final = (
    "Diffusers' documentation, PyTorch 2.0: Stable Diffusion 1.5, 512 px, float16, on a T4 6.9 U-Net passes a second for "
    "one image and 7.3 to 7.6 compiled, and the same per image at 4 and 16 (17 and 19 to 20 % of the peak)"
)
_V100: Final = (
    "Diffusers' documentation, PyTorch 2.0: Stable Diffusion 1.5, 512 px, float16, on a V100 1.66 U-Net passes a second for "
    "16 images and 1.90 to 1.92 compiled, for 4 images 5.9 to 6.0 and 6.9 (31 to 34 and 35 to 39 % of the peak)"
)
_GEFORCE: Final = (
    "Diffusers' documentation, PyTorch 2.0: Stable Diffusion 1.5, 512 px, float16, 16 images a batch, on an RTX 3090 1.7 "
    "U-Net passes a second and 1.9 compiled, on an RTX 4090 3.2 and 3.8 (61 and 49 % of the peak, compiled 70 and 60 %)"
)
_RTX: Final = (
    "an estimate: the chip of a GeForce card with twice its tensor rate and no more bandwidth is 1 to 1.5 times as fast as "
    f"that card, from {_GEFORCE}"
)
_UNLISTED: Final = f"an estimate for any card with tensor units, from the T4 to GeForce cards, from {_GEFORCE}"
_HOPPER: Final = f"an estimate for 3.2 times an A100's peak at 1.7 times its memory bandwidth, from {_DIFFUSERS}"
_TRAINING: Final = (
    "an estimate for ConvNeXt-B and Swin-B from timm's rates of training with AMP on an RTX 3090 (44 and 37 % of the peak) "
    "and public rates of training ViTs on an H100 (5 to 7 %, compiled 16 to 23 %)"
)
_FORWARD: Final = (
    "timm's results, PyTorch 2.4: inference with AMP on an RTX 4090, ConvNeXt-B 2,095 and Swin-B 1,207 images a second, "
    "2,679 and 2,187 compiled (23 to 39 and 41 to 50 % of the peak)"
)
_FLOAT32: Final = (
    "an estimate from Diffusers' documentation: Stable Diffusion, 512 px, 50 DDIM steps in 9.50 s in float32 on a Titan "
    "RTX (53 % of the peak of its ordinary units, which compute exact float32 on every card)"
)
_TF32: Final = "an estimate: as in 16 bits, since TF32 has half the peak and twice the bytes"
_CONVERTED: Final = "an estimate: a T4 or V100 has no units for bfloat16 and converts every factor"

SHARES: Final[tuple[_Row, ...]] = (
    ("16-bit", ("Ampere",), ("inpaint",), (0.23, 0.28, 0.31), (0.29, 0.35, 0.39), _DIFFUSERS),
    ("16-bit", ("Ampere",), ("features",), (0.20, 0.28, 0.34), (0.26, 0.36, 0.42), f"{_AS_WHOLE} {_DIFFUSERS}"),
    ("16-bit", ("Ampere",), ("latents",), (0.20, 0.31, 0.40), (0.27, 0.39, 0.48), f"{_AS_WHOLE} {_DIFFUSERS}"),
    ("16-bit", ("Ampere",), ("training",), (0.14, 0.22, 0.30), (0.24, 0.32, 0.40), _TRAINING),
    ("16-bit", ("Ampere",), ("evaluation",), (0.20, 0.30, 0.39), (0.32, 0.43, 0.50), f"an estimate from {_FORWARD}"),
    ("16-bit", ("Hopper",), ("inpaint",), (0.17, 0.22, 0.26), (0.24, 0.32, 0.37), _HOPPER),
    ("16-bit", ("Hopper",), ("features",), (0.18, 0.27, 0.34), (0.26, 0.38, 0.45), _HOPPER),
    ("16-bit", ("Hopper",), ("latents",), (0.20, 0.28, 0.33), (0.28, 0.38, 0.44), _HOPPER),
    ("16-bit", ("Hopper",), ("training",), (0.08, 0.115, 0.15), (0.15, 0.19, 0.23), _TRAINING),
    ("16-bit", ("Hopper",), ("evaluation",), (0.10, 0.18, 0.26), (0.17, 0.27, 0.36), f"an estimate from {_FORWARD}"),
    ("16-bit", ("Turing",), ("inpaint",), (0.14, 0.17, 0.19), (0.16, 0.19, 0.22), _T4),
    ("16-bit", ("Turing",), ("features", "latents"), (0.13, 0.17, 0.22), (0.15, 0.19, 0.25), f"{_AS_WHOLE} {_T4}"),
    ("16-bit", ("Turing",), ("training", "evaluation"), (0.10, 0.17, 0.25), (0.12, 0.20, 0.30), f"an estimate from {_T4}"),
    ("16-bit", ("Volta",), ("inpaint",), (0.30, 0.33, 0.36), (0.34, 0.38, 0.41), _V100),
    ("16-bit", ("Volta",), ("features", "latents"), (0.26, 0.33, 0.38), (0.30, 0.38, 0.43), f"{_AS_WHOLE} {_V100}"),
    ("16-bit", ("Volta",), ("training", "evaluation"), (0.18, 0.28, 0.38), (0.22, 0.32, 0.42), f"an estimate from {_V100}"),
    ("16-bit", ("GeForce",), ("inpaint",), (0.47, 0.55, 0.63), (0.58, 0.65, 0.72), _GEFORCE),
    ("16-bit", ("GeForce",), ("features", "latents"), (0.40, 0.54, 0.65), (0.50, 0.64, 0.74), f"{_AS_WHOLE} {_GEFORCE}"),
    ("16-bit", ("GeForce",), ("training",), (0.30, 0.39, 0.46), (0.38, 0.47, 0.55), _TRAINING),
    ("16-bit", ("GeForce",), ("evaluation",), (0.22, 0.31, 0.40), (0.40, 0.46, 0.52), _FORWARD),
    ("16-bit", ("RTX",), ("inpaint", "features", "latents"), (0.22, 0.31, 0.42), (0.27, 0.36, 0.48), _RTX),
    ("16-bit", ("RTX",), ("training", "evaluation"), (0.14, 0.22, 0.31), (0.18, 0.28, 0.39), _RTX),
    ("16-bit", ("unlisted",), ("inpaint", "features", "latents"), (0.17, 0.36, 0.63), (0.19, 0.44, 0.74), _UNLISTED),
    ("16-bit", ("unlisted",), ("training", "evaluation"), (0.10, 0.26, 0.46), (0.15, 0.32, 0.56), _UNLISTED),
    ("float32", ("Turing", "Volta"), STEPS, (0.30, 0.45, 0.55), (0.32, 0.48, 0.58), _FLOAT32),
    ("float32", ("Ampere",), STEPS, (0.38, 0.55, 0.75), (0.40, 0.58, 0.78), _FLOAT32),
    ("float32", ("GeForce", "RTX", "unlisted"), STEPS, (0.30, 0.47, 0.68), (0.32, 0.50, 0.70), _FLOAT32),
    ("float32", ("Hopper",), STEPS, (0.30, 0.50, 0.70), (0.32, 0.53, 0.73), _FLOAT32),
    ("converted", ("Turing", "Volta"), STEPS, (0.10, 0.25, 0.45), (0.10, 0.25, 0.45), _CONVERTED),
)  # fmt: skip
"""Shares of a card's peak by arithmetic, family and step: low, central and high, eager and then compiled."""
LAUNCHES: Final[Mapping[Step, float]] = {
    "inpaint": 0.032, "features": 0.014, "latents": 0.0036, "training": 0.025, "evaluation": 0.015,
}  # fmt: skip
"""Seconds that the host takes to launch the kernels of one pass, uncompiled, however few rows it has.

The first is a U-Net pass over one image's two rows on an A100, which computes for half of that time
(fal-ai/stable-diffusion-benchmarks: 31.2 passes a second; Diffusers' documentation: 21.7). The others follow by operations
of torch: 1,015 of the U-Net, 445 up to its middle, 115 of the VAE's encoder, on average of ConvNeXt-B and Swin-B 1,175
with gradients, which C++ launches, and 500 without.
"""
_HOSTS: Final = Range(1.45, 1.0, 0.6)
"""Time that slow, middling and fast hosts take to launch, over LAUNCHES."""
_COMPILED_LAUNCHES: Final = 0.5
"""Launches of a compiled pass over those of an eager one: an estimate."""
_BOUND: Final = "; the batch is small, so that launching kernels bounds it"


def arithmetic_of(card: Card, precision: str) -> str:
    """Which units of a card compute in a precision: "float32" (the ordinary ones), "tf32", "16-bit", or "converted"."""
    peak = card.peak
    if precision in ("float16", "bfloat16"):
        return "16-bit" if peak[precision] > peak["float32"] else "converted"
    return "tf32" if peak[precision] > peak["float32"] else "float32"


def expected_speed(card: Card | str, work: Work) -> Speed:
    """The speed of a step on a card, by SHARES and LAUNCHES."""
    card = CARDS[card] if isinstance(card, str) else card
    kind = arithmetic_of(card, work.precision)
    listed = "16-bit" if kind == "tf32" else kind
    row = next(row for row in SHARES if row[0] == listed and card.family in row[1] and work.step in row[2])
    shares, source = Range(*row[4 if work.compiled else 3]), row[5]
    source = f"{_TF32}; that is {source}" if kind == "tf32" else source
    units = shares.times(card.peak[work.precision])
    launching = LAUNCHES[work.step] * (_COMPILED_LAUNCHES if work.compiled else 1)
    bounded = Range(*(min(u, work.pass_flops / (launching * host)) for u, host in zip(units, _HOSTS, strict=True)))
    return Speed(bounded, source + (_BOUND if bounded.central < units.central else ""))
