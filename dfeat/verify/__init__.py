"""Check that no file of a run was changed or misplaced, and that all were made from one another.

What enters: `results/<run>`. What leaves: a `Finding` for each artifact. Every file is compared with its digest record,
which names its place; shards and pixel caches are opened as their readers open them. What is made from a set must be of
the index that stands there now, and likewise of the parts and models; what records settings, of those that the run is
configured with; predictions and verdicts must be of the models that stand there. A point of an ablation,
`ablation/<name>/<point>`, has a run's folders as far as it differs from the run: what it lacks, and every index, is the
run's own. Input images, logs and benchmarks are nobody's artifacts. While Snakemake works on the run, what does not fit
together is being made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dfeat.errors import UserError
from dfeat.storage.atomic import held, left_by, under_way
from dfeat.storage.expected import FILE as EXPECTED
from dfeat.storage.journal import is_journal
from dfeat.storage.records import FOLDER, recorded_digests
from dfeat.verify.checks import LeftOver, Standing, check

State = Literal["whole", "bad", "left over", "being made"]
STEPS: Final = ("data", "occlusion", "diffusion", "training", "evaluation", "ablation", "report")


@dataclass(frozen=True)
class Finding:
    """What was found of one file: its path inside the run, its state, and what is wrong where something is."""

    path: str
    state: State
    why: str = ""


def verify_run(run: Path, paths: Iterable[Path] | None = None) -> Iterator[Finding]:
    """Look at every artifact of a run, in the order of the steps, or at some of its files. UserError where there is no run."""
    check_is_run(run)
    seen, began_under_way = Standing(run), under_way(run)
    for path in _artifacts(run) if paths is None else paths:
        found = list(_look_at(seen, path))
        if began_under_way and any(finding.state == "bad" for finding in found):
            found = list(_look_at(Standing(run), path))  # the last job may have ended since others were looked at
        yield from found


def check_is_run(run: Path) -> None:
    """Raise UserError where a folder is no run's."""
    if not any((run / step).is_dir() for step in STEPS):
        raise UserError(f"{run} holds no run: none of the folders {', '.join(STEPS)} is there; give results/<run>")


def _artifacts(run: Path) -> Iterator[Path]:
    """The files of a run in the order of its steps."""
    if (run / EXPECTED).is_file():
        yield run / EXPECTED
    for step in STEPS:
        yield from sorted(path for path in (run / step).rglob("*") if path.is_file() and path.parent.name != FOLDER)


def _look_at(run: Standing, path: Path) -> Iterator[Finding]:
    """What is found of a file; nothing if it is gone by now."""
    name = path.relative_to(run.folder).as_posix()
    writer = left_by(path)
    if writer is not None:
        host, alive = writer
        swept = "by a process that died; the next write of that file sweeps it"
        yield Finding(name, *(("being made", f"by a process of {host}") if alive else ("left over", swept)))
        return
    if is_journal(path):
        ended = "rows of a shard whose job ended early; the same job goes on from them, and removes them at its end"
        yield Finding(name, *(("being made", "rows of a shard so far") if held(path) else ("left over", ended)))
        return
    try:
        check(run, path)
    except LeftOver as found:
        yield Finding(name, "left over", str(found))
    except FileNotFoundError as gone:  # a file beside it, while others write
        if path.is_file():
            yield Finding(name, *_fault(run, path, UserError(f"{gone.filename} went while this file was looked at")))
    except UserError as error:
        if path.is_file():
            yield Finding(name, *_fault(run, path, error))
    else:
        yield Finding(name, "whole")


def _fault(run: Standing, path: Path, error: UserError) -> tuple[State, str]:
    """The state of a file that is not whole, and why: while the run is being made, what is as it was written may be due to
    be made again, or have been since it was looked at."""
    if not under_way(run.folder):
        return "bad", str(error)
    try:
        run.check_file(path, "again")
    except UserError as damage:
        return ("bad", str(damage)) if path.is_file() else ("being made", "it is gone by now")
    return ("being made", f"the run is under way; so far {error}") if recorded_digests(path) else ("bad", str(error))
