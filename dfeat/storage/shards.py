"""Shards: HDF5 files of rows, each row one image's features, latents or encoded picture.

What enters: keys, one payload array (or a list of encoded images) and further arrays of as many rows. What leaves: an
HDF5 file with the attributes `schema`, `kind`, `recipe`, `settings` (JSON), `model` (digest), `rows`, `sha256` (of the
payload), and, where there are such, `index`, `parts`, `shard` and `weights`. Readers check the file against its digest record, and then
these, before a value is used. The layout is pinned (`libver` v110, contiguous, no chunks or filters), so equal rows give
equal bytes, and a payload is one run of bytes that `storage.mapped` can map by its offset.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from dfeat.errors import UserError
from dfeat.places import place_of, view_pictures
from dfeat.shortage import pass_on
from dfeat.storage.atomic import write_bytes
from dfeat.storage.expected import check_settings
from dfeat.storage.mapped import MappedRows
from dfeat.storage.provenance import settings_text
from dfeat.storage.records import check_file, refusal

SCHEMA: Final = 1
PAYLOADS: Final = {"features": "feature", "latents": "latent", "inpaint": "image", "pixels": "pixels"}
"""Kind of shard -> name of its payload dataset."""


@dataclass
class Shard:
    """The rows of a shard. `payload` is an array (rows, ...) or, for images, a list of encoded bytes."""

    kind: str
    recipe: int
    settings: Any
    model: str
    keys: list[str]
    payload: NDArray[Any] | list[bytes]
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file of the model, by name; an attribute for human readers."""
    index: str = ""
    """SHA-256 of the index.csv that lists the images of the rows."""
    parts: str = ""
    """SHA-256 of the parts.json whose parts are hidden in the rows; empty where none are."""
    number: str = ""
    """Which shard of its view this is, i/n."""
    digest: str = ""
    """SHA-256 of the payload of a shard that was read."""


