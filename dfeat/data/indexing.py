"""Indexing: a set's files are looked at, and what is usable of them is listed, once for every later step.

What enters: the settings of a set and the files a user has. What leaves, in one folder: index.csv
(`key,file,label,wnid,width,height,sha256,parts_sha256`), problems.csv (`set,record,field,what,done`), classes.json,
source.json (which lists the digests of the others), and for the training set annotations.json, a COCO file that
pycocotools reads without trouble. The images that the training set holds out leave with it, as an index of their own in a
second folder, so that both are of one reading of the files. The files are the same, byte for byte, whenever the input is.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Final

from dfeat.data.classes import class_infos
from dfeat.data.coco import Part
from dfeat.data.files import images_of, refuse_packed, report_unused
from dfeat.data.folder import read_folder
from dfeat.data.imagenet import read_imagenet
from dfeat.data.images import inspect
from dfeat.data.index import Index, read_classes
from dfeat.data.partimagenet import TrainData, TrainImage, read_partimagenet
from dfeat.data.records import INDEX_COLUMNS, Candidate, ClassInfo, Problems, Record, part_key, table_text
from dfeat.data.settings import EvaluationSet, TrainSet
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.places import HOLDOUT, TRAIN
from dfeat.progress import progress
from dfeat.randomness import seed_for
from dfeat.section import LocalPath
from dfeat.storage.atomic import json_bytes, write_files
from dfeat.storage.origin import origin_bytes
from dfeat.storage.provenance import bytes_digest, settings_text

RECIPE: Final = 3
_WHERE: Final = {
    "partimagenet": "PartImageNet is at github.com/TACJu/PartImageNet; its images and json files belong there",
    "imagenet": "download ImageNet-1k val from image-net.org after registration",
    "folder": "it is a folder of your own images, one folder a class, named by wnid or class name",
}
_DEMO: Final = "`make demo` needs no data"


def build_train_index(settings: TrainSet, out: Path, holdout: Path | None = None) -> Index:
    """Index the training set into `out`, and the images that it holds out into `holdout`.

    Raises UserError when nothing in the set is usable, or when `holdout` is given and no image can be held out.
    """
    source = open_source(TRAIN, settings.root, settings.kind)
    problems = Problems(TRAIN)
    data = read_partimagenet(source, settings, problems)
    report_unused(source, problems)
    if not data.images:
        raise _nothing(TRAIN, source, settings.kind, "COCO annotation files and the images they name", problems)
    images = [data.images[key] for key in sorted(data.images)]
    classes = class_infos(image.candidate.wnid for image in images)
    records = _records_of(images, {info.wnid: label for label, info in enumerate(classes)})
    annotated = {key for key, image in data.images.items() if image.parts}
    held_out = _held_out(records, annotated, settings.holdout, problems)
    assert bool(settings.holdout) == (holdout is not None)
    if holdout is not None and not held_out:
        raise UserError(
            f"set {TRAIN!r}: no class of {source.root} has two images, one of them with parts, so none can be held out; "
            "set data.train.holdout to 0"
        )
    trained = Index(TRAIN, tuple(r for r in records if r.key not in held_out), classes, out, source.written)
    counts = {"held_out": len(held_out)} if holdout else {}
    contents = _train_contents(trained, source, settings, data, counts, problems)
    if holdout is not None:
        kept = Index(HOLDOUT, tuple(r for r in records if r.key in held_out), classes, holdout, source.written)
        contents = _train_contents(kept, source, settings, data, {}, Problems(HOLDOUT)) | contents
    return _write(trained, contents)


def _held_out(records: Iterable[Record], annotated: Collection[str], most: int, problems: Problems) -> frozenset[str]:
    """The keys of `most` images of each class, at most half of it, drawn by their keys alone.

    They are of the annotated images, so that every protocol of occlusion can hide something of them.
    """
    if not most:
        return frozenset()
    found: set[str] = set()
    drawn = _by_class(sorted(records, key=lambda record: seed_for(0, record.key, "holdout")))
    for of_class in drawn.values():
        candidates = [record.key for record in of_class if record.key in annotated]
        chosen = candidates[: min(most, len(of_class) // 2)]
        if len(chosen) < most:
            what = f"has {len(of_class)} images, {len(candidates)} of them with parts; {len(chosen)} are held out, not {most}"
            problems.add(of_class[0].wnid, "holdout", what, "at least half of each class is trained on")
        found.update(chosen)
    return frozenset(found)


def build_evaluation_index(name: str, settings: EvaluationSet, classes: Path, out: Path) -> Index:
    """Index an evaluation set into `out`, cut to the classes in `classes` (the training set's classes.json)."""
    run_classes = read_classes(classes)
    source = open_source(name, settings.root, settings.kind)
    problems = Problems(name)
    if settings.kind == "partimagenet":
        return _build_part_index(name, settings, run_classes, source, problems, out)
    read = read_imagenet if settings.kind == "imagenet" else read_folder
    layout, candidates = read(source, settings, run_classes, problems)
    report_unused(source, problems)
    labels = {info.wnid: label for label, info in enumerate(run_classes)}
    wanted = [candidate for candidate in candidates if candidate.wnid in labels]
    records = _drawn(tuple(_look_into(wanted, labels, source, name, problems)), settings.per_class)
    if not records:
        others = f"images of other classes: {len(candidates)}"
        looked = f"images of the {len(run_classes)} classes of the training set ({others})"
        raise _nothing(name, source, settings.kind, looked, problems)
    counts = {
        "images_of_other_classes": len(candidates) - len(wanted),
        **_with_images(records),
    }
    index = Index(name, records, run_classes, out, source.written)
    return _write(index, _contents(index, source, settings, layout, counts, problems))


def _build_part_index(
    name: str, settings: EvaluationSet, classes: tuple[ClassInfo, ...], source: Source, problems: Problems, out: Path
) -> Index:
    """Index an evaluation set with part annotations: a record for each image that has parts, or for each such part."""
    data = read_partimagenet(source, TrainSet(root=settings.root), problems, "left out of this evaluation set")
    report_unused(source, problems)
    labels = {info.wnid: label for label, info in enumerate(classes)}
    usable = [data.images[key] for key in sorted(data.images) if data.images[key].candidate.wnid in labels]
    whole = _records_of([image for image in usable if image.parts], labels)
    records = _drawn(whole, settings.per_class)
    if not records:
        raise _nothing(name, source, settings.kind, "annotated images of the training set's classes", problems)
    kept, found = {record.key for record in records}, len(data.images)
    data.images = {key: image for key, image in data.images.items() if key in kept}
    if settings.study == "parts":
        categories = {key: sorted({part.category_id for part in data.images[key].parts}) for key in kept}
        records = tuple(replace(r, key=part_key(r.key, category)) for r in records for category in categories[r.key])
    others = found - len(usable)
    counts = {**data.counts, "images_of_other_classes": others, **_with_images(records)}
    index = Index(name, records, classes, out, source.written)
    return _write(index, _contents(index, source, settings, data.layout, counts, problems, data))


def _with_images(records: Iterable[Record]) -> dict[str, int]:
    return {"classes_with_images": len({record.label for record in records})}


def _records_of(images: Iterable[TrainImage], labels: dict[str, int]) -> tuple[Record, ...]:
    return tuple(
        Record(
            i.candidate.key, i.candidate.file, labels[i.candidate.wnid], i.candidate.wnid, i.width, i.height, i.digest,
            _parts_digest(i),
        )
        for i in images
    )  # fmt: skip


def _parts_digest(image: TrainImage) -> str:
    """SHA-256 of an image's annotations, without the ids that depend on other images; empty where it has none."""
    return bytes_digest("\n".join(map(_coco_record, image.parts)).encode()) if image.parts else ""


def _drawn(records: tuple[Record, ...], per_class: int | None) -> tuple[Record, ...]:
    """At most `per_class` records of each class, drawn by their keys alone."""
    if per_class is None:
        return records
    drawn = _by_class(sorted(records, key=lambda record: seed_for(0, record.key, "per class")))
    kept = {record.key for chosen in drawn.values() for record in chosen[:per_class]}
    return tuple(record for record in records if record.key in kept)


def _by_class(records: Iterable[Record]) -> dict[int, list[Record]]:
    """The records of each label, in their order."""
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.label, []).append(record)
    return found


