"""PartImageNet and other part data in COCO form: finds the annotation files, and joins all splits.

What enters: a `Source` in any layout people have. "ood": `{split}.json` with `{split}/<wnid>/*.JPEG` or
`images/{split}/...`, folders nested twice or not. "seg": `annotations/{split}/{split}.json` with
`images/{split}/*.JPEG`. "coco": any other COCO file with its images. "by_class": a file a class, `<wnid>.json`, with
categories of its own, as PartImageNet++ has them; it is read where nothing else is. What leaves: `TrainData`, every usable image once,
with its clean part annotations. An image is found by its name (`locate`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from dfeat.data.classes import is_wnid
from dfeat.data.coco import (
    SPLITS,
    AnnotationFile,
    Part,
    clean_part,
    layout_of,
    read_annotations,
    read_categories,
    read_grouped,
    read_images,
)
from dfeat.data.images import inspect, stem_of
from dfeat.data.locate import Locator
from dfeat.data.records import Candidate, Problems, text_of
from dfeat.data.segmentation import whole_number
from dfeat.data.settings import TrainSet
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.progress import progress

MAX_SIDE = 2**31


@dataclass
class TrainImage:
    """A usable image of the training set with its parts."""

    candidate: Candidate
    width: int
    height: int
    parts: list[Part]
    digest: str = ""
    """SHA-256 of the image's file."""


@dataclass
class TrainData:
    """All splits joined."""

    layout: str
    images: dict[str, TrainImage] = field(default_factory=dict)
    categories: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def read_partimagenet(
    source: Source, settings: TrainSet, problems: Problems, unparted: str = "kept, without parts"
) -> TrainData:
    """Read every usable image of every split. Raises UserError when the layout is not clear or ids conflict.

    `unparted` is what becomes of an image without parts.
    """
    reader = _Reader(source, settings, problems, unparted)
    data = reader.data
    for layout, names in layouts(annotation_names(source, reader.locator), settings, source):
        if layout == "by_class" and data.images:
            continue
        source.used.update(names)
        for name in names:
            if data.layout not in {"", layout}:
                problems.add(name, "file", f"is laid out as {layout!r}; the set is read as {data.layout!r}", "ignored")
            elif (file := read_annotations(source, name, problems)) is not None and reader.join(file):
                data.files.append(name)
                data.layout = layout
    data.counts["files_without_record"] = reader.locator.unused()
    return data


def annotation_names(source: Source, locator: Locator) -> list[str]:
    """JSON files that may be annotations: neither of the `*_whole` kind nor beside one image each."""
    stems = locator.stems()
    return [
        name
        for name in source.names()
        if name.lower().endswith(".json")
        and not any(PurePosixPath(part).stem.lower().endswith("_whole") for part in name.split("/"))
        and (PurePosixPath(name).stem not in stems or PurePosixPath(name).stem.lower() in SPLITS)
        and not _of_one_image(PurePosixPath(name).stem.lower())
    ]


def _of_one_image(stem: str) -> bool:
    wnid, rest, _ = stem.partition("_")
    return is_wnid(wnid) and bool(rest)


def classes_by_name(locator: Locator, otherwise: str | None = None) -> dict[str, str]:
    """Key -> wnid of every image whose class its name or folder tells; `otherwise` is that of the others."""
    named = ((stem_of(name), _wnid(PurePosixPath(name), otherwise)) for name in locator.images())
    return {key: wnid for key, wnid in named if wnid is not None}


def layouts(names: list[str], settings: TrainSet, source: Source) -> list[tuple[str, list[str]]]:
    """Annotation files by layout, in the order in which a layout is preferred; only the one that is forced.

    Raises UserError where two releases are there, or none of the layout that is forced.
    """
    by_layout: dict[str, list[str]] = {"ood": [], "seg": [], "coco": [], "by_class": []}
    for name in names:
        by_layout[layout_of(name)[0]].append(name)
    wanted = settings.layout
    if wanted == "auto":
        if by_layout["ood"] and by_layout["seg"]:
            raise UserError(
                f"{source.root} holds both releases of PartImageNet ({by_layout['ood'][0]} and {by_layout['seg'][0]}); "
                "give one of the folders as root or, for the training set, set data.train.layout to ood or seg"
            )
        return list(by_layout.items())
    if not by_layout[wanted]:
        there = ", ".join(f"{layout}: {files[0]}" for layout, files in by_layout.items() if files) or "none"
        raise UserError(
            f"{source.root}: data.train.layout is {wanted!r}, but no annotation file is laid out so "
            f"(found {there}); set it to auto"
        )
    return [(wanted, by_layout[wanted])]


