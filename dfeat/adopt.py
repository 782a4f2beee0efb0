"""A run that was copied or moved: Snakemake's view of it is brought in line with what stands there.

What enters: `results/<run>` and the settings. What leaves: modification times in the order of the steps, and Snakemake's
records (`.snakemake`), in which every artifact that is whole and as configured counts as made, and every other one as
made by another recipe, so that the next `snakemake` makes it again, with what follows from it. No artifact is written,
moved or deleted.

Snakemake decides by times and by its records, and a copy may lack either. What the artifacts themselves hold is enough
to write both anew: a digest record, settings, recipe and inputs. `snakemake --touch --forceall` sets the times and
records settings, inputs and commands as those of now; a second `--touch --force`, for what is not whole or not as
configured, has the workflow state no recipe (`ADOPTING`). Between the two what is not whole counts as made, so
`results/<run>/.adopting` stands there until the end, and no other Snakemake starts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from dfeat.config.expected import write_expected
from dfeat.config.points import Run
from dfeat.config.run import Settings
from dfeat.errors import UserError
from dfeat.places import ADOPTING
from dfeat.report.catalogue import catalogue, wanted
from dfeat.report.made import FOLDER as RECORDS
from dfeat.report.made import stale
from dfeat.storage.atomic import write_bytes
from dfeat.storage.provenance import declared_recipe
from dfeat.storage.records import read_json
from dfeat.storage.reuse import recorded_making
from dfeat.verify import verify_run

_OUTPUT: Final = re.compile(r"^ +output: (.+)$", re.MULTILINE)
_UPDATED: Final = " (update)"
"""What Snakemake prints after an output that it leaves to its job where it stands."""


@dataclass(frozen=True)
class Adopted:
    """What was found: how many artifacts count as made; those that are to be made again, with the reason; and those that
    are not whole, but that no job of this configuration makes."""

    made: int
    again: dict[str, str]
    strange: dict[str, str]


def adopt(run: Path, settings: Settings, configs: Sequence[Path], snakefile: Path) -> Adopted:
    """Look at every artifact of `results/<run>` and have Snakemake record what was found.

    Raises UserError where the settings are another run's, a job is at work in it, or Snakemake refuses.
    """
    configured = Run(settings)
    if run.resolve() != configured.place.run.resolve():
        raise UserError(f"{run} is not the configured run, {configured.place.run}; set `run: {run.name}` in an overlay")
    write_expected(configured)  # what verify holds artifacts to
    whole, doubtful = _judged(run, configured, project_of(snakefile) / "workflow" / "report")
    command = _command(configs, snakefile)
    write_bytes(configured.place.adopting, b"", recorded=False)
    planned = _planned(_touch("made", [*command, "--forceall", "--", *_targets(configured)]))
    makes = {os.path.relpath(path, configured.place.run) for path in planned}
    again = {file: why for name, why in doubtful.items() if (file := _of_a_job(name, makes))}
    if again:
        files = [str(configured.place.run / name) for name in again]
        _touch("again", [*command, "--rerun-triggers", "mtime", "--force", "--", *files])
    configured.place.adopting.unlink(missing_ok=True)
    strange = {name: why for name, why in doubtful.items() if not _of_a_job(name, makes)}
    return Adopted(len(whole), again, strange)


def as_text(run: Path, found: Adopted) -> str:
    """What `dfeat adopt` prints: a line for the whole, one for each of the others, and what to do."""
    lines = [f"{run}: {found.made} artifacts are whole and as configured; Snakemake counts them as made"]
    lines += [f"to be made again: {name}: {why}" for name, why in sorted(found.again.items())]
    lines += [f"left as it is, since no job makes it: {name}: {why}" for name, why in sorted(found.strange.items())]
    return "\n".join([*lines, "`snakemake -n` with the same --configfile shows what is left to make"])


def _of_a_job(name: str, makes: set[str]) -> str:
    """The output of a job that a file is, or is written with; empty where no job makes it."""
    if name in makes:
        return name
    with_index = str(PurePosixPath(name).with_name("index.csv"))  # an index has files that no rule names
    return with_index if name.startswith("data/") and with_index in makes else ""


def project_of(snakefile: Path) -> Path:
    """The project's folder, of its Snakefile or its workflow/Snakefile."""
    folder = snakefile.absolute().parent
    return folder.parent if folder.name == "workflow" and (folder / "rules").is_dir() else snakefile.parent


