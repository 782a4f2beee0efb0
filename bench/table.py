"""One table for all benchmarks (step, ours, peer, ratio, bar, verdict), and the timing of ways side by side.

What enters: calls to time, or counted figures. What leaves: comparisons, as text and as JSON. Times vary, so they are
taken interleaved in one process and compared by the median over the rounds of their ratios.
"""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from dfeat.storage.atomic import write_json
from dfeat.storage.provenance import versions


@dataclass(frozen=True)
class Comparison:
    """A row of the table. `ours` and `peer` are costs in `unit`; less is better."""

    step: str
    ours: float
    peer: float
    unit: str
    bar: float
    peer_name: str
    bound: Literal["at least", "at most"] = "at least"
    """at least: the peer must cost `bar` times ours or more; at most: ours must cost `bar` times the peer's or less."""
    times: float | None = None
    """The ratio, if it is not that of the two costs but the median of ratios taken side by side."""

    @property
    def ratio(self) -> float:
        """The peer's cost over ours, or ours over the peer's if the bar is an upper bound."""
        if self.times is not None:
            return self.times
        return self.peer / self.ours if self.bound == "at least" else self.ours / self.peer

    @property
    def reached(self) -> bool:
        """Whether the bar is reached."""
        return self.ratio >= self.bar if self.bound == "at least" else self.ratio <= self.bar


@dataclass(frozen=True)
class Result:
    """The outcome of a benchmark: rows of the table, and figures without a comparison, by name."""

    rows: Sequence[Comparison]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Timed:
    """Seconds of each way by its name, one figure per round."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, name: str) -> float:
        """Median seconds of a way."""
        return median(self.seconds[name])

    def ratio(self, slow: str, fast: str) -> float:
        """Median over the rounds of the seconds of `slow` over those of `fast`."""
        return median(s / f for s, f in zip(self.seconds[slow], self.seconds[fast], strict=True))

    def row(self, step: str, ours: str, peer: str, bar: float, peer_name: str, **options: Any) -> Comparison:
        """The comparison of two ways, in seconds."""
        upper = options.get("bound") == "at most"
        times = self.ratio(ours, peer) if upper else self.ratio(peer, ours)
        return Comparison(step, self.median(ours), self.median(peer), "s", bar, peer_name, times=times, **options)


def side_by_side(
    ways: Mapping[str, Callable[[], Any]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time each way `rounds` times, after `warm_up` uncounted rounds, by `clock`.

    The ways are interleaved, in alternating order, so that a change of the machine's speed affects all of them alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm_up + rounds):
        for name in list(ways) if number % 2 else reversed(list(ways)):
            gc.collect()
            started = clock()
            ways[name]()
            if number >= warm_up:
                seconds[name].append(clock() - started)
    return Timed(seconds)


def as_text(rows: Sequence[Comparison]) -> str:
    """The table as text with aligned columns."""
    lines = [("step", "ours", "peer", "", "ratio", "bar", "verdict", "the peer is")]
    for row in rows:
        bar = f"{'>=' if row.bound == 'at least' else '<='} {row.bar:g}x"
        verdict = "reached" if row.reached else "missed"
        lines.append(
            (row.step, _short(row.ours), _short(row.peer), row.unit, f"{row.ratio:.2f}x", bar, verdict, row.peer_name)
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    right = {1, 2, 4}
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_rows(path: Path, results: Mapping[str, Sequence[Comparison]], notes: Mapping[str, Any]) -> None:
    """Write the rows and notes of each benchmark as JSON, with the machine and the versions of libraries."""
    content = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": versions("torch", "diffusers", "timm", "numpy", "h5py", "pillow"),
        "notes": dict(notes),
        "rows": {
            name: [asdict(row) | {"ratio": round(row.ratio, 4), "reached": row.reached} for row in rows]
            for name, rows in results.items()
        },
    }
    write_json(path, content)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