def _look_into(
    wanted: list[Candidate], labels: dict[str, int], source: Source, name: str, problems: Problems
) -> Iterable[Record]:
    bar = progress(len(wanted), f"index {name}")
    for candidate in sorted(wanted, key=lambda c: c.key):
        bar.update()
        try:
            seen = inspect(source.read(candidate.file), candidate.file)
        except UserError as error:
            problems.add(candidate.key, "file", str(error), "image dropped")
            continue
        for note in seen.notes:
            problems.add(candidate.key, "file", note, "kept")
        label = labels[candidate.wnid]
        yield Record(candidate.key, candidate.file, label, candidate.wnid, seen.width, seen.height, seen.digest)
    bar.close()


def _train_contents(
    index: Index, source: Source, settings: TrainSet, data: TrainData, counts: dict[str, int], problems: Problems
) -> dict[Path, bytes]:
    """The files of an index of some images of the training set, with their annotations."""
    of_index = replace(data, images={record.key: data.images[record.key] for record in index.records})
    images = of_index.images.values()
    counted = {
        **data.counts,
        "annotations": sum(len(image.parts) for image in images),
        "categories": len(data.categories),
        "images_without_parts": sum(not image.parts for image in images),
        **counts,
    }
    return _contents(index, source, settings, data.layout, counted, problems, of_index)


