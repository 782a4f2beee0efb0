"""What each table, each figure and the page was made from: recorded beside them, so that a copied run can be judged.

What enters: an entry of the catalogue, or the page, of a run. What leaves: `report/.made/<job>.json`, with the recipe,
the digest of the settings and of each input by its path in the run, and the SHA-256 of the files; and, of a run that stands, the files whose record is
not what would be recorded now. Files that are written to another folder than the run's have no such record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings
from dfeat.config.points import Run
from dfeat.errors import UserError
from dfeat.places import Place
from dfeat.report.catalogue import Published, catalogue, wanted, whole_settings
from dfeat.storage.atomic import write_json
from dfeat.storage.provenance import (
    bytes_digest,
    declared_recipe,
    file_digest,
    files_digest,
    settings_text,
)
from dfeat.storage.records import read_json, recorded_digests

FOLDER: Final = ".made"
PAGE: Final = ("config.yaml", "data_card.md", "model_card.md", "index.html")


@dataclass(frozen=True)
class _Job:
    """A job of the report step: its name, its files, and what they depend on; inputs by their paths inside the run."""

    name: str
    files: tuple[str, ...]
    inputs: tuple[str, ...]
    settings: str
    recipe: str
    beside: Mapping[str, str] = field(default_factory=dict)
    """Digests of what it reads outside the run."""

    @property
    def chosen(self) -> dict[str, Any]:
        """What is recorded of it without a look at any file."""
        settings = bytes_digest(self.settings.encode())
        return {"job": self.name, "recipe": declared_recipe(self.recipe), "settings": settings}

    def made_from(self, results: Path) -> dict[str, Any]:
        """What is recorded of it, but for the files."""
        inputs = {name: _digest(results / name) for name in self.inputs}
        return {**self.chosen, "inputs": {**inputs, **self.beside}}

    def files_of(self, results: Path) -> dict[str, str]:
        """SHA-256 of its files as they stand."""
        return {name: _digest(Place(results).report / name) for name in self.files}

    def record(self, results: Path) -> Path:
        """Where its record lies."""
        return Place(results).report / FOLDER / f"{self.name}.json"


def make(entry: Published, results: Path, settings: Settings, out: Path) -> None:
    """Make an entry of the catalogue into the folder `out`, and record it where that is the run's own."""
    job = _entry_job(entry, Run(settings))
    before = job.made_from(results)
    entry.make(results, settings, out)
    _record(job, results, out, before)


def make_page(results: Path, settings: Settings, out: Path, captions: Path) -> None:
    """Make the page `out`, and record it where that is the run's own."""
    from dfeat.report.page import write_report

    check_shown(Run(settings), results)
    job = _page_job(Run(settings), captions)
    before = job.made_from(results)
    write_report(results, settings, out, captions)
    _record(job, results, out.parent, before)


def check_shown(run: Run, results: Path) -> None:
    """Raise UserError for a table or figure of the page that is not what its record lists, or was made from other files
    than stand there now. What has no record, as of an older version, is shown as it is."""
    shown = {entry.job for entry in wanted(run.settings)}
    for job in (one for one in _entry_jobs(run) if one.name in shown and one.record(results).is_file()):
        recorded = read_json(job.record(results), job.name)
        for name in ("files", "inputs"):
            now = job.files_of(results) if name == "files" else job.made_from(results)["inputs"]
            odd = [key for key, digest in now.items() if recorded.get(name, now).get(key) != digest]
            if odd:
                table = Place(results).report / job.files[0]
                raise UserError(
                    f"{table} cannot be shown: {job.record(results)} records another {odd[0]} than stands there; make it "
                    "again with `snakemake`, `dfeat table` or `dfeat figure`"
                )


def made_otherwise(run: Run, entry: Published | None = None, captions: Path = Path()) -> bool:
    """Whether a table or figure, or the page, records another recipe, other settings, or inputs of other names than it has
    now, as when a set was added. False where it has no record; no input is opened."""
    job = _entry_job(entry, run) if entry else _page_job(run, captions)
    if not job.record(run.place.run).is_file():
        return False
    try:
        recorded = read_json(job.record(run.place.run), job.name)
    except UserError:
        return True
    chosen, inputs = job.chosen, {*job.inputs, *job.beside}
    return {name: recorded.get(name) for name in chosen} != chosen or inputs != recorded.get("inputs", {}).keys()


def stale(run: Run, results: Path, captions: Path) -> Iterator[tuple[list[str], str]]:
    """The files in `results/report` that would be made from something else now, or are not what was made: the names
    of each job's, and why. Files that are not there are no job's concern."""
    jobs = [*_entry_jobs(run), _page_job(run, captions)]
    for job in jobs:
        standing = [name for name in job.files if (Place(results).report / name).is_file()]
        if standing and (why := _why_stale(job, results)):
            yield standing, why


def _why_stale(job: _Job, results: Path) -> str:
    try:
        recorded = read_json(job.record(results), job.name)
    except UserError:
        return "nothing tells what it was made from"
    if not isinstance(recorded, dict):
        return "its record is no record"
    now = {**job.made_from(results), "files": job.files_of(results)}
    odd = [name for name in now if recorded.get(name) != now[name]]
    return f"it was made with or from other {', '.join(odd)}" if odd else ""


def _record(job: _Job, results: Path, out: Path, made_from: dict[str, Any]) -> None:
    if out.resolve() == Place(results).report.resolve():
        write_json(job.record(results), {**made_from, "files": job.files_of(results)})


def _entry_jobs(run: Run) -> Iterator[_Job]:
    for entry in catalogue(run.settings):
        try:
            yield _entry_job(entry, run)
        except UserError:  # the run has no sets for it
            continue


def _entry_job(entry: Published, run: Run) -> _Job:
    files = tuple(path.name for path in entry.files(run))
    return _Job(entry.job, files, _inside(run, entry.inputs(run)), entry.given(run.settings), entry.recipe)


def _page_job(run: Run, captions: Path) -> _Job:
    shown = [file for entry in wanted(run.settings) for file in entry.files(run)]
    texts = {f"caption {path.name}": file_digest(path) for path in sorted(captions.glob("*.rst"))}
    texts["templates"] = files_digest("dfeat.report.page", "templates")
    settings = settings_text(whole_settings(run.settings))
    return _Job("report", PAGE, _inside(run, shown), settings, "dfeat.report.page", texts)


def _inside(run: Run, paths: Iterable[Path]) -> tuple[str, ...]:
    return tuple(sorted({path.relative_to(run.place.run).as_posix() for path in paths}))


def _digest(path: Path) -> str:
    """SHA-256 of an artifact as its record has it, which `dfeat verify` compares with the file."""
    recorded = recorded_digests(path)
    return recorded[0] if recorded and path.is_file() else "missing"
