"""PartImageNet and other part data in COCO form: finds the annotation files, and joins all splits.

What enters: a `Source` in any layout people have. "ood": `{split}.json` with `{split}/<wnid>/*.JPEG` or
`images/{split}/...`, folders nested twice or not. "seg": `annotations/{split}/{split}.json` with
`images/{split}/*.JPEG`. "coco": any other COCO file with its images. What leaves: `TrainData`, every usable
image once, with its clean part annotations, ready to be written.

An image is found by its name, whatever folder it is in; where several files have it, the one in the split's
own folder is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from dfeat.data.annotations import Part, clean_part
from dfeat.data.classes import is_wnid
from dfeat.data.coco import (
    SPLITS,
    AnnotationFile,
    layout_of,
    read_annotations,
    read_categories,
    read_grouped,
    read_images,
)
from dfeat.data.images import inspect
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


@dataclass
class TrainData:
    """All splits joined."""

    layout: str
    images: dict[str, TrainImage] = field(default_factory=dict)
    categories: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def read_partimagenet(source: Source, settings: TrainSet, problems: Problems) -> TrainData:
    """Read every usable image of every split. Raises UserError when the layout is not clear or ids conflict."""
    locator = Locator(source)
    for name, why in source.refused:
        problems.add(name, "file", why, "not read")
    data = TrainData("")
    for layout, names in _layouts(annotation_names(source, locator), settings, source):
        for name in names:
            if data.layout not in {"", layout}:
                problems.add(name, "file", f"is laid out as {layout!r}; the set is read as {data.layout!r}", "ignored")
                continue
            file = read_annotations(source, name, problems)
            if file is not None and _join(file, source, locator, settings, problems, data):
                data.files.append(name)
                data.layout = layout
    data.counts["files_without_record"] = locator.unused()
    return data


def annotation_names(source: Source, locator: Locator) -> list[str]:
    """JSON files that may be annotations: neither of the `*_whole` kind nor beside one image each."""
    stems = locator.stems()
    return [
        name
        for name in source.names()
        if name.lower().endswith(".json")
        and not any(PurePosixPath(part).stem.endswith("_whole") for part in name.split("/"))
        and (PurePosixPath(name).stem not in stems or PurePosixPath(name).stem.lower() in SPLITS)
        and not is_wnid(PurePosixPath(name).stem.partition("_")[0])
    ]


def classes_by_name(locator: Locator, otherwise: str | None = None) -> dict[str, str]:
    """Key -> wnid of every image whose class its name or folder tells; `otherwise` is that of the others."""
    named = ((PurePosixPath(name).stem, _wnid(PurePosixPath(name), otherwise)) for name in locator.images())
    return {key: wnid for key, wnid in named if wnid is not None}


def _layouts(names: list[str], settings: TrainSet, source: Source) -> list[tuple[str, list[str]]]:
    """Annotation files by layout, in the order in which a layout is preferred; only the one that is forced."""
    by_layout: dict[str, list[str]] = {"ood": [], "seg": [], "coco": []}
    for name in names:
        by_layout[layout_of(name)[0]].append(name)
    wanted = settings.layout
    if wanted == "auto":
        if by_layout["ood"] and by_layout["seg"]:
            raise UserError(
                f"{source.root} holds both releases of PartImageNet ({by_layout['ood'][0]} and {by_layout['seg'][0]}); "
                "set data.train.layout to ood or seg, or data.train.root to one of the folders"
            )
        return list(by_layout.items())
    if not by_layout[wanted]:
        there = ", ".join(f"{layout}: {files[0]}" for layout, files in by_layout.items() if files) or "none"
        raise UserError(
            f"{source.root}: data.train.layout is {wanted!r}, but no annotation file is laid out so "
            f"(found {there}); set it to auto"
        )
    return [(wanted, by_layout[wanted])]


def _join(
    file: AnnotationFile, source: Source, locator: Locator, settings: TrainSet, problems: Problems, data: TrainData
) -> bool:
    """Add the usable images of one annotation file to `data`; False where none of its images is here."""
    images = read_images(file, problems)
    named = [record["file_name"] for record in images.values() if record is not None]
    if named and not any(locator.knows(name) for name in named):
        what = f"none of its {len(named)} images is here ({text_of(named[0])}, ...)"
        problems.add(file.name, "file", what, "ignored with its images")
        return False
    categories = read_categories(file, problems, data.categories)
    annotations = read_grouped(file, set(images), problems)
    bar = progress(len(images), f"index {file.name}")
    for image_id, record in images.items():
        bar.update()
        if record is None:
            continue
        image = _image(record, file, source, locator, settings, problems, data)
        if image is None:
            continue
        for number, annotation in annotations.get(image_id, []):
            name = f"{image.candidate.key} annotation {number}"
            part = clean_part(annotation, image.width, image.height, categories, problems, name)
            if part is not None:
                image.parts.append(part)
        if not image.parts:
            problems.add(image.candidate.key, "annotations", "has no usable part annotation", "kept, without parts")
        data.images[image.candidate.key] = image
    bar.close()
    return bool(named)


def _image(
    record: dict[str, Any],
    file: AnnotationFile,
    source: Source,
    locator: Locator,
    settings: TrainSet,
    problems: Problems,
    data: TrainData,
) -> TrainImage | None:
    """Find and look into the file of one image record; None, with a row in `problems`, where it cannot be used."""
    found = locator.find(record["file_name"], file.split, problems)
    if found is None:
        return None
    path = PurePosixPath(found)
    key = path.stem
    wnid = _wnid(path, settings.wnid)
    if wnid is None:
        problems.add(
            key,
            "class",
            "neither its name nor its folder begins with a wnid such as n02487347",
            "image dropped; set data.train.wnid if all such images are of one class",
        )
        return None
    if key in data.images:
        first = data.images[key].candidate.file
        problems.add(key, "key", f"{found} has the name of {first}", "first kept, this one dropped")
        return None
    size = _stated_size(record)
    try:
        seen = inspect(source.read(found), found, size)
    except UserError as error:
        problems.add(key, "file", str(error), "image dropped with its annotations")
        return None
    for note in seen.notes:
        problems.add(key, "file", note, "kept")
    if size is None:
        stated = "the record has no usable width and height"
        problems.add(key, "size", stated, f"taken from the file: {seen.width}x{seen.height}")
    elif size != (seen.width, seen.height):
        problems.add(
            key,
            "size",
            f"is {size[0]}x{size[1]} in the annotations and {seen.width}x{seen.height} in the file",
            "image dropped: its masks would not fit",
        )
        return None
    return TrainImage(Candidate(key, found, wnid), seen.width, seen.height, [])


def _stated_size(record: dict[str, Any]) -> tuple[int, int] | None:
    width, height = whole_number(record.get("width")), whole_number(record.get("height"))
    if width is None or height is None or not 0 < width < MAX_SIDE or not 0 < height < MAX_SIDE:
        return None
    return width, height


def _wnid(path: PurePosixPath, otherwise: str | None) -> str | None:
    first = path.stem.partition("_")[0]
    if is_wnid(first):
        return first
    return path.parent.name if is_wnid(path.parent.name) else otherwise