def _write(index: Index, contents: dict[Path, bytes]) -> Index:
    """Write all files of an index, and return it with its digest."""
    write_files(contents)
    return replace(index, digest=bytes_digest(contents[index.folder / "index.csv"]))


def _contents(
    index: Index,
    source: Source,
    settings: TrainSet | EvaluationSet,
    layout: str,
    counts: dict[str, int],
    problems: Problems,
    parts: TrainData | None = None,
) -> dict[Path, bytes]:
    """The files of an index."""
    rows = list(map(astuple, index.records))
    described = {
        "set": index.set_name,
        "root": str(source.written),
        "kind": settings.kind,
        "container": source.kind,
        "layout": layout,
        **({"annotation_files": parts.files} if parts else {}),
        "recipe": RECIPE,
        "settings": json.loads(settings_text(settings)),
        "images": len(index.records),
        "classes": len(index.classes),
        **counts,
        **({"left_out": source.clutter.total()} if source.clutter else {}),
        "problems": len(problems.rows),
    }
    contents = {
        **({"annotations.json": _coco_text(index.set_name, parts).encode()} if parts else {}),
        "problems.csv": problems.csv().encode(),
        "classes.json": json_bytes([{"wnid": info.wnid, "name": info.name} for info in index.classes]),
        "index.csv": table_text(INDEX_COLUMNS, rows).encode(),
    }
    placed = {index.folder / name: content for name, content in contents.items()}
    return {**placed, index.folder / "source.json": origin_bytes(described, placed)}


def _coco_text(set_name: str, data: TrainData) -> str:
    """The COCO file with one record per line; ids count from 1 in the order of keys.

    It has every section of COCO's own files, which pycocotools (`loadRes`, `info`) and other readers look up. `info` has no
    date, so that the same images give the same bytes.
    """
    about = {
        "description": f"The usable images of the set {set_name!r} and their part annotations",
        "version": str(RECIPE),
        "contributor": "D-Feat Occlusions",
        "url": "",
    }
    images: list[str] = []
    annotations: list[str] = []
    for image_id, key in enumerate(sorted(data.images), 1):
        image = data.images[key]
        size = {"height": image.height, "width": image.width}
        record = {"id": image_id, "file_name": image.candidate.file, **size, "key": key}
        images.append(json.dumps(record, ensure_ascii=False))
        for part in image.parts:
            head = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append(f"{json.dumps(head)[:-1]}, {_coco_record(part)[1:]}")
    categories = [json.dumps(data.categories[number], ensure_ascii=False) for number in sorted(data.categories)]
    sections = [("images", images), ("annotations", annotations), ("categories", categories)]
    start = f'"info": {json.dumps(about)},\n"licenses": [],\n'
    return "{" + start + ",\n".join(f'"{name}": [\n' + ",\n".join(lines) + "\n]" for name, lines in sections) + "}\n"


def _coco_record(part: Part) -> str:
    """An annotation of the COCO file without its ids, one line of JSON."""
    tail = {"area": part.area, "bbox": part.bbox, "iscrowd": part.iscrowd}
    return f'{{"category_id": {part.category_id}, "segmentation": {part.segmentation}, {json.dumps(tail)[1:]}'


def open_source(set_name: str, root: LocalPath, kind: str) -> Source:
    """Open the files of a set. Raises UserError, with where to obtain them, if there are none."""
    try:
        if not str(root).strip():
            raise UserError("its root is empty; give the folder or archive that holds it")
        source = Source(root)
        refuse_packed(source)
        return source
    except UserError as error:
        raise UserError(f"set {set_name!r}: {error}; {_WHERE[kind]}; {_DEMO}") from None


def _nothing(set_name: str, source: Source, kind: str, looked_for: str, problems: Problems) -> UserError:
    images = len(images_of(source))
    met = f"; problems met: {problems.summary()}" if problems.rows else ""
    return UserError(
        f"set {set_name!r}: {source.root} has no usable image (looked for {looked_for}; {len(source.names())} files "
        f"there, {images} of them images){met}; {_WHERE[kind]}; {_DEMO}"
    )
