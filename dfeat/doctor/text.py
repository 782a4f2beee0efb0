"""The doctor's report as text for people, and as plain values for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dfeat.config import Settings
from dfeat.costs.counts import is_small
from dfeat.costs.efficiency import PEAK, card_of
from dfeat.costs.measured import Speeds
from dfeat.doctor import Report
from dfeat.doctor.sets import HiddenReport, SetReport
from dfeat.doctor.weights import WeightsReport


def as_plain(report: Report) -> dict[str, Any]:
    """The report for programs; hours are those of one device, estimated, low, central and high."""
    plain = asdict(report)
    for cost, row in zip(report.costs, plain["costs"], strict=True):
        row["hours"] = {device: cost.hours(Speeds(device))._asdict() for device in PEAK}
    return plain


def as_text(report: Report, settings: Settings) -> str:
    """The report for people: what is there, what it will cost, and what to do."""
    made = report.inpaintings
    sections = [
        f'The run "{report.run}" (results/{report.run})',
        _section("Data", [line for found in report.sets for line in _set_lines(found)]),
        *([_section("Hidden parts", _hidden_lines(report.hidden))] if report.hidden else []),
        *([_section("Inpaintings", [f"note: {note}" for note in made.notes])] if made and made.notes else []),
        _section("Weights", [line for found in report.weights for line in _weights_lines(found)]),
        _section(f"Disk: {_gigabytes(report.free)} free, estimates", _disk_lines(report)),
        _section("Devices", report.leases or report.devices or ["none: jobs run on the CPU, many times slower"]),
        _section(*_time(report, settings)),
        _section("Versions", [", ".join(f"{name} {version}" for name, version in report.packages.items())]),
    ]
    if report.faults:
        faults = [f"{n}. {fault}" for n, fault in enumerate(report.faults, 1)]
        sections.append(_section("To mend before the run", faults))
    else:
        sections.append("Nothing found that would spoil the run.")
    return "\n\n".join(sections) + "\n"


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])


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


def _disk_lines(report: Report) -> list[str]:
    lines = [f"{'step':12} {'items':>11} {'needed':>10} {'there':>10}   how it was got"]
    for cost in report.costs:
        sizes = f"{_gigabytes(cost.bytes):>10} {_gigabytes(report.already[cost.step]):>10}"
        lines.append(f"{cost.step:12} {cost.items:>11,} {sizes}   {cost.how}")
    needed, there = sum(cost.bytes for cost in report.costs), sum(report.already.values())
    return [*lines, f"{'all':12} {'':11} {_gigabytes(needed):>10} {_gigabytes(there):>10}"]


def _time(report: Report, settings: Settings) -> tuple[str, list[str]]:
    if is_small(settings):
        return "Time", ["not estimated: the figures are for full-size models, and this run's are smaller"]
    here = {name: card_of(name) for name in dict.fromkeys(report.devices)}
    heads = [f"{device}{'*' if device in here.values() else ''}" for device in PEAK]
    lines = [f"{'step':12} {'precision':>10}" + "".join(f" {head:>9}" for head in heads)]
    costs = [cost for cost in report.costs if cost.flops]
    for cost in costs:
        hours = "".join(f" {cost.hours(Speeds(device)).central:9.1f}" for device in PEAK)
        lines.append(f"{cost.step:12} {cost.precision:>10}{hours}")
    totals = "".join(f" {sum(cost.hours(Speeds(device)).central for cost in costs):9.1f}" for device in PEAK)
    lines.append(f"{'all':12} {'':>10}{totals}")
    lines += [f"* of this machine: {name}" if card else f"no figures for {name}" for name, card in here.items()]
    return "Time: GPU-hours on one device, central estimates; `dfeat plan` has ranges and sources", lines


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count < 1e10 else f"{count / 1e9:,.0f} GB"
