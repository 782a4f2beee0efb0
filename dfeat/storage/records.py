"""Digest records: the SHA-256 of each artifact as written, so that readers reject a damaged file before using it.

What enters: an artifact's path. What leaves: its bytes, or an error that names it and the verb that makes it again.
The record of `folder/name` is `folder/.sha256/name`, in the format of `sha256sum -c`. The writer (`storage.atomic`)
adds the new digest before the new file takes its name and removes the old one afterwards. So whenever a process
dies, the record lists the digest of the file that has the name.

In a run's folder the record names the file by way of that folder: `../../data/val/index.csv` for data/val/index.csv. From
the file's own folder that is the file itself. Copied to another place, with its record, the artifact is therefore not
taken for what belongs there, by readers or by `sha256sum -c`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

from dfeat.errors import MachineError, UserError
from dfeat.places import place_of
from dfeat.shortage import ShortageError, shortage
from dfeat.storage.provenance import bytes_digest, unguarded_file_digest

FOLDER: Final = ".sha256"
_LINE: Final = re.compile(rb"^([0-9a-f]{64})  (.+)$", re.MULTILINE)


def record_path(path: Path) -> Path:
    """The path of an artifact's digest record."""
    return path.parent / FOLDER / path.name


def recorded_name(path: Path) -> str:
    """How a record names its artifact: by way of the run's folder, or plainly where the path is not one of a run."""
    place = place_of(path)
    return f"{'../' * place[1].count('/')}{place[1]}" if place else path.name


def recorded_digests(path: Path) -> tuple[str, ...]:
    """The digests that an artifact may have: empty without a record.

    A damaged record, or that of an artifact of another place, gives one that nothing matches.
    """
    lines = _recorded(path)
    if lines is None:
        return ()
    return tuple(digest for digest, name in lines if _belongs(path, name)) or (f"nothing fits {path}",)


def is_digest(text: str) -> bool:
    """Whether a text is a SHA-256 as records have it."""
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _recorded(path: Path) -> list[tuple[str, str]] | None:
    """The lines of a record, digest and name; None without a record."""
    try:
        content = record_path(path).read_bytes()
    except FileNotFoundError:
        return None
    return [(digest.decode(), os.fsdecode(name)) for digest, name in _LINE.findall(content)]


def _belongs(path: Path, name: str) -> bool:
    """Whether a record's name is that of the artifact at `path`. A plain name, written outside of any run, fits any place,
    and a place outside of any run takes any artifact."""
    return "/" not in name or place_of(path) is None or name == recorded_name(path)


def check_file(path: Path, remake: str) -> str | None:
    """Compare an artifact with its digest record, reading the file once.

    Returns its SHA-256, or None, without hashing it, if it has no record. Raises UserError, naming the `dfeat` verb
    `remake`, if the file is missing, unreadable, or not what was written.
    """
    try:
        with path.open("rb"):  # before the record: a missing artifact is the error to report
            wanted = recorded_digests(path)
        digest = unguarded_file_digest(path) if wanted else None
        while wanted and digest not in wanted:
            wanted = _changed_since(path, wanted, remake)
            digest = unguarded_file_digest(path)
    except OSError as error:
        raise cannot_read(path, remake, error) from None
    return digest


def read_digested(path: Path, remake: str) -> tuple[bytes, str]:
    """The bytes of an artifact and their SHA-256, hashed once and compared with the record before they are returned.

    A file without a record (copied from elsewhere) is accepted; `dfeat verify` reports it. Raises UserError as
    `check_file` does.
    """
    try:
        with path.open("rb"):
            wanted = recorded_digests(path)
        content = path.read_bytes()
        digest = bytes_digest(content)
        while wanted and digest not in wanted:
            wanted = _changed_since(path, wanted, remake)
            content = path.read_bytes()
            digest = bytes_digest(content)
    except OSError as error:
        raise cannot_read(path, remake, error) from None
    return content, digest


def read_bytes(path: Path, remake: str) -> bytes:
    """The bytes of an artifact, see `read_digested`."""
    return read_digested(path, remake)[0]


def read_text(path: Path, remake: str) -> str:
    """The text of an artifact, see `read_digested`."""
    return decoded(path, read_bytes(path, remake), remake)


def read_json(path: Path, remake: str) -> Any:
    """The JSON value of an artifact, see `read_digested`."""
    return parsed(path, read_bytes(path, remake), remake)


def decoded(path: Path, content: bytes, remake: str) -> str:
    """The text that an artifact's bytes encode. Raises UserError if they are not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal(path, f"it is not UTF-8 text ({error.reason})", remake) from None


def parsed(path: Path, content: bytes, remake: str) -> Any:
    """The JSON value that an artifact's bytes encode. Raises UserError if they are not JSON."""
    try:
        return json.loads(decoded(path, content, remake))
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"it is not JSON ({error})", remake) from None


def _changed_since(path: Path, wanted: tuple[str, ...], remake: str) -> tuple[str, ...]:
    """What an artifact's record lists now, if it was made again since the record was read as `wanted`.

    Raises UserError if the record is the same: then the artifact is not what was written, or not of this place.
    """
    now = recorded_digests(path)
    if now != wanted:
        return now
    strange = next((name for _, name in _recorded(path) or () if not _belongs(path, name)), None)
    if strange is not None:
        written, place = strange.removeprefix("../" * strange.count("../")), place_of(path)
        assert place is not None
        raise refusal(path, f"it was written as {written} of a run and is not {place[1]}", remake)
    raise refusal(path, "it is not what was written (it was damaged or changed since)", remake)


def cannot_read(path: Path, remake: str, error: OSError) -> UserError | ShortageError:
    """The error for an artifact that the operating system cannot open or read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UserError(f"{path} is missing; make it with `dfeat {remake}`")
    if isinstance(error, PermissionError | IsADirectoryError):
        return UserError(f"cannot read {path}: {error.strerror}; it must be a file you may read")
    return shortage(error, str(path)) or MachineError(
        f"cannot read {path}: {error.strerror or error}; mend the cause and run again"
    )


def refusal(path: Path, reason: str, remake: str) -> UserError:
    """The error for an artifact that is rejected."""
    return UserError(f"{path} cannot be used: {reason}; delete it and make it again with `dfeat {remake}`")
