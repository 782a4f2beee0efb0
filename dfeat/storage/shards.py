"""Shards: HDF5 files of rows, each row one image's features, latents or encoded picture.

What enters: keys, one payload array (or a list of encoded images) and further arrays of as many rows. What
leaves: an HDF5 file whole and verified under its final name, contiguous and uncompressed, with attributes
`schema`, `kind`, `recipe`, `settings` (JSON), `model` (digest), `rows`, `sha256` (of the payload), and, where there
are such, `index` (digest of the index.csv the rows are from) and `weights` (JSON, the digest of every file of the
model). Readers check the file against its digest record, and then these, before a value is used.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from dfeat.errors import UserError
from dfeat.storage.atomic import write_bytes
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
    """SHA-256 of every file of the model, by name; written as an attribute, for people."""
    index: str = ""
    """SHA-256 of the index.csv whose images the rows are."""


def write_shard(path: Path, shard: Shard) -> None:
    """Build the shard in memory, then write it through `storage.atomic`: a full disk leaves nothing.

    Raises UserError when a key appears twice or a floating payload has a value that is not finite, naming
    the rows: nothing is written then.
    """
    _refuse_bad_rows(path, shard)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=("v110", "v110")) as file:
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
        file.attrs.update(
            schema=SCHEMA,
            kind=shard.kind,
            recipe=shard.recipe,
            settings=settings_text(shard.settings),
            model=shard.model,
            rows=len(shard.keys),
            sha256=_payload_digest(shard.payload),
        )
        if shard.weights:
            file.attrs["weights"] = settings_text(shard.weights)
        if shard.index:
            file.attrs["index"] = shard.index
    write_bytes(path, buffer.getbuffer())


def read_shard(
    path: Path, kind: str, *, settings: Any = None, model: str | None = None, index: str | None = None
) -> Shard:
    """Read a shard whole, refusing it by name if it is not what is expected.

    `settings`, `model` and `index`, where given, must equal those it was made with; the payload must have its digest.
    Raises UserError naming the file, what is wrong, and the verb that makes it again.
    """
    with open_shard(path, kind, settings=settings, model=model, index=index) as file, _readable(path, kind):
        payload_set = file[PAYLOADS[kind]]
        payload: NDArray[Any] | list[bytes]
        if h5py.check_vlen_dtype(payload_set.dtype) is not None:
            payload = [row.tobytes() for row in payload_set[:]]
        else:
            payload = payload_set[:]
        if _payload_digest(payload) != file.attrs["sha256"]:
            raise _refusal(path, kind, "its payload does not match its digest (the file was damaged)")
        extras = {name: file[name][:] for name in file if name not in {"key", "done", PAYLOADS[kind]}}
        attributes = dict(file.attrs)
        keys = [key.decode() for key in file["key"][:]]
    return Shard(
        kind,
        int(attributes["recipe"]),
        attributes["settings"],
        str(attributes["model"]),
        keys,
        payload,
        extras,
        index=str(attributes.get("index", "")),
    )


def open_shard(
    path: Path, kind: str, *, settings: Any = None, model: str | None = None, index: str | None = None
) -> h5py.File:
    """Open a shard for reading after checking its bytes, schema, kind, rows, done, settings, model, index and links."""
    check_file(path, _VERBS[kind])
    with _readable(path, kind):
        file = h5py.File(path, "r")
        try:
            fault = _fault(file, kind, settings, model, index)
        except BaseException:
            file.close()
            raise
    if fault:
        file.close()
        raise _refusal(path, kind, fault)
    return file


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    """What h5py raises when a file is damaged, as the one sentence."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise _refusal(path, kind, f"it is no readable HDF5 file ({error})") from None


@dataclass
class Rows:
    """Rows of several shards of one kind: `payload[row_of[key]]` is one image's, `payload[[...]]` those of several."""

    payload: NDArray[Any] | MappedRows
    row_of: dict[str, int]
    settings: str
    model: str
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)


