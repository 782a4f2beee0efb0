"""The data sets before a run: whether they are there, their counts against what is expected, their problems.

What enters: the settings of a set, its files or the index that was made of it. What leaves: a `SetReport`. Names
are read, never pictures.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from dfeat.config import Settings, stage_settings
from dfeat.data.settings import EvaluationSet, TrainSet
from dfeat.errors import UserError
from dfeat.shortage import pass_on

MEND: Final = {
    "file": "fetch the file again",
    "file_name": "put the image where its record says, or correct the record",
    "class": "rename its folder to the wnid, or list it in a label file or manifest.csv",
    "segmentation": "draw the polygon again, or accept that this part is not hidden",
    "size": "fetch the image again that the annotations were made on",
    "key": "rename one of the two files",
    "unused": "nothing where the file is no image of the set, else as its row says",
    "clutter": "nothing",
    "holdout": "add images of the class, or lower data.train.holdout",
}
"""How to mend a problem of problems.csv, by its field."""


MANY_WHOLE: Final = 0.01
"""The share of twins hidden whole above which the doctor notes it."""


@dataclass
class HiddenReport:
    """What the occluded twins of the training images hide, and what to note about it."""

    twins: int
    own_twins: int
    whole: int
    mean: float
    notes: list[str]


@dataclass
class SetReport:
    """A data set as it is found. `images` are those of the index, or image files where there is no index yet; so many of
    them are held out of training.
    """

    name: str
    root: str
    state: str  # missing, found, indexed or drawn
    images: int | None = None
    classes: int | None = None
    expected_images: int | None = None
    expected_classes: int | None = None
    held_out: int = 0
    problems: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Images to reckon with: those of the index, or as many as are expected, without those held out."""
        images = (self.images if self.state == "indexed" else self.expected_images or self.images) or 0
        return max(0, images - self.held_out)


def sets_in_run(settings: Settings) -> list[tuple[str, TrainSet | EvaluationSet]]:
    """All sets of a run, the training set first."""
    return [("train", settings.data.train), *settings.data.evaluation.items()]


