"""Folder sets such as D-Feat: a folder per class, and optionally manifest.csv [Sec. 4.1, really occluded images].

What enters: a `Source` with folders named by wnid or class name, at any depth; manifest.csv, where it is
there, has the columns file and class (further ones, such as source URL and licence, are for people) and
overrides the folders. What leaves: a `Candidate` for each image whose class is known.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import PurePosixPath

from dfeat.data.classes import ClassFinder
from dfeat.data.files import classified, images_of
from dfeat.data.images import stem_of
from dfeat.data.records import Candidate, ClassInfo, Problems
from dfeat.data.settings import EvaluationSet
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.section import safe_inside

MANIFEST = "manifest.csv"


def read_folder(
    source: Source, settings: EvaluationSet, classes: tuple[ClassInfo, ...], problems: Problems
) -> tuple[str, list[Candidate]]:
    """("folders" or "manifest", the images with a class), whether or not the class is in the run."""
    finder = ClassFinder(classes)
    listed = _manifest(source, finder, set(images_of(source)), problems)
    named: list[tuple[str, str]] = []
    for file, wnid in classified(
        source, lambda file: listed[file] if file in listed else _class_of(file, finder), problems
    ):
        if wnid is None:
            what = "no folder around it is a wnid or the name of one class of ImageNet-1k"
            remedy = "image dropped; rename the folder to its wnid, or list the file in manifest.csv"
            problems.add(file, "class", what, remedy)
        elif wnid:
            named.append((file, wnid))
    return ("manifest" if listed else "folders"), _keyed(named, problems)


def _class_of(file: str, finder: ClassFinder) -> str | None:
    """The class that the nearest folder around a file names."""
    named = (finder.find(folder) for folder in reversed(PurePosixPath(file).parts[:-1]))
    return next((wnid for wnid in named if wnid is not None), None)


def _keyed(named: list[tuple[str, str]], problems: Problems) -> list[Candidate]:
    """The stem is the key where it is unique, `<wnid>_<stem>` otherwise."""
    uses = Counter(stem_of(file) for file, _ in named)
    kept: dict[str, Candidate] = {}
    for file, wnid in named:
        stem = stem_of(file)
        key = stem if uses[stem] == 1 else f"{wnid}_{stem}"
        if key in kept:
            what = f"{file} has the name and class of {kept[key].file}"
            problems.add(key, "key", what, "first kept, this one dropped")
        else:
            kept[key] = Candidate(key, file, wnid)
    return list(kept.values())


def _manifest(source: Source, finder: ClassFinder, images: set[str], problems: Problems) -> dict[str, str]:
    """File -> wnid of manifest.csv; "" for a file whose class there is unknown (its row is in `problems`)."""
    manifest = _manifest_name(source)
    if manifest is None:
        return {}
    source.used.add(manifest)
    rows, folder = _rows(source, manifest), manifest[: -len(MANIFEST)]
    columns = {name.strip().casefold(): place for place, name in enumerate(rows[0])} if rows else {}
    if not {"file", "class"} <= set(columns):
        raise UserError(
            f"{source.root}/{manifest} has the columns {', '.join(columns) or 'none'}; file and class are needed"
        )
    listed: dict[str, str] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        cells = {name: row[place].strip() if place < len(row) else "" for name, place in columns.items()}
        file = folder + cells["file"].replace("\\", "/").removeprefix("./")
        where = f"{manifest} line {line}"
        if not safe_inside("root", file) or file not in images:
            problems.add(where, "file", f"{file!r} is no image of the set", "line ignored")
        elif file in listed:
            problems.add(where, "file", f"{file!r} stands there twice", "first kept")
        else:
            wnid = finder.find(cells["class"])
            listed[file] = wnid or ""
            if wnid is None:
                problems.add(file, "class", f"{cells['class']!r} is no wnid and no name of one class", "image dropped")
    return listed


def _manifest_name(source: Source) -> str | None:
    """The name of the manifest: in the root, or in the one folder that holds all of an archive."""
    found = [name for name in source.names() if PurePosixPath(name).name.lower() == MANIFEST]
    top = [name for name in found if all(one.startswith(name[: -len(MANIFEST)]) for one in images_of(source))]
    return min(top, key=lambda name: (name.count("/"), name), default=None)


def _rows(source: Source, manifest: str) -> list[list[str]]:
    try:
        text = source.read(manifest).decode("utf-8-sig")
        delimiter = max(",;\t", key=text.partition("\n")[0].count)
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{source.root}/{manifest} is no UTF-8 CSV file ({error}); save it as one") from None
