"""What two runs of the same configuration may differ in: what a clock, a driver or the kernel measured, and no more.

Every file of a run is compared. A file with measured values among others is compared without them; one that holds
nothing else is not read. The reasons stand beside the names.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from dfeat.report.tables.efficiency import HEADINGS, Quantity
from dfeat.storage.records import FOLDER

QUANTITIES: Final[tuple[Quantity, ...]] = ("seconds", "joules", "memory")
"""Quantities of the costs that are measured; operations and bytes are counted."""
SHOWN: Final = [HEADINGS[quantity] for quantity in QUANTITIES]
COSTS: Final = (
    "prepare",
    "train",
    "test",
    "extra",
    "extra_test",
    "break_even",
    "per_point",
    "per_point_test",
    "unpriced",
)


def nothing(_content: bytes) -> bytes:
    """Nothing of it: every value in it was measured, or drawn from one that was."""
    return b""


def log(content: bytes) -> bytes:
    """A log without the seconds of its job and the paces of its epochs."""
    content = re.sub(rb"(?m)^(dfeat: epoch \d+ of \d+:).*$", rb"\1", content)
    return re.sub(rb"rows in [\d.]+ s, \d+ % of them spent", b"rows", content)


def run_record(content: bytes) -> bytes:
    """run.json without the seconds of the training."""
    return json.dumps(json.loads(content) | {"seconds": 0}).encode()


def costs_json(content: bytes) -> bytes:
    """efficiency.json without measured costs."""
    found = json.loads(content)
    return json.dumps(found | {"rows": list(map(_unmeasured, found["rows"]))}).encode()


def costs_csv(content: bytes) -> bytes:
    """efficiency.csv without measured costs."""
    return json.dumps(list(map(_unmeasured, csv.DictReader(io.StringIO(content.decode()))))).encode()


def costs_markdown(content: bytes) -> bytes:
    """efficiency.md without the rows below the headings of measured quantities."""
    kept, measured = [], False
    for line in content.decode().splitlines():
        if line.startswith("## "):
            measured = line.removeprefix("## ") in SHOWN
        kept.append(line if not measured or not line.startswith("|") else line.split("|")[1])
    return "\n".join(kept).encode()


def claims(content: bytes) -> bytes:
    """claims.md without the measured rows of the cost of methods."""
    return re.sub(rf"(?m)^(\| (?:{'|'.join(SHOWN)}) \|).*$", r"\1", content.decode()).encode()


def page(content: bytes) -> bytes:
    """index.html without what it shows of costs.png, claims.md, efficiency.md, benchmarks and run.json."""
    text = content.decode()
    for pattern, kept in (
        (r'(?s)(id="figure-cost">.*?<img src=")[^"]*', r"\1"),
        (r"(?s)(<h3>Cost</h3>).*?(?=</section>)", r"\1"),
        (r'(?s)(<section id="cost").*?(?=</section>)', r"\1"),
        (r"<td class=\"number\">[\d.]+</td>(?=<td>[0-9a-f]{64}</td></tr>)", ""),
    ):
        text, times = re.subn(pattern, kept, text)
        assert times, f"the page has no {pattern}"
    return text.encode()


def making(content: bytes) -> bytes:
    """A record of the report without the digests of files that hold measured values."""
    found = json.loads(content)
    for part, folder in (("files", "report/"), ("inputs", "")):
        measured = {name for name in found[part] if any(fnmatch(folder + name, pattern) for pattern in MEASURED)}
        found[part] = {name: digest for name, digest in found[part].items() if name not in measured}
    return json.dumps(found).encode()


MEASURED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "benchmarks/*.tsv": nothing,  # seconds, memory and load of each job
    "benchmarks/*.jsonl": nothing,  # when, where and how fast each attempt of a job computed
    "logs/*.log": log,
    "training/*/run.json": run_record,
    "report/efficiency.json": costs_json,
    "report/efficiency.csv": costs_csv,
    "report/efficiency.md": costs_markdown,
    "report/cost.png": nothing,  # draws seconds
    "report/cost.pdf": nothing,
    "report/cost.svg": nothing,
    "report/claims.md": claims,
    "report/index.html": page,
    "report/.made/*.json": making,
}
"""The files of a run with measured values, and what makes them comparable; a digest record of one is not compared."""


def files(run: Path) -> dict[str, bytes]:
    """Every file of a run, without what was measured, by its path in the run."""
    return dict(_files(run))


def _files(run: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        name = path.relative_to(run).as_posix()
        of = name.replace(f"{FOLDER}/", "")
        compared = next((reduce for pattern, reduce in MEASURED.items() if fnmatch(of, pattern)), bytes)
        yield name, (nothing if of != name and compared is not bytes else compared)(path.read_bytes())


def _unmeasured(row: dict[str, Any]) -> dict[str, Any]:
    return row | dict.fromkeys(COSTS) if row["quantity"] in QUANTITIES else row
