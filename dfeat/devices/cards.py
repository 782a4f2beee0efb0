"""NVIDIA's cards by name: how fast their units are, and how much memory they have.

What enters: the name of a card, as its driver, a shop or a person writes it. What leaves: a `Card` with peaks from NVIDIA's
data sheets and white papers. They are dense rates (half of the "with sparsity" that some sheets print) with float32
accumulation, which is how PyTorch multiplies; GeForce cards do that at half the rate of float16 accumulation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from dfeat.errors import UserError

CardName = Literal[
    "T4", "V100", "A100", "H100", "H200", "L40S", "RTX A6000", "RTX 6000 Ada", "RTX 3090", "RTX 4080", "RTX 4090", "RTX 5090",
]  # fmt: skip
Family = Literal["Volta", "Turing", "Ampere", "Hopper", "GeForce", "RTX", "unlisted"]
"""Cards whose tensor units, memory and host are in like proportion, so that a step reaches a like share of their peak.

Ampere is the A100. GeForce are the cards of Ampere and later that accumulate in float32 at half rate; RTX are those of the
same chips that do it at full rate with no more bandwidth (RTX A6000, RTX 6000 Ada, L40S).
"""


@dataclass(frozen=True)
class Card:
    """A card: FLOP/s of its units, dense, and the least memory that it is sold with, in GB; 0 where that is not known.

    `float32` is that of ordinary units, without TF32. A card without units for TF32 or bfloat16 has its float32 rate there.
    """

    name: str
    family: Family
    memory: int
    float32: float
    tf32: float
    float16: float
    bfloat16: float
    source: str

    @property
    def peak(self) -> Mapping[str, float]:
        """Peak FLOP/s by the name of a precision."""
        return {"float32": self.float32, "tf32": self.tf32, "float16": self.float16, "bfloat16": self.bfloat16}

    @property
    def half(self) -> str:
        """The 16-bit type that its tensor units multiply."""
        return "bfloat16" if self.bfloat16 > self.float32 else "float16"


def _card(name: CardName, family: Family, memory: int, rates: tuple[float, float, float, float], source: str) -> Card:
    float32, tf32, float16, bfloat16 = (1e12 * rate for rate in rates)
    return Card(name, family, memory, float32, tf32, float16, bfloat16, source)


_ADA: Final = "NVIDIA Ada GPU Architecture, white paper, appendix A"
CARDS: Final[Mapping[str, Card]] = {
    card.name: card
    for card in (
        # float32, TF32, float16, bfloat16
        _card("T4", "Turing", 16, (8.1, 8.1, 65, 8.1), "NVIDIA T4 data sheet"),
        _card(
            "V100", "Volta", 16, (15.7, 15.7, 125, 15.7), "NVIDIA V100 data sheet, SXM2; the PCIe card is 11 % slower"
        ),
        _card("A100", "Ampere", 40, (19.5, 156, 312, 312), "NVIDIA A100 data sheet"),
        _card("H100", "Hopper", 80, (67, 494, 989, 989), "NVIDIA H100 data sheet, SXM"),
        _card("H200", "Hopper", 141, (67, 494, 989, 989), "NVIDIA H200 data sheet, SXM"),
        _card("L40S", "RTX", 48, (91.6, 183, 362, 362), "NVIDIA L40S data sheet"),
        _card("RTX A6000", "RTX", 48, (38.7, 77.4, 154.8, 154.8), "NVIDIA RTX A6000 data sheet"),
        _card("RTX 6000 Ada", "RTX", 48, (91.1, 182.1, 364.2, 364.2), "NVIDIA RTX 6000 Ada Generation data sheet"),
        _card("RTX 3090", "GeForce", 24, (35.6, 35.6, 71, 71), "NVIDIA Ampere GA102 GPU Architecture, white paper"),
        _card("RTX 4080", "GeForce", 16, (48.7, 48.7, 97.5, 97.5), _ADA),
        _card("RTX 4090", "GeForce", 24, (82.6, 82.6, 165.2, 165.2), _ADA),
        _card(
            "RTX 5090",
            "GeForce",
            32,
            (104.8, 104.8, 209.5, 209.5),
            "NVIDIA RTX Blackwell GPU Architecture, white paper",
        ),
    )
}
"""The cards with figures, by name."""
assert tuple(CARDS) == get_args(CardName)
_NO_PART_OF_IT: Final = re.compile(
    r"nvidia|geforce|tesla|rtx|generation|tensor core|gpu|\bsxm\d*|\bhbm\d*e?|\b\d+ ?gb\b|[^a-z0-9]"
)
"""What a name may have beside the model: the maker, the series, the form, the memory, spaces and hyphens."""
_AS_ANOTHER: Final = {
    "a100pcie": "a100",
    "v100pcie": "v100",
    "v100spcie": "v100",
    "v100s": "v100",
    "6000adalovelace": "6000ada",
}


def _model(name: str) -> str:
    """The model in the name of a card, as few letters and digits as tell it from another."""
    model = _NO_PART_OF_IT.sub("", name.lower())
    return _AS_ANOTHER.get(model, model)


_BY_MODEL: Final = {_model(name): name for name in CARDS}


def card_of(name: str) -> str | None:
    """The key of CARDS for a card by any of its names; None for a card or a MIG slice that CARDS does not list.

    "rtx 4090", "4090" and "NVIDIA GeForce RTX 4090" are one card. A laptop's, a "Ti" and a PCIe H100 are others.
    """
    return _BY_MODEL.get(_model(name))


def checked_card(name: str) -> str:
    """A key of CARDS for any name of a card. Raises UserError, with all of them, where it is of none."""
    known = card_of(name)
    if known is None:
        raise UserError(
            f"no figures for a card {name!r}; known are {', '.join(CARDS)}; for another give its tensor peak, as in "
            "--tflops 82, or measure it with --calibrate"
        )
    return known


def canonical(name: Any) -> Any:
    """A card by the name that settings record; what is of no card stays as it is, for the settings to refuse."""
    return card_of(name) or name if isinstance(name, str) else name


def unlisted(tflops: float) -> Card:
    """A card that CARDS lacks, by its tensor peak in 16 bits. TF32 and float32 are taken at half of it, as on GeForce cards."""
    name, peak = f"card of {tflops:g} TFLOP/s", 1e12 * tflops
    return Card(name, "unlisted", 0, peak / 2, peak / 2, peak, peak, "--tflops")
