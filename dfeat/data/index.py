"""The index of a set as every later step reads it: which images are usable, of which class, how large.

What enters: the folder that `dfeat index` wrote (`data.indexing`). What leaves: an `Index`, which loads its pictures and
holds them to the bytes that were indexed. Sets and classes: [Sec. 4.1].
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dfeat.data.images import decode
from dfeat.data.records import INDEX_COLUMNS, ClassInfo, Record
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.places import place_of
from dfeat.section import LocalPath
from dfeat.storage.expected import check_settings
from dfeat.storage.provenance import bytes_digest
from dfeat.storage.records import parsed, read_digested, read_text, refusal

_WITHOUT_DIGESTS: Final = INDEX_COLUMNS[:6]
"""The columns of an index of before photographs were held to their bytes; it is still read."""


@dataclass
class Index:
    """A set's usable images in the order of their keys. May be pickled; each process opens its own files."""

    set_name: str
    records: tuple[Record, ...]
    classes: tuple[ClassInfo, ...]
    folder: Path
    root: LocalPath
    digest: str = ""
    """SHA-256 of index.csv. Artifacts store it, so that rows of another index are recognised and rejected."""
    files: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    """SHA-256 of each other file of the index, by its name, as source.json lists them."""
    _source: Source | None = field(default=None, repr=False, compare=False)

    def load(self, record: Record) -> NDArray[np.uint8]:
        """The picture of `record`, (height, width, 3) uint8 RGB. Raises UserError if the file is damaged or has changed."""
        if self._source is None:
            self._source = Source(self.root)
        where = f"{self.root}/{record.file}"
        raw = self._source.read(record.file)
        if record.sha256 and bytes_digest(raw) != record.sha256:
            raise UserError(
                f"{where} is not the file that was indexed (its bytes changed since); index the set {self.set_name!r} again, or "
                "put the file back"
            )
        return np.array(decode(raw, where, (record.width, record.height))[0], dtype=np.uint8)

    def annotations_path(self) -> Path | None:
        """The path of the cleaned COCO file of part annotations; None if the set has none."""
        path = self.folder / "annotations.json"
        return path if path.is_file() else None

    def annotations(self) -> dict[str, Any] | None:
        """The cleaned COCO file of part annotations, parsed; None if the set has none.

        Raises UserError if it is damaged, or not the one that was written with index.csv.
        """
        path = self.annotations_path()
        if path is None:
            return None
        content, digest = read_digested(path, "index")
        _check_listed(self.files, path, digest)
        found: dict[str, Any] = parsed(path, content, "index")
        return found


def read_index(folder: Path) -> Index:
    """Read a set's index. Raises UserError if a file of it is missing, damaged, truncated or malformed."""
    folder = Path(folder)
    source_text = read_text(folder / "source.json", "index")
    content, digest = read_digested(folder / "index.csv", "index")
    try:
        source = json.loads(source_text)
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        if tuple(rows[0]) not in (INDEX_COLUMNS, _WITHOUT_DIGESTS):
            raise ValueError(f"index.csv has the columns {','.join(rows[0])}, not {','.join(INDEX_COLUMNS)}")
        records = tuple(
            Record(key, file, int(label), wnid, int(width), int(height), *digests)
            for key, file, label, wnid, width, height, *digests in rows[1:]
        )
        if len(records) != source["images"]:
            raise ValueError(f"index.csv has {len(records)} rows, not the {source['images']} of source.json")
        files = source.get("files", {})
        _check_place(folder, source["set"])
        check_settings(folder / "source.json", source.get("settings", {}), "index")
        _check_listed(files, folder / "index.csv", digest)
        classes = read_classes(folder, files)
        return Index(source["set"], records, classes, folder, LocalPath(source["root"]), digest, files)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise UserError(
            f"the index in {folder} cannot be read ({error}); delete it and run `dfeat index` again"
        ) from None


def _check_place(folder: Path, set_name: str) -> None:
    """Raise UserError if a run's folder of one set holds the index of another."""
    if place_of(folder / "index.csv") is not None and folder.absolute().name != set_name:
        raise refusal(folder / "source.json", f"it is of the set {set_name!r}, not {folder.absolute().name!r}", "index")


def _check_listed(files: Mapping[str, str], path: Path, digest: str) -> None:
    """Raise UserError if source.json lists another digest of a file beside it; what is older than that lists none."""
    if files.get(path.name, digest) != digest:
        raise refusal(path, "it is another file than source.json beside it lists", "index")


def read_classes(path: Path, files: Mapping[str, str] = {}) -> tuple[ClassInfo, ...]:
    """The classes in classes.json, or in that of an index's folder; `files` are the digests that source.json lists.

    Raises UserError if it is missing or damaged, or another one than is listed.
    """
    path = Path(path)
    path = path / "classes.json" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} is missing; index the training set first, with `dfeat index`")
    content, digest = read_digested(path, "index")
    _check_listed(files, path, digest)
    try:
        return tuple(ClassInfo(str(entry["wnid"]), str(entry["name"])) for entry in json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a list of classes ({error}); delete it and index the training set again"
        ) from None