def read_rows(paths: Sequence[Path], kind: str, *, index: str | None = None, fits: int | None = None) -> Rows:
    """Read array shards that belong together; all must share settings and model, no key may appear twice.

    `index`, where given, is the digest of the index.csv that all must be from.
    Up to `fits` bytes (default: a quarter of the machine's memory) they are loaded whole, above that they are mapped.
    Either way every payload is compared with its digest first.
    """
    heads = [_head(path, kind, index) for path in paths]
    first = heads[0]
    for path, head in zip(paths, heads, strict=True):
        if (head.settings, head.model) != (first.settings, first.model):
            raise _refusal(path, kind, f"it was made with another model or other settings than {paths[0]}")
    keys = [key for head in heads for key in head.keys]
    if len(set(keys)) != len(keys):
        raise _refusal(paths[0], kind, "a key appears in it and again in a sister shard")
    mapped = MappedRows(
        [(path, head.offset, len(head.keys)) for path, head in zip(paths, heads, strict=True) if head.keys],
        (len(keys), *first.shape[1:]),
        first.dtype,
    )
    size = int(np.prod(mapped.shape)) * mapped.dtype.itemsize
    loaded = size <= (_memory() // 4 if fits is None else fits)
    payload = np.empty(mapped.shape, mapped.dtype) if loaded else mapped
    end = 0
    for path, head in zip(paths, heads, strict=True):
        rows: NDArray[Any] = np.empty(head.shape, head.dtype)
        if head.keys:
            rows = np.memmap(path, head.dtype, "r", head.offset, head.shape)
        if isinstance(payload, np.ndarray):
            payload[end : end + len(rows)] = rows
            rows = payload[end : end + len(rows)]
        if _payload_digest(rows) != head.sha256:
            raise _refusal(path, kind, "its payload does not match its digest (the file was damaged)")
        end += len(rows)
    extras = {name: np.concatenate([head.extras[name] for head in heads]) for name in first.extras}
    return Rows(payload, {key: row for row, key in enumerate(keys)}, first.settings, first.model, extras)


@dataclass
class _Head:
    """What a shard says of itself, and where its payload lies in the file."""

    keys: list[str]
    settings: str
    model: str
    sha256: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    extras: dict[str, NDArray[Any]]


def _head(path: Path, kind: str, index: str | None) -> _Head:
    with open_shard(path, kind, index=index) as file, _readable(path, kind):
        payload = file[PAYLOADS[kind]]
        if payload.chunks is not None or (payload.size and payload.id.get_offset() is None):
            raise _refusal(path, kind, "its payload is not one contiguous run of bytes")
        attributes = file.attrs
        return _Head(
            [key.decode() for key in file["key"][:]],
            attributes["settings"],
            str(attributes["model"]),
            str(attributes["sha256"]),
            payload.shape,
            payload.dtype,
            payload.id.get_offset() or 0,
            {name: file[name][:] for name in file if name not in {"key", "done", PAYLOADS[kind]}},
        )


def _memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


_VERBS = {"features": "features", "latents": "latents", "inpaint": "inpaint", "pixels": "pixels"}


def _fault(file: h5py.File, kind: str, settings: Any, model: str | None, index: str | None) -> str | None:
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
        if file[name].nbytes > file.id.get_filesize() and h5py.check_vlen_dtype(file[name].dtype) is None:
            return f"its {name!r} claims {file[name].nbytes:,} bytes, more than the file has"
    if {"key", "done", PAYLOADS[kind]} - set(file):
        return "it lacks key, done or its payload"
    rows = int(attributes["rows"])
    if file["key"].shape != (rows,) or file["done"].shape != (rows,) or not file["done"][:].all():
        return "it is not whole: rows are missing or not done"
    if kind != "pixels" and file[PAYLOADS[kind]].shape[:1] != (rows,):
        return "its payload has another number of rows than its keys"
    if settings is not None and attributes["settings"] != settings_text(settings):
        return f"it was made with other settings: {attributes['settings']}"
    if model is not None and attributes["model"] != model:
        return f"it was made with another model ({str(attributes['model'])[:12]}, expected {model[:12]})"
    if index is not None and attributes.get("index", "") != index:
        return f"it was made from another index ({str(attributes.get('index', ''))[:12]}, expected {index[:12]})"
    return None


def _refusal(path: Path, kind: str, reason: str) -> UserError:
    return refusal(path, reason, _VERBS[kind])


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


def _payload_digest(payload: NDArray[Any] | list[bytes]) -> str:
    """SHA-256 of an array's bytes, or of encoded images each preceded by its length."""
    digest = hashlib.sha256()
    if isinstance(payload, list):
        for encoded in payload:
            digest.update(len(encoded).to_bytes(8, "little") + encoded)
    else:
        digest.update(np.ascontiguousarray(payload).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
