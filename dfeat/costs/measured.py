"""Speeds for the plan and the time limits: those measured on a card where there are any, else those of `efficiency`.

What enters: a card, and the file that `dfeat plan --calibrate` wrote. What leaves: `Speeds`, which has one for each step.
A measured figure stands for the step, precision and compilation it was measured with; all else stays as expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import Field

from dfeat.config import Settings
from dfeat.costs.efficiency import Range, Speed, Step, Work, expected_speed
from dfeat.devices.cards import CARDS, Card, card_of, checked_card, unlisted
from dfeat.errors import UserError
from dfeat.section import Precision, Section, parse
from dfeat.storage.records import read_text

REMAKE: Final = "plan --calibrate"
ASIDE: Final = Range(0.8, 1.0, 1.1)
"""Speed of a whole run over that of measured pieces, which wait for no image and write no file: an estimate."""


class MeasuredStep(Section):
    """One step as it was measured."""

    precision: Precision
    compiled: bool
    flops: float = Field(gt=0, description="FLOP/s, the median")
    passes: int = Field(ge=1, description="timed passes")


class Measured(Section):
    """What `dfeat plan --calibrate` writes."""

    card: str = Field(description="its name, as torch has it")
    torch: str
    date: str
    steps: dict[Step, MeasuredStep]


@dataclass(frozen=True)
class Speeds:
    """The speed of each step on a card: a key of CARDS, for all that was not measured, or one by its tensor peak."""

    card: str
    measured: Measured | None = None
    tflops: float | None = None

    @property
    def peaks(self) -> Card:
        """The card with its peaks."""
        return unlisted(self.tflops) if self.tflops else CARDS[self.card]

    def share(self, work: Work) -> Range | None:
        """The speed of a step as a share of the card's peak; None where it was measured on a card without a known peak."""
        speed = self.of(work)
        if self.measured and card_of(self.measured.card) is None and speed != expected_speed(self.peaks, work):
            return None
        return speed.flops.times(1 / self.peaks.peak[work.precision])

    def of(self, work: Work) -> Speed:
        """The measured speed of a step, if it was measured as it is computed now; else the expected one."""
        measured, wanted = self.measured, (work.step, work.precision, work.compiled)
        for step, found in measured.steps.items() if measured else ():
            if measured and (step, found.precision, found.compiled) == wanted:
                source = f"measured on {measured.card} with torch {measured.torch} on {measured.date}"
                return Speed(ASIDE.times(found.flops), source)
        return expected_speed(self.peaks, work)


def speeds_of(
    settings: Settings, card: str | None = None, file: Path | None = None, tflops: float | None = None
) -> Speeds:
    """The speeds on `card` (default: that of `file`, else `resources.device`), measured ones from `file` (default:
    `resources.measured`, unless it is of another card than the named `card`); or on a card of so many TFLOP/s in 16 bits.

    Raises UserError for an unknown card, a file that cannot be read, and one that was measured on another card.
    """
    if tflops is not None:
        return Speeds(unlisted(tflops).name, tflops=tflops)
    named = settings.resources.measured
    path = file or (Path(named) if named else None)
    if path is None:
        return Speeds(checked_card(card or settings.resources.device))
    measured = read_measured(path)
    known = card_of(measured.card)
    asked = checked_card(card) if card else None
    chosen = asked or (known if file and known else settings.resources.device)
    if asked and not file and known != asked:
        return Speeds(chosen)
    if known and known != chosen:
        raise UserError(
            f"{path} was measured on {measured.card!r}, and the cards are {chosen} by "
            f"{'--device' if card else 'resources.device'}; give {known} there, or measure again on a {chosen} "
            f"(`dfeat plan --calibrate {path}`)"
        )
    return Speeds(chosen, measured)


@cache
def read_measured(path: Path) -> Measured:
    """A file that `dfeat plan --calibrate` wrote, read once. Raises UserError for a missing, damaged or other file."""
    return parse(Measured, read_text(path, REMAKE), str(path))