def write_shard(path: Path, shard: Shard) -> None:
    """Build the shard in memory and write it atomically.

    Raises UserError, and writes nothing, if a key appears twice or a floating payload has a value that is not finite.
    """
    _refuse_bad_rows(path, shard)
    buffer = io.BytesIO()
    with create_hdf5(buffer) as file:
        file.create_dataset("key", data=np.array(shard.keys, dtype=object), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("done", data=np.ones(len(shard.keys), bool))
        name = PAYLOADS[shard.kind]
        if isinstance(shard.payload, list):
            images = np.empty(len(shard.payload), dtype=object)
            for row, encoded in enumerate(shard.payload):
                images[row] = np.frombuffer(encoded, np.uint8)
            file.create_dataset(name, data=images, dtype=h5py.vlen_dtype(np.uint8))
        else:
            file.create_dataset(name, data=np.ascontiguousarray(shard.payload))
        for extra, values in shard.extras.items():
            file.create_dataset(extra, data=values)
        digest = _payload_digest(shard.payload if isinstance(shard.payload, list) else [shard.payload])
        file.attrs.update(schema=SCHEMA, kind=shard.kind, recipe=shard.recipe, settings=settings_text(shard.settings))
        file.attrs.update(model=shard.model, rows=len(shard.keys), sha256=digest)
        if shard.weights:
            file.attrs["weights"] = settings_text(shard.weights)
        claims = {"index": shard.index, "parts": shard.parts, "shard": shard.number}
        file.attrs.update({name: value for name, value in claims.items() if value})
    write_bytes(path, buffer.getbuffer())


def read_shard(
    path: Path, kind: str, *, model: str | None = None, index: str | None = None, parts: str | None = None
) -> Shard:
    """Read a whole shard into memory, with the arguments, checks and errors of `open_shard`."""
    with open_shard(path, kind, model=model, index=index, parts=parts) as file:
        payload, attributes = file[PAYLOADS[kind]], file.attrs
        recipe, settings, model = int(attributes["recipe"]), attributes["settings"], str(attributes["model"])
        rows = list(_encoded_images(payload)) if _is_ragged(payload) else payload[:]
        claims = [str(attributes.get(name, "")) for name in ("index", "parts", "shard", "sha256")]
        return Shard(kind, recipe, settings, model, _keys(file), rows, _extras(file, kind), {}, *claims)


def create_hdf5(file: Path | io.BytesIO) -> h5py.File:
    """A new HDF5 file, without HDF5's own locks: files are renamed once written, and some network disks have no locks."""
    return h5py.File(file, "w", libver=("v110", "v110"), locking=False)


def open_hdf5(path: Path) -> h5py.File:
    """An HDF5 file to read, without HDF5's own locks, as in `create_hdf5`."""
    return h5py.File(path, "r", locking=False)


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a shard or pixel cache, unchecked. Raises OSError if it is no HDF5 file."""
    with open_hdf5(path) as file:
        return dict(file.attrs)


@contextmanager
def open_shard(
    path: Path, kind: str, *, model: str | None = None, index: str | None = None, parts: str | None = None
) -> Iterator[h5py.File]:
    """Open a shard for reading, after every check that does not need its rows.

    Each byte is hashed once: the file, which holds the payload, for its digest record; or, for a file copied from
    elsewhere without a record, the payload for the attribute `sha256`. `kind` is a key of PAYLOADS and the verb that
    makes such a shard; `model`, `index` and `parts`, where given, are the digests of the diffusion model, the
    index.csv and the parts.json it must have been made with; `parts` is empty for rows in which no part is hidden. In a
    run's folder the view and the number of the shard must be those of its path, and its settings those that the run
    expects. Raises UserError if the file is missing, damaged, incomplete, of another kind or origin, or holds links or
    virtual datasets, or if h5py cannot read what the block reads.
    """
    digest = check_file(path, kind)
    try:
        with open_hdf5(path) as file:
            fault = _fault(file, kind) or _of_other_origin(file, model=model, index=index, parts=parts)
            fault = fault or _misplaced(path, file.attrs)
            if fault is None and digest is None and _stored_digest(file[PAYLOADS[kind]]) != file.attrs["sha256"]:
                fault = "its payload does not match its digest (the file was damaged)"
            if fault is not None:
                raise refusal(path, fault, kind)
            check_settings(path, file.attrs["settings"], kind)
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        pass_on(error, str(path))
        raise refusal(path, f"it is not a readable HDF5 file ({error})", kind) from None


@dataclass
class Rows:
    """Rows of several shards of one kind: `payload[row_of[key]]` is the row of one image."""

    payload: NDArray[Any] | MappedRows
    row_of: dict[str, int]
    settings: str
    model: str
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)

    def exchanged(self, payload_of: Mapping[str, str]) -> Rows:
        """The rows of some keys, each with the payload of the key that stands for it and with the extras of its own."""
        own, taken = ([self.row_of[key] for key in keys] for keys in (payload_of, payload_of.values()))
        extras = {name: values.copy() for name, values in self.extras.items()}
        for name, values in self.extras.items():
            extras[name][taken] = values[own]
        return replace(self, row_of=dict(zip(payload_of, taken, strict=True)), extras=extras)


def read_rows(
    paths: Sequence[Path], kind: str, *, index: str | None = None, parts: str | None = None, fits: int | None = None
) -> Rows:
    """Read the array shards of one view as one table of rows, each file checked as `open_shard` does.

    All must share settings and model, and no key may appear twice. Up to `fits` bytes (by default a quarter of the
    machine's memory) rows are loaded whole, beyond that they are mapped. Raises UserError if a shard is rejected.
    """
    heads = [_head(path, kind, index, parts) for path in paths]
    first = heads[0]
    for path, head in zip(paths, heads, strict=True):
        if (head.settings, head.model) != (first.settings, first.model):
            raise refusal(path, f"it was made with another model or other settings than {paths[0]}", kind)
        if (head.shape[1:], head.dtype) != (first.shape[1:], first.dtype):
            raise refusal(path, f"its rows are {head.dtype} {head.shape[1:]}, those of {paths[0]} are not", kind)
    keys = [key for head in heads for key in head.keys]
    if len(set(keys)) != len(keys):
        raise refusal(paths[0], "a key appears in it and again in a sister shard", kind)
    mapped = MappedRows(
        [(path, head.offset, len(head.keys)) for path, head in zip(paths, heads, strict=True) if head.keys],
        (len(keys), *first.shape[1:]),
        first.dtype,
    )
    size = int(np.prod(mapped.shape)) * mapped.dtype.itemsize
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    payload = mapped.loaded() if size <= (memory // 4 if fits is None else fits) else mapped
    extras = {name: np.concatenate([head.extras[name] for head in heads]) for name in first.extras}
    return Rows(payload, {key: row for row, key in enumerate(keys)}, first.settings, first.model, extras)


@dataclass
class _Head:
    """The attributes and small datasets of a shard, and the place of its payload in the file."""

    keys: list[str]
    settings: str
    model: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    extras: dict[str, NDArray[Any]]


def _head(path: Path, kind: str, index: str | None, parts: str | None) -> _Head:
    with open_shard(path, kind, index=index, parts=parts) as file:
        payload = file[PAYLOADS[kind]]
        if payload.chunks is not None or (payload.size and payload.id.get_offset() is None):
            raise refusal(path, "its payload is not one contiguous run of bytes", kind)
        settings, model, offset = file.attrs["settings"], str(file.attrs["model"]), payload.id.get_offset() or 0
        return _Head(_keys(file), settings, model, payload.shape, payload.dtype, offset, _extras(file, kind))


def _keys(file: h5py.File) -> list[str]:
    return [key.decode() for key in file["key"][:]]


def _extras(file: h5py.File, kind: str) -> dict[str, NDArray[Any]]:
    return {name: file[name][:] for name in file if name not in {"key", "done", PAYLOADS[kind]}}


def _fault(file: h5py.File, kind: str) -> str | None:
    """What is wrong with a file as a shard of a kind; None for a sound one."""
    attributes = file.attrs
    missing = {"schema", "kind", "recipe", "settings", "model", "rows", "sha256"} - set(attributes)
    if missing:
        return f"it lacks the attributes {', '.join(sorted(missing))}"
    if attributes["schema"] != SCHEMA or attributes["kind"] != kind:
        return f"it is a {attributes['kind']!r} shard of schema {attributes['schema']}, not {kind!r} of {SCHEMA}"
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return f"its {name!r} is a link to elsewhere"
        if not isinstance(file[name], h5py.Dataset) or file[name].is_virtual or file[name].external:
            return f"its {name!r} is no plain dataset"
        if file[name].nbytes > file.id.get_filesize() and not _is_ragged(file[name]):
            return f"its {name!r} claims {file[name].nbytes:,} bytes, more than the file has"
    if {"key", "done", PAYLOADS[kind]} - set(file):
        return "it lacks key, done or its payload"
    rows = int(attributes["rows"])
    if file["key"].shape != (rows,) or file["done"].shape != (rows,) or not file["done"][:].all():
        return "it is not whole: rows are missing or not done"
    if kind != "pixels" and file[PAYLOADS[kind]].shape[:1] != (rows,):
        return "its payload has another number of rows than its keys"
    return None


def _of_other_origin(file: h5py.File, **wanted: str | None) -> str | None:
    """What a shard was made from instead of the model, index or parts of these digests; None where all agree."""
    for name, digest in wanted.items():
        found = str(file.attrs.get(name, ""))
        if digest is not None and found != digest:
            said = [f"{name} {text[:12]}" if text else f"no {name}" for text in (found, digest)]
            return f"it was made from another {name} (with {said[0]}, expected {said[1]})"
    return None


def _misplaced(path: Path, attributes: Mapping[str, Any]) -> str | None:
    """What the path says of a shard in a run's folder and its attributes do not; None where they agree."""
    place = place_of(path)
    if place is None or attributes["kind"] == "pixels":
        return None
    view, number, settings = path.parent.name, path.stem.replace("-of-", "/"), json.loads(attributes["settings"])
    if attributes.get("shard", number) != number:
        return f"it is shard {attributes['shard']} of its view, not {number}"
    shown = settings.get("latents", settings).get("view", view_pictures(view))
    if shown not in {view_pictures(view)} | ({"clean"} if view_pictures(view) == "drop:0" else set()):
        return f"it shows the images in the view {shown!r}, not {view_pictures(view)!r}"
    return None


def _refuse_bad_rows(path: Path, shard: Shard) -> None:
    if len(set(shard.keys)) != len(shard.keys):
        raise UserError(f"{path}: a key appears twice; keys must be unique")
    assert len(shard.keys) == len(shard.payload) or shard.kind == "pixels"
    if isinstance(shard.payload, np.ndarray) and np.issubdtype(shard.payload.dtype, np.floating):
        finite = np.isfinite(shard.payload).all(axis=tuple(range(1, shard.payload.ndim)))
        if not finite.all():
            names = ", ".join(shard.keys[row] for row in np.flatnonzero(~finite)[:5])
            raise UserError(
                f"{path}: {int((~finite).sum())} rows are not finite ({names} ...); nothing was written. "
                "Use precision float32 or bfloat16, or upcast_attention"
            )


def _stored_digest(payload: h5py.Dataset) -> str:
    """The digest of a payload as it lies in the file, read in blocks of some 64 MB."""
    if _is_ragged(payload):
        return _payload_digest(_encoded_images(payload))
    step = max(1, (64 << 20) * len(payload) // max(1, payload.nbytes))
    return _payload_digest(payload[start : start + step] for start in range(0, len(payload), step))


def _is_ragged(dataset: h5py.Dataset) -> bool:
    """Whether the rows are byte strings of their own lengths, as encoded images are."""
    return h5py.check_vlen_dtype(dataset.dtype) is not None


def _encoded_images(payload: h5py.Dataset) -> Iterator[bytes]:
    return (row.tobytes() for row in payload)


def _payload_digest(blocks: Iterable[NDArray[Any] | bytes]) -> str:
    """SHA-256 of the bytes of consecutive arrays, and of encoded images each preceded by its length."""
    digest = hashlib.sha256()
    for block in blocks:
        if isinstance(block, bytes):
            digest.update(len(block).to_bytes(8, "little") + block)
        else:
            digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
