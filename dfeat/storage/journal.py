"""The finished rows of a shard that is being made, so that a job that was killed goes on from them.

What enters: batches of finished rows. What leaves: the same rows, to the next job that makes the same shard from the same.
A job appends to a file of its own beside the shard, `<shard>.journal.<random>`, and holds a lock on it while it lives. It
reads the files of all others, so two jobs of one shard never write to one file. A record is the length of its content, the
SHA-256 of the content, and the content; the first record is the identity of the job, each other one a batch. What a kill
or a power failure cut off has another digest and is dropped. The files go when the shard has been written.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dfeat.progress import say
from dfeat.shortage import pass_on
from dfeat.storage.atomic import append, held, hold
from dfeat.storage.provenance import bytes_digest, settings_text

if TYPE_CHECKING:
    from dfeat.storage.shards import Shard

_FORMAT: Final = 1
_NAME: Final = re.compile(r"\.journal\.[0-9a-f]{8}$")
_LENGTH: Final = 8
_HEAD: Final = _LENGTH + 32
"""Bytes before the content of a record: its length, little-endian, and its SHA-256."""

Rows = Mapping[str, NDArray[Any]]


class Journal:
    """`rows`: every finished row of a shard by its key, those that earlier jobs left and those that were added since."""

    def __init__(self, shard: Path, identity: str) -> None:
        self.rows: dict[str, NDArray[Any]] = {}
        self._shard, self._identity = shard, identity
        self._sizes: dict[str, int] = {}
        self._path = shard.with_name(f"{shard.name}.journal.{secrets.token_hex(4)}")
        self._file: int | None = None
        self._one_at_a_time = Lock()

    def read(self) -> bool:
        """Read what other jobs have finished; returns whether the files of another identity stood there. These are removed."""
        strange = False
        for path in journals(self._shard):
            try:
                records = _records(path)
                if next(records, b"").decode(errors="replace") == self._identity:
                    for record in records:
                        size, rows = _unpacked(record)
                        self.rows |= rows
                        self._sizes |= dict.fromkeys(rows, size)
                elif not held(path):
                    strange = True
                    path.unlink(missing_ok=True)
            except OSError as error:  # the job that it was of has ended, or another user's file
                pass_on(error, str(path))
        return strange

    def add(self, rows: Rows, size: int) -> None:
        """Append a batch of finished rows, computed `size` at a time; several threads may.

        Raises UserError or MachineError, as `write_files` does, where they cannot be written; the file is then as before.
        """
        with self._one_at_a_time:
            # A row that is not finite ends the job later, by name. It must not end the next one without being computed.
            if all(row.dtype.kind != "f" or np.isfinite(row).all() for row in rows.values()):
                self._append(_packed(rows, size))
            self.rows |= rows

    def least_size(self, keys: Iterable[str], otherwise: int) -> int:
        """The least number of rows that batches with these keys were computed at a time; `otherwise` if none stands."""
        return min((self._sizes[key] for key in keys if key in self._sizes), default=otherwise)

    def close(self) -> None:
        """Give up the file; the batches in it stay."""
        if self._file is not None:
            empty = os.fstat(self._file).st_size == 0
            os.close(self._file)
            self._file = None
            if empty:
                self._path.unlink(missing_ok=True)

    def _append(self, content: bytes) -> None:
        if self._file is None:
            self._file = hold(self._path)
        begun = os.fstat(self._file).st_size > 0
        append(self._file, (b"" if begun else _record(self._identity.encode())) + _record(content), self._shard)


@contextlib.contextmanager
def journal_of(path: Path, shard: Shard, **further: str) -> Iterator[Journal]:
    """The journal of a shard for a block that computes its rows and writes it to `path`; removed after the block.

    Rows of an earlier job stand if all that `shard` records of its making is the same, and `further`: what else its bytes
    depend on. An exception leaves the journal for the next job.
    """
    made_from = [_FORMAT, shard.kind, shard.recipe, shard.model, shard.index, shard.parts, shard.number]
    made_as = settings_text([*made_from, settings_text(shard.settings), shard.keys, further])
    journal = Journal(path, bytes_digest(made_as.encode()))
    if journal.read():
        say(f"{path}: the rows that an earlier job left are of other settings, inputs or another device; none is used")
    if journal.rows:
        say(f"{path}: {len(journal.rows)} of {len(shard.keys)} rows stand, which an earlier job computed")
    try:
        yield journal
    finally:
        journal.close()
    remove_journals(path)


def journals(shard: Path) -> list[Path]:
    """The journals of a shard that is, or is to be, at a path."""
    folder = shard.parent
    found = folder.iterdir() if folder.is_dir() else iter(())
    return sorted(path for path in found if path.name.startswith(f"{shard.name}.journal.") and is_journal(path))


def journal_rows(path: Path) -> int:
    """How many rows a journal has, by the first lines of its batches; the rows are neither read nor checked."""
    rows = 0
    try:
        with path.open("rb") as file:
            while len(head := file.read(_HEAD)) == _HEAD:
                start, length = file.tell(), int.from_bytes(head[:_LENGTH], "little")
                described = file.readline(length)
                if described.startswith(b"["):  # the identity, which is the first record, is a digest
                    rows += len(json.loads(described)[1])
                file.seek(start + length)
    except (OSError, ValueError):  # it is gone, or cut off
        return rows
    return rows


def is_journal(path: Path) -> bool:
    """Whether a file is the journal of a shard, by its name."""
    return _NAME.search(path.name) is not None


def remove_journals(shard: Path) -> None:
    """Remove the journals of a shard that is written, but those of jobs that are still at work on it."""
    for path in journals(shard):
        if not held(path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _record(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH, "little") + bytes.fromhex(bytes_digest(content)) + content


def _records(path: Path) -> Iterator[bytes]:
    """The contents of a journal's records up to the first that is not whole."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size
        while len(head := file.read(_HEAD)) == _HEAD:
            length, digest = int.from_bytes(head[:_LENGTH], "little"), head[_LENGTH:].hex()
            left -= _HEAD + length
            content = file.read(length) if left >= 0 else b""
            if bytes_digest(content) != digest:
                return
            yield content


def _packed(rows: Rows, size: int) -> bytes:
    """A batch as bytes: a line of JSON with `size` and each row's key, dtype and shape; then the rows, end to end."""
    described = {key: [row.dtype.str, row.shape] for key, row in rows.items()}
    return b"".join([json.dumps([size, described]).encode(), b"\n", *(row.tobytes() for row in rows.values())])


def _unpacked(content: bytes) -> tuple[int, dict[str, NDArray[Any]]]:
    line, _, payload = content.partition(b"\n")
    size, described = json.loads(line)
    rows, at = {}, 0
    for key, (dtype, shape) in described.items():
        rows[key] = np.frombuffer(payload, dtype, math.prod(shape), at).reshape(shape)
        at += rows[key].nbytes
    return size, rows