def _judged(run: Path, configured: Run, captions: Path) -> tuple[list[str], dict[str, str]]:
    """The artifacts that are whole and as configured, and the others with the reason."""
    doubtful: dict[str, str] = {}
    whole: list[str] = []
    for finding in verify_run(run):
        if Path(finding.path).parent.name == RECORDS:
            continue
        if finding.state == "being made":
            raise UserError(f"a job is writing {run / finding.path}; wait until it has ended")
        if finding.state == "bad":
            doubtful[finding.path] = finding.why
        elif finding.state == "whole":
            whole.append(finding.path)
            if why := _of_another_recipe(run, Path(finding.path)):
                doubtful[finding.path] = why
    for names, why in stale(configured, run, captions):
        doubtful |= {f"report/{name}": why for name in names if f"report/{name}" not in doubtful}
    doubtful |= _drawn(configured)
    return [name for name in whole if name not in doubtful], doubtful


def _drawn(configured: Run) -> dict[str, str]:
    """The built-in data, where they stand and are others than configured."""
    drawn, path = configured.settings.data.drawn, configured.place.run / "raw" / "drawn.json"
    if drawn is None or not path.is_file():
        return {}
    wanted = drawn.model_dump() if drawn.parts else drawn.model_dump(exclude={"parts"})
    try:
        recorded = read_json(path, "demo-data")
    except UserError as error:
        return {"raw/drawn.json": str(error)}
    same = isinstance(recorded, dict) and all(recorded.get(name) == value for name, value in wanted.items())
    return {} if same else {"raw/drawn.json": "other images were drawn than data.drawn asks for"}


def _of_another_recipe(run: Path, path: Path) -> str:
    """Why an artifact that records its recipe would be made otherwise now; empty where it would not, or records none."""
    step, *folders = _inside_its_point(path)
    name = folders[0] if path.suffix == ".h5" and path.name != "pixels.h5" else path.name
    module = (
        "dfeat.evaluation.predict" if (step, path.suffix) == ("evaluation", ".json") else _RECIPES.get((step, name))
    )
    if module is None:
        return ""
    recorded, declared = recorded_making(run / path, step)["recipe"], declared_recipe(module)
    return f"it was made by recipe {recorded} of {module}, which is at {declared} now" if recorded != declared else ""


def _inside_its_point(path: Path) -> tuple[str, ...]:
    """The parts of a path inside a run from its step on."""
    return path.parts[3:] if path.parts[0] == "ablation" and len(path.parts) > 4 else path.parts


_RECIPES: Final = {
    ("data", "source.json"): "dfeat.data.indexing",
    ("data", "pixels.h5"): "dfeat.data.pixels",
    ("occlusion", "parts.json"): "dfeat.occlusion.parts",
    ("diffusion", "pixels.h5"): "dfeat.data.pixels",
    **{("diffusion", kind): f"dfeat.diffusion.{kind}" for kind in ("inpaint", "latents", "features")},
    ("training", "run.json"): "dfeat.training.loop",
}
"""The module of the recipe that an artifact records, by its step and its name, or the kind of the shard; but for records of
an evaluation, one of each set."""


def _targets(configured: Run) -> Iterator[str]:
    """What Snakemake is to plan: the report, and every other table or figure that has files, or inputs of its own."""
    yield "all"
    shown = {entry.name for entry in wanted(configured.settings)}
    read = {path for entry in wanted(configured.settings) for path in entry.inputs(configured)}
    for entry in catalogue(configured.settings):
        files = entry.files(configured)
        try:
            own = {*files, *entry.inputs(configured)} - read
        except UserError:  # the run has no sets for it
            continue
        if entry.name not in shown and any(path.is_file() for path in own):
            yield from map(str, files)


def _command(configs: Sequence[Path], snakefile: Path) -> list[str]:
    files = ["--configfile", *map(str, configs)] if configs else []
    profiles = ["--profile", "none", "--workflow-profile", "none"]
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), *files, *profiles, "--cores", "1",
        "--touch", "--ignore-incomplete",
    ]  # fmt: skip


def _touch(how: Literal["made", "again"], command: list[str]) -> str:
    """Run Snakemake; returns what it printed."""
    ended = subprocess.run(command, env=os.environ | {ADOPTING: how}, capture_output=True, text=True)
    if ended.returncode:
        said = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-5:])
        raise UserError(f"`snakemake --touch` ended with status {ended.returncode}, so the run is not adopted:\n{said}")
    return ended.stdout + ended.stderr


def _planned(text: str) -> list[str]:
    """The outputs of the jobs that Snakemake printed."""
    return [path.removesuffix(_UPDATED) for line in _OUTPUT.findall(text) for path in line.split(", ")]