class _Reader:
    """Joins the annotation files of a source in `data`."""

    def __init__(self, source: Source, settings: TrainSet, problems: Problems, unparted: str) -> None:
        self.source, self.settings, self.problems = source, settings, problems
        self.locator, self.data = Locator(source), TrainData("")
        self.by_file: dict[str, str] = {}
        self.unparted = unparted

    def join(self, file: AnnotationFile) -> bool:
        """Add the usable images of one annotation file to `data`; False where none of its images is here."""
        problems = self.problems
        images = read_images(file, problems)
        named = [record["file_name"] for record in images.values() if record is not None]
        if named and not any(self.locator.knows(name) for name in named):
            what = f"none of its {len(named)} images is here ({text_of(named[0])}, ...)"
            problems.add(file.name, "file", what, "ignored with its images")
            return False
        categories = read_categories(file, problems, self.data.categories)
        annotations = read_grouped(file, set(images), problems)
        bar = progress(len(images), f"index {file.name}")
        for image_id, record in images.items():
            bar.update()
            image = None if record is None else self._image(record, file.split)
            if image is None:
                continue
            key = image.candidate.key
            own = annotations.get(image_id, [])
            if not own:
                problems.add(key, "annotations", "has no part annotation", self.unparted)
            for number, annotation in own:
                name = f"{key} annotation {number}"
                part = clean_part(annotation, image.width, image.height, categories, problems, name)
                if part is not None:
                    image.parts.append(part)
            self.data.images[key] = image
        bar.close()
        return bool(named)

    def _image(self, record: dict[str, Any], split: str) -> TrainImage | None:
        """Find and look into the file of one image record; None, with a row in `problems`, where it cannot be used."""
        problems = self.problems
        found = self.locator.find(record["file_name"], split, problems)
        if found is None:
            return None
        path = PurePosixPath(found)
        key, wnid = stem_of(found), _wnid(path, self.settings.wnid)
        if wnid is None:
            remedy = "image dropped; set data.train.wnid if all such images are of one class"
            what = "neither its name nor its folder begins with a wnid such as n02487347"
            problems.add(key, "class", what, remedy)
            return None
        if key in self.data.images:
            first = self.data.images[key].candidate.file
            problems.add(key, "key", f"{found} has the name of {first}", "first kept, this one dropped")
            return None
        other = self.by_file.setdefault(self.source.file_of(found), key)
        if other != key:
            problems.add(key, "file", f"is a link to the file of {other}", "image dropped: the file is used once")
            return None
        size = _stated_size(record)
        try:
            seen = inspect(self.source.read(found), found, size)
        except UserError as error:
            problems.add(key, "file", str(error), "image dropped with its annotations")
            return None
        for note in seen.notes:
            problems.add(key, "file", note, "kept")
        there = f"{seen.width}x{seen.height}"
        if size is None:
            problems.add(key, "size", "the record has no usable width and height", f"taken from the file: {there}")
        elif size != (seen.width, seen.height):
            what = f"is {size[0]}x{size[1]} in the annotations and {there} in the file"
            problems.add(key, "size", what, "image dropped: its masks would not fit")
            return None
        return TrainImage(Candidate(key, found, wnid), seen.width, seen.height, [], seen.digest)


def _stated_size(record: dict[str, Any]) -> tuple[int, int] | None:
    width, height = whole_number(record.get("width")), whole_number(record.get("height"))
    if width is None or height is None or not 0 < width < MAX_SIDE or not 0 < height < MAX_SIDE:
        return None
    return width, height


def _wnid(path: PurePosixPath, otherwise: str | None) -> str | None:
    named = (path.stem.partition("_")[0].lower(), path.parent.name.lower())
    return next((name for name in named if is_wnid(name)), otherwise)