def look_at_set(name: str, chosen: TrainSet | EvaluationSet, settings: Settings, folder: Path) -> SetReport:
    """What is there of a data set: its index where it was made, its files otherwise."""
    indexed = look_at_index(name, chosen, folder / "data" / name)
    if indexed is not None:
        return indexed
    report = expected_set(name, chosen)
    if settings.data.drawn and not chosen.root.exists():
        return report
    report.state = "found"
    try:
        of_class = Counter(_classes_of_files(name, chosen)).values()
        most = chosen.per_class if isinstance(chosen, EvaluationSet) else None
        report.images = sum(min(count, most or count) for count in of_class)
        if isinstance(chosen, TrainSet):
            report.held_out = sum(min(chosen.holdout, count // 2) for count in of_class)
    except UserError as error:
        report.state = "missing" if not chosen.root.exists() else "found"
        report.faults.append(f"{error}{_without(name, settings)}")
        return report
    if not report.images:
        report.faults.append(
            f"set {name!r}: {chosen.root} has no image with a class; complete it as docs/data.md says, or correct "
            f"{_key(name)}.root{_without(name, settings)}"
        )
    elif chosen.expected_images and report.images < chosen.expected_images:
        report.faults.append(
            f"set {name!r}: {chosen.root} has {report.images:,} images with a class, {chosen.expected_images:,} are "
            f"expected; complete it, or set {_key(name)}.expected_images to what you have"
        )
    return report


def expected_set(name: str, chosen: TrainSet | EvaluationSet) -> SetReport:
    """A set that the run will draw itself, with the counts that are expected of it."""
    held_out = chosen.expected_holdout if isinstance(chosen, TrainSet) else 0
    return SetReport(name, str(chosen.root), "drawn", expected_images=chosen.expected_images, held_out=held_out)


def _without(name: str, settings: Settings) -> str:
    """How far the run can go without a set."""
    if name == "train":
        return ""
    if settings.data.evaluation[name].study:
        return f"; to go on without it, set {_key(name)} to null"
    of_table = "table2" if len(settings.data.evaluation[name].levels) == 1 else "table1"
    other = "table1" if of_table == "table2" else "table2"
    return f"; to go on without {of_table}, set {_key(name)} to null and ask for `snakemake {other}`"


def _key(name: str) -> str:
    return "data.train" if name == "train" else f"data.evaluation.{name}"


def _classes_of_files(name: str, chosen: TrainSet | EvaluationSet) -> list[str]:
    """The wnid of every image file that has one."""
    from dfeat.data.folder import read_folder
    from dfeat.data.imagenet import read_imagenet
    from dfeat.data.indexing import open_source
    from dfeat.data.locate import Locator
    from dfeat.data.partimagenet import annotation_names, classes_by_name
    from dfeat.data.records import Problems

    source = open_source(name, chosen.root, chosen.kind)
    if isinstance(chosen, EvaluationSet) and chosen.kind != "partimagenet":
        read = read_imagenet if chosen.kind == "imagenet" else read_folder
        return [candidate.wnid for candidate in read(source, chosen, (), Problems(name))[1]]
    locator = Locator(source)
    if not annotation_names(source, locator):
        raise UserError(
            f"set {name!r}: {chosen.root} holds no annotation file (a .json of COCO form such as train.json); "
            "PartImageNet's json files belong beside its images"
        )
    return list(classes_by_name(locator, chosen.wnid if isinstance(chosen, TrainSet) else None).values())


def look_at_index(name: str, chosen: TrainSet | EvaluationSet, folder: Path) -> SetReport | None:
    """An index's counts against those expected, and its commonest problems; None if none is of these settings."""
    if not (folder / "source.json").is_file():
        return None
    try:
        source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        with (folder / "problems.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        held_out = int(source.get("held_out", 0))
        counts = {"images": int(source["images"]) + held_out, "classes": int(source["classes"])}
        if _read_by_index(source["settings"]) != _read_by_index(chosen.model_dump(mode="json")):
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        pass_on(error, str(folder))
        fault = f"set {name!r}: the index in {folder} cannot be read ({error!r} met); delete the folder"
        return SetReport(name, str(chosen.root), "indexed", faults=[fault])
    expected = {"images": chosen.expected_images, "classes": getattr(chosen, "expected_classes", None)}
    report = SetReport(
        name,
        str(chosen.root),
        "indexed",
        counts["images"],
        counts["classes"],
        expected["images"],
        expected["classes"],
        held_out,
    )
    report.problems = _commonest(rows)
    for what, wanted in expected.items():
        if wanted is not None and counts[what] != wanted:
            met = f"; {len(rows)} problems in {folder / 'problems.csv'}" if rows else ""
            report.faults.append(
                f"set {name!r}: {counts[what]:,} {what} are usable, {wanted:,} are expected{met}; mend the set and "
                f"delete {folder}, or set {_key(name)}.expected_{what} to {counts[what]}"
            )
    return report


def _read_by_index(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a set that its index depends on."""
    return {key: value for key, value in settings.items() if not key.startswith("expected_") and key != "levels"}


def _commonest(rows: list[dict[str, str]], most: int = 5) -> list[str]:
    kinds = Counter((row["field"], row["done"]) for row in rows)
    first = {(row["field"], row["done"]): row for row in reversed(rows)}
    lines = []
    for kind, count in kinds.most_common(most):
        row = first[kind]
        mend = MEND.get(kind[0], "correct the record")
        lines.append(f"{count}x {row['field']}: {row['record']} {row['what']} ({row['done']}); to mend: {mend}")
    return lines


def look_at_parts(settings: Settings, path: Path) -> HiddenReport | None:
    """What the twins hide; None if there is no parts.json of these settings yet. Raises UserError if it is damaged."""
    from dfeat.occlusion.hidden import hidden_shares
    from dfeat.occlusion.parts import read_parts

    if not path.is_file():
        return None
    parts = read_parts(path)
    if parts.settings != stage_settings(settings, "parts").model_dump(mode="json"):
        return None
    found = hidden_shares(parts)
    report = HiddenReport(found.twins, found.own_twins, found.whole, found.mean, [])
    if found.whole > MANY_WHOLE * found.twins:
        report.notes.append(
            "a twin that is hidden whole keeps the label of an object of which it shows nothing; with "
            "occlusion.min_visible above 0 (for example 0.1) such an image is its own twin"
        )
    return report
