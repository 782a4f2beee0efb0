"""The doctor's report as text for people, and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from dfeat.config import Settings
from dfeat.costs.counts import is_small
from dfeat.costs.measured import Speeds, speeds_of
from dfeat.costs.plan import card_notes
from dfeat.costs.text import COLUMNS, filled
from dfeat.costs.wall import Wall, wall_time
from dfeat.devices.cards import CARDS, card_of
from dfeat.doctor import Report
from dfeat.doctor.sets import HiddenReport, SetReport
from dfeat.doctor.weights import WeightsReport
from dfeat.errors import UserError

MOST_CARDS: Final = 6
"""Columns of the table of hours."""


def as_plain(report: Report, settings: Settings) -> dict[str, Any]:
    """The report for programs; hours of a step are those of one device, estimated, low, central and high."""
    plain = asdict(report)
    for cost, row in zip(report.costs, plain["costs"], strict=True):
        row["hours"] = {device: cost.hours(Speeds(device))._asdict() for device in CARDS}
    return plain | {"wall": None if is_small(settings) else _wall(report, settings).plain()}


def as_text(report: Report, settings: Settings, basis: bool = False) -> str:
    """The report for people: what is there, what it will cost (with `basis`: as counted how), and what to do."""
    made = report.inpaintings
    sections = [
        f'The run "{report.run}" (results/{report.run})',
        _section("Data", [line for found in report.sets for line in _set_lines(found)]),
        *([_section("Hidden parts", _hidden_lines(report.hidden))] if report.hidden else []),
        *([_section("Inpaintings", [f"note: {note}" for note in made.notes])] if made and made.notes else []),
        _section("Weights", [line for found in report.weights for line in _weights_lines(found)]),
        _section(f"Disk: {_gigabytes(report.free)} free, estimates", _disk_lines(report, basis)),
        _section("Devices", report.leases or report.devices or ["none: jobs run on the CPU, many times slower"]),
        _section(*_time(report, settings)),
        _section("Versions", [", ".join(f"{name} {version}" for name, version in report.packages.items())]),
    ]
    if report.faults:
        faults = [f"{n}. {fault}" for n, fault in enumerate(report.faults, 1)]
        sections.append(_section("Fix before running", faults))
    else:
        sections.append("Nothing found that would spoil the run.")
    return "\n\n".join(sections) + "\n"


def _section(title: str, lines: Sequence[str]) -> str:
    """A title and indented lines; a line that is too wide goes on below, further in."""
    wrapped = [
        part
        for line in lines
        for part in ([f"  {line}"] if len(line) <= COLUMNS - 2 else filled(line, "  ", " " * (6 + _indent(line))))
    ]
    return "\n".join([title, *wrapped])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _set_lines(found: SetReport) -> list[str]:
    said = {
        "missing": "missing",
        "drawn": "drawn by the run itself",
        "found": f"{found.images or 0:,} images, not indexed yet",
        "indexed": f"{found.images or 0:,} images indexed, {found.classes} classes",
    }[found.state]
    expected = f" (expected: {found.expected_images:,})" if found.expected_images else ""
    held_out = f"; {found.held_out:,} of them held out, {found.count:,} trained on" if found.held_out else ""
    return [
        f"{found.name:14} {found.root:28} {said}{expected}{held_out}",
        *(f"    {problem}" for problem in found.problems),
    ]


def _hidden_lines(found: HiddenReport) -> list[str]:
    own = f"; {found.own_twins:,} images are their own twin (occlusion.min_visible)" if found.own_twins else ""
    whole = f"{found.whole:,} ({found.whole / found.twins:.1%}) hide it whole"
    line = f"{found.twins:,} twins hide {found.mean:.1%} of the object on average, {whole}{own}"
    return [line, *(f"  note: {note}" for note in found.notes)]


def _weights_lines(found: WeightsReport) -> list[str]:
    digest = f"  sha256 {found.digests['all'][:16]}" if found.digests else ""
    return [f"{found.name:14} {found.source}{digest}", *(f"    note: {note}" for note in found.notes)]


def _disk_lines(report: Report, basis: bool) -> list[str]:
    lines = [f"{'step':12} {'items':>11} {'needed':>10} {'there':>10}" + ("   basis" if basis else "")]
    for cost in report.costs:
        sizes = f"{_gigabytes(cost.bytes):>10} {_gigabytes(report.already[cost.step]):>10}"
        lines.append(f"{cost.step:12} {cost.items:>11,} {sizes}" + (f"   {cost.how}" if basis else ""))
    needed, there = sum(cost.bytes for cost in report.costs), sum(report.already.values())
    return [*lines, f"{'all':12} {'':11} {_gigabytes(needed):>10} {_gigabytes(there):>10}"]


def _time(report: Report, settings: Settings) -> tuple[str, list[str]]:
    if is_small(settings):
        return "Time", ["not estimated: the figures are for full-size models, and this run's are smaller"]
    here = {name: card_of(name) for name in dict.fromkeys(report.devices)}
    named = [card for card in (*here.values(), settings.resources.device, *_OFTEN) if card]
    cards = list(dict.fromkeys(named))[:MOST_CARDS]
    heads = [f"{card}{'*' if card in here.values() else ''}" for card in cards]
    widths = [max(9, len(head)) for head in heads]
    lines = [f"{'step':12} {'precision':>10}" + _cells(heads, widths)]
    costs = [cost for cost in report.costs if cost.flops]
    hours = [[cost.hours(Speeds(card)).central for card in cards] for cost in costs]
    for cost, row in zip(costs, hours, strict=True):
        lines.append(f"{cost.step:12} {cost.precision:>10}" + _cells([f"{one:.1f}" for one in row], widths))
    totals = [f"{sum(column):.1f}" for column in zip(*hours, strict=True)]
    lines.append(f"{'all':12} {'':>10}" + _cells(totals, widths))
    lines += [f"* of this machine: {name}" for name, card in here.items() if card]
    lines += _wall(report, settings).lines()
    used = [card for card in here.values() if card] or [settings.resources.device]
    lines += [note for card in dict.fromkeys(used) for note in card_notes(CARDS[card], costs)]
    return "Time: GPU-hours on one device, central estimates; `dfeat plan` has ranges and sources", lines


_OFTEN: Final = ("T4", "A100", "H100", "H200")
"""Cards that are shown whatever the machine has."""


def _cells(texts: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f" {text:>{width}}" for text, width in zip(texts, widths, strict=True))


def _wall(report: Report, settings: Settings) -> Wall:
    try:
        speeds = speeds_of(settings)
    except UserError:  # a fault of its own
        speeds = Speeds(settings.resources.device)
    return wall_time(settings, report.costs, speeds, None, report.usable)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"
