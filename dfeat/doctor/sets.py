"""The data sets before a run: whether they are there, their counts against what is expected, their problems.

What enters: the settings of a set, its files or the index that was made of it. What leaves: a `SetReport`. Names
are read, never pictures.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dfeat.config import Settings, stage_settings
from dfeat.data.classes import prompt_name
from dfeat.data.records import ProblemRow, commonest
from dfeat.data.settings import EvaluationSet, TrainSet
from dfeat.errors import UserError
from dfeat.shortage import pass_on

if TYPE_CHECKING:
    from dfeat.data.sources import Source

MEND: Final = (
    ("file", "image dropped", "fetch the file again"),
    ("file", "ignored", "correct it; nothing where it is no annotation file of this set"),
    ("file_name", "image dropped", "put the image where its record says, or correct the record"),
    ("class", "image dropped;", ""),
    ("class", "image dropped", "rename its folder to the wnid, or list it in a label file or manifest.csv"),
    ("segmentation", "polygon dropped", "draw the polygon again, or accept that this part is hidden in part"),
    ("segmentation", "annotation dropped", "draw the polygon again, or accept that this part is not hidden"),
    ("size", "image dropped", "fetch the image again that the annotations were made on"),
    ("key", "first kept", "rename one of the two files"),
    ("labels", "left out", "add the images, or accept that these are not evaluated"),
    ("holdout", "", "add images of the class, or lower data.train.holdout"),
    ("unused", "", "nothing where the file is no image of the set, else as its row says"),
    ("annotations", "", "annotate the image, or accept that nothing of it is hidden"),
)
"""How to mend a problem of problems.csv, by its field and how its outcome begins; "" where the outcome says it."""
_LOST: Final = ("dropped", "ignored", "not read", "not used", "left out")
"""Words in the outcome of a problem that took something away; what has none of them is mended already."""


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
    wnids: tuple[str, ...] = ()
    """The classes of its images, by their names, or of an indexed training set."""
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


def look_at_set(
    name: str, chosen: TrainSet | EvaluationSet, settings: Settings, folder: Path, classes: Collection[str] = ()
) -> SetReport:
    """What is there of a data set: its index where it was made, its files otherwise.

    `classes` are the wnids of the training set, as far as they are known, to which an evaluation set is cut.
    """
    indexed = look_at_index(name, chosen, folder / "data" / name)
    if indexed is not None:
        return indexed
    report = expected_set(name, chosen)
    if settings.data.drawn and not chosen.root.exists():
        return report
    report.state = "found"
    try:
        found = Counter(_classes_of_files(name, chosen))
        own = {wnid: count for wnid, count in found.items() if not classes or wnid in classes}
        if not own:
            raise _of_no_class(name, chosen, found, classes)
    except UserError as error:
        report.state = "missing" if not chosen.root.exists() else "found"
        report.faults.append(f"{error}{_without(name, settings)}")
        return report
    most = chosen.per_class if isinstance(chosen, EvaluationSet) else None
    report.images, report.wnids = sum(min(count, most or count) for count in own.values()), tuple(sorted(own))
    if isinstance(chosen, TrainSet):
        report.held_out = sum(min(chosen.holdout, count // 2) for count in own.values())
    if chosen.expected_images and report.images < chosen.expected_images:
        others = sum(found.values()) - sum(own.values())
        of_others = f"; {others:,} more are of classes that the training set does not have" if others else ""
        report.faults.append(
            f"set {name!r}: {chosen.root} has {report.images:,} images with a class, {chosen.expected_images:,} are "
            f"expected{of_others}; complete it, or set {_key(name)}.expected_images to what you have"
        )
    return report


def _of_no_class(
    name: str, chosen: TrainSet | EvaluationSet, found: Mapping[str, int], classes: Collection[str]
) -> UserError:
    """The error for a set none of whose images is of the training set's classes."""
    there, wanted = min(found), min(classes)
    return UserError(
        f"set {name!r}: none of the {sum(found.values()):,} images in {chosen.root} is of one of the training set's "
        f"{len(classes)} classes (there, for example, {there}, {prompt_name(there)}; trained on, for example, {wanted}, "
        f"{prompt_name(wanted)}); correct {_key(name)}.root or data.train.root"
    )


def look_at_sets(settings: Settings, folder: Path) -> list[SetReport]:
    """What is there of each set of a run."""
    found: list[SetReport] = []
    for name, chosen in sets_in_run(settings):
        found.append(look_at_set(name, chosen, settings, folder, found[0].wnids if found else ()))
    return found


def expected_set(name: str, chosen: TrainSet | EvaluationSet) -> SetReport:
    """A set that the run will draw itself, with the counts that are expected of it."""
    held_out = chosen.expected_holdout if isinstance(chosen, TrainSet) else 0
    return SetReport(name, str(chosen.root), "drawn", expected_images=chosen.expected_images, held_out=held_out)


