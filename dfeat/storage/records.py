"""Digest records: what each artifact's bytes were when it was written, so that damage is found before it is read.

What enters: an artifact's path. What leaves: its bytes, or a refusal that names it and the verb that makes it again.
The record of `folder/name` is `folder/.sha256/name`, in the format of `sha256sum -c`. The writer (`storage.atomic`)
puts the new digest there before the new file takes its name, beside the old digest, and takes the old one out
afterwards: whenever a process dies, what stands under the name has its digest in the record.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final

from dfeat.errors import MachineError, UserError

FOLDER: Final = ".sha256"
_DIGEST: Final = re.compile(rb"^[0-9a-f]{64}(?=  )", re.MULTILINE)


def record_path(path: Path) -> Path:
    """Where the digest record of an artifact lies."""
    return path.parent / FOLDER / path.name


def recorded_digests(path: Path) -> tuple[str, ...]:
    """The digests that the artifact may have, none where it has no record. A damaged record gives a digest of nothing."""
    try:
        found = _DIGEST.findall(record_path(path).read_bytes())
    except FileNotFoundError:
        return ()
    return tuple(digest.decode() for digest in found) or ("unreadable",)


def check_file(path: Path, remake: str) -> None:
    """Refuse an artifact that is missing or damaged since it was written. `remake` is the verb that makes it."""
    try:
        with path.open("rb") as file:
            wanted = recorded_digests(path)
            digest = hashlib.file_digest(file, "sha256").hexdigest() if wanted else None
    except OSError as error:
        raise cannot_read(path, remake, error) from None
    if digest is not None and digest not in wanted:
        raise refusal(path, "it is not what was written (it was damaged or changed since)", remake)


def read_bytes(path: Path, remake: str) -> bytes:
    """The bytes of an artifact, compared with its record before they are used.

    A file without a record (brought from elsewhere) is read as it is; `dfeat verify` names it. Raises UserError
    naming the file, what is wrong, and the verb `remake` that makes it.
    """
    try:
        content = path.read_bytes()
        wanted = recorded_digests(path)
    except OSError as error:
        raise cannot_read(path, remake, error) from None
    if wanted and hashlib.sha256(content).hexdigest() not in wanted:
        raise refusal(path, "it is not what was written (it was damaged or changed since)", remake)
    return content


def read_text(path: Path, remake: str) -> str:
    """The text of an artifact, see `read_bytes`."""
    try:
        return read_bytes(path, remake).decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal(path, f"it is no UTF-8 text ({error.reason})", remake) from None


def read_json(path: Path, remake: str) -> Any:
    """The JSON value of an artifact, see `read_bytes`."""
    try:
        return json.loads(read_text(path, remake))
    except (ValueError, RecursionError) as error:
        raise refusal(path, f"it is no JSON ({error})", remake) from None


def cannot_read(path: Path, remake: str, error: OSError) -> UserError:
    """The sentence for an artifact that the system does not hand out."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return UserError(f"{path} is missing; make it with `dfeat {remake}`")
    if isinstance(error, PermissionError | IsADirectoryError):
        return UserError(f"cannot read {path}: {error.strerror}")
    return MachineError(f"cannot read {path}: {error.strerror or error}; mend the cause and run again")


def refusal(path: Path, reason: str, remake: str) -> UserError:
    """The one sentence for an artifact that is not used."""
    return UserError(f"{path} cannot be used: {reason}; delete it and make it again with `dfeat {remake}`")
