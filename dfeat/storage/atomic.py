"""The one way a file is written: whole under its final name, or not at all.

What enters: bytes, or a function that fills a temporary file. What leaves: the file, synced, read back and
verified before it is renamed into place. A crash leaves only `<name>.tmp.<host>.<pid>.<random>` beside it;
the next write of that name sweeps those whose process is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dfeat.errors import UserError


@contextlib.contextmanager
def staged(path: Path, reserve: int = 0, verify: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, sync, verify and rename it to `path`.

    `reserve` bytes are allocated first, so that a full disk is an error before anything is computed.
    `verify` reads the closed file and raises if it is not what was meant. On any error the temporary file
    goes and nothing stands under the final name. An OSError (disk full, no permission) becomes a UserError
    that names the file and the cause.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = path.with_name(f"{path.name}.tmp.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}")
        with temporary.open("xb") as file:
            if reserve:
                os.posix_fallocate(file.fileno(), 0, reserve)
    except OSError as error:
        with contextlib.suppress(OSError, UnboundLocalError):
            temporary.unlink(missing_ok=True)
        raise _cannot_write(path, error) from None
    try:
        yield temporary
        _sync(temporary)
        if verify is not None:
            verify(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, payload: bytes | memoryview) -> None:
    """Write `payload` to `path` atomically; what was written is read back and compared by digest."""
    wanted = hashlib.sha256(payload).digest()

    def verify(temporary: Path) -> None:
        with temporary.open("rb") as file:
            if hashlib.file_digest(file, "sha256").digest() != wanted:
                raise OSError("what was written reads back differently; the disk is not to be trusted")

    with staged(path, reserve=len(payload), verify=verify) as temporary, temporary.open("r+b") as file:
        file.write(payload)
        file.truncate(len(payload))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: keys in the order given, floats as Python prints them, one trailing newline."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write {path}: {error.strerror or error}; nothing was left there, mend the cause and run again"
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove temporary files of `path` whose process on this host is gone."""
    host = socket.gethostname()
    for stale in path.parent.glob(f"{glob_escaped(path.name)}.tmp.{glob_escaped(host)}.*"):
        process = stale.name.rsplit(".", 2)[-2]
        if process.isdigit() and not _alive(int(process)):
            stale.unlink(missing_ok=True)


def glob_escaped(name: str) -> str:
    """`name` with the characters that glob treats specially taken literally."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