def _without(name: str, settings: Settings) -> str:
    """How far the run can go without a set."""
    if name == "train":
        return ""
    return f"; to go on without it, set {_key(name)} to null"


def _key(name: str) -> str:
    return "data.train" if name == "train" else f"data.evaluation.{name}"


def _classes_of_files(name: str, chosen: TrainSet | EvaluationSet) -> list[str]:
    """The wnid of every image file that has one. Raises UserError where there is none, and for what an index refuses."""
    from dfeat.data.files import images_of
    from dfeat.data.folder import read_folder
    from dfeat.data.imagenet import read_imagenet
    from dfeat.data.indexing import open_source
    from dfeat.data.locate import Locator
    from dfeat.data.partimagenet import annotation_names, classes_by_name, layouts
    from dfeat.data.records import Problems

    source = open_source(name, chosen.root, chosen.kind)
    if isinstance(chosen, EvaluationSet) and chosen.kind != "partimagenet":
        read = read_imagenet if chosen.kind == "imagenet" else read_folder
        found = [candidate.wnid for candidate in read(source, chosen, (), Problems(name))[1]]
        way = "name the folders of its images by their classes"
    else:
        locator = Locator(source)
        names = annotation_names(source, locator)
        if not names:
            raise UserError(
                f"set {name!r}: {chosen.root} holds no annotation file (a .json of COCO form such as train.json)"
                f"{_not_read(source)}; PartImageNet's json files belong beside its images"
            )
        layouts(names, chosen if isinstance(chosen, TrainSet) else TrainSet(root=chosen.root), source)
        found = list(classes_by_name(locator, chosen.wnid if isinstance(chosen, TrainSet) else None).values())
        way = "name its images or their folders by wnid, such as n02487347"
        if isinstance(chosen, TrainSet):
            way = f"set data.train.wnid where all are of one class, or {way}"
    images = images_of(source)
    if not found and images:
        raise UserError(f"set {name!r}: {chosen.root} has no image with a class ({images[0]}, for example); {way}")
    if not found:
        raise UserError(
            f"set {name!r}: {chosen.root} has no image with a class{_not_read(source)}; complete it as docs/data.md says, "
            f"or correct {_key(name)}.root"
        )
    return found


def _not_read(source: Source) -> str:
    """The first of the names that are not read, an annotation file before others."""
    if not source.refused:
        return ""
    name, why = min(source.refused, key=lambda refused: not refused[0].endswith(".json"))
    return f", but {len(source.refused):,} files or folders that are not read, such as {name}, which {why}"


def look_at_index(name: str, chosen: TrainSet | EvaluationSet, folder: Path) -> SetReport | None:
    """An index's counts against those expected, and its commonest problems; None if none is of these settings."""
    if not (folder / "source.json").is_file():
        return None
    try:
        source = json.loads((folder / "source.json").read_text(encoding="utf-8"))
        with (folder / "problems.csv").open(encoding="utf-8", newline="") as file:
            rows = [(of, record, part, what, done) for of, record, part, what, done in csv.reader(file)][1:]
        held_out, classes = int(source.get("held_out", 0)), source.get("classes_with_images", source["classes"])
        counts = {"images": int(source["images"]) + held_out, "classes": int(classes)}
        others = int(source.get("images_of_other_classes", 0))
        wnids = _trained_on(folder) if isinstance(chosen, TrainSet) else ()
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
        wnids,
    )
    report.problems = _commonest(rows)
    for what, wanted in expected.items():
        if wanted is not None and counts[what] != wanted:
            met = f"; {others:,} images there are of classes that the training set does not have" if others else ""
            met += f"; {len(rows)} problems in {folder / 'problems.csv'}" if rows else ""
            report.faults.append(
                f"set {name!r}: {counts[what]:,} {what} are usable, {wanted:,} are expected{met}; mend the set and "
                f"delete {folder}, or set {_key(name)}.expected_{what} to {counts[what]}"
            )
    return report


def _trained_on(folder: Path) -> tuple[str, ...]:
    listed = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    return tuple(str(entry["wnid"]) for entry in listed)


def _read_by_index(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a set that its index depends on."""
    unread = ("levels", "label")
    return {key: value for key, value in settings.items() if not key.startswith("expected_") and key not in unread}


def _commonest(rows: list[ProblemRow], most: int = 5) -> list[str]:
    """The kinds of problems that are there most often, those that took something away first, and what to do about each."""
    found = sorted(commonest(rows), key=lambda kind: not _lost(kind[1][4]))[:most]
    return [
        f"{count:,}x {part}: {record} {what} ({done}){_mend(part, done)}"
        for count, (_, record, part, what, done) in found
    ]


def _lost(done: str) -> bool:
    return any(word in done for word in _LOST)


def _mend(part: str, done: str) -> str:
    known = (way for name, start, way in MEND if name == part and done.startswith(start))
    way = next(known, "correct the record" if _lost(done) and part not in ("clutter", "file") else "")
    return f"; to mend: {way}" if way else ""


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
