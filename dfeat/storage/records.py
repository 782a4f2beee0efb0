"""Digest records: the SHA-256 of each artifact as written, so that readers reject a damaged file before using it.

What enters: an artifact's path. What leaves: its bytes, or an error that names it and the verb that makes it again.
The record of `folder/name` is `folder/.sha256/name`, in the format of `sha256sum -c`. The writer (`storage.atomic`)
adds the new digest before the new file takes its name and removes the old one afterwards. So whenever a process
dies, the record lists the digest of the file that has the name.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from dfeat.errors import MachineError, UserError
from dfeat.shortage import ShortageError, shortage
from dfeat.storage.provenance import bytes_digest, unguarded_file_digest

FOLDER: Final = ".sha256"
_DIGEST: Final = re.compile(rb"^[0-9a-f]{64}(?=  )", re.MULTILINE)


def record_path(path: Path) -> Path:
    """The path of an artifact's digest record."""
    return path.parent / FOLDER / path.name


def recorded_digests(path: Path) -> tuple[str, ...]:
    """The digests that an artifact may have: empty without a record; a damaged record gives one that nothing matches."""
    try:
        found = _DIGEST.findall(record_path(path).read_bytes())
    except FileNotFoundError:
        return ()
    return tuple(digest.decode() for digest in found) or ("unreadable",)


def check_file(path: Path, remake: str) -> str | None:
    """Compare an artifact with its digest record, reading the file once.

    Returns its SHA-256, or None, without hashing it, if it has no record. Raises UserError, naming the `dfeat` verb
    `remake`, if the file is missing, unreadable, or not what was written.
    """
    try:
        with path.open("rb"):  # before the record: a missing artifact is the error to report
            wanted = recorded_digests(path)
        digest = unguarded_file_digest(path) if wanted else None
    except OSError as error:
        raise cannot_read(path, remake, error) from None
    _compare(path, digest, wanted, remake)
    return digest


def read_digested(path: Path, remake: str) -> tuple[bytes, str]:
    """The bytes of an artifact and their SHA-256, hashed once and compared with the record before they are returned.

    A file without a record (copied from elsewhere) is accepted; `dfeat verify` reports it. Raises UserError as
    `check_file` does.
    """
    try:
        content = path.read_bytes()
        wanted = recorded_digests(path)
    except OSError as error:
        raise cannot_read(path, remake, error) from None
    digest = bytes_digest(content)
    _compare(path, digest, wanted, remake)
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


def _compare(path: Path, digest: str | None, wanted: tuple[str, ...], remake: str) -> None:
    if wanted and digest not in wanted:
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
