"""Atomic writes: a file appears whole under its final name, or not at all. All files are written here.

What enters: bytes, or a function that fills a temporary file. What leaves: the file and its digest record. The order
that makes this hold: reserve space, write, fsync the file, read it back and compare, write the digest record, rename
(atomic within a folder), fsync the folder so that the rename survives a power failure. Files that belong together are
all written and verified before the first of them takes its name. A crash leaves only
`<name>.tmp.<host>.<pid>.<random>` beside it; the next write of that name removes those whose process is dead. A journal
(`storage.journal`) alone grows under its name, a record at a time, and is no artifact.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dfeat.errors import MACHINE, MachineError, UserError
from dfeat.shortage import ShortageError, shortage
from dfeat.storage.provenance import bytes_digest, unguarded_file_digest
from dfeat.storage.records import FOLDER, is_digest, record_path, recorded_digests, recorded_name

Payload = bytes | memoryview
UNDER_WAY: Final = ".under-way"
"""A file in a run's folder that whoever makes the run holds a shared lock on."""
_TEMPORARY: Final = re.compile(r"\.tmp\.(.+)\.(\d+)\.[0-9a-f]+$")
_marks: list[int] = []


@contextlib.contextmanager
def staged(path: Path, verify: Callable[[Path], object] | None = None, *, recorded: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`; after the block, sync and verify it and rename it to `path`.

    `recorded=False` writes no digest record, for files that are not a run's. The block must `reserve` the space it needs before it writes; `verify` reads the closed file and raises if its
    content is not the intended one. On any error the temporary file is removed and what stood under the final name
    stays. Raises UserError if the file cannot be written, MachineError for a full disk or a device error.
    """
    with _temporaries([path]) as (temporary,):
        yield temporary
        _sync(temporary)
        if verify is not None:
            verify(temporary)
        _publish({path: (temporary, unguarded_file_digest(temporary) if recorded else "")}, recorded)


def write_files(contents: Mapping[Path, Payload], *, recorded: bool = True) -> None:
    """Write the files of one job: all are read back and compared by digest before the first takes its name.

    A full disk therefore leaves none of them. `recorded=False` writes no digest record (for drawn input images).
    Raises UserError or MachineError as `staged` does.
    """
    written: dict[Path, tuple[Path, str]] = {}
    with _temporaries(list(contents)) as temporaries:
        for (path, payload), temporary in zip(contents.items(), temporaries, strict=True):
            digest = bytes_digest(payload)
            try:
                with temporary.open("r+b") as file:
                    reserve(file.fileno(), memoryview(payload).nbytes)
                    file.write(payload)
                _sync(temporary)
                if unguarded_file_digest(temporary) != digest:
                    raise OSError("the file reads back differently from what was written, so the disk is faulty")
            except OSError as error:
                raise _cannot_write(path, error) from error
            written[path] = temporary, digest
        _publish(written, recorded)


def link_files(targets: Mapping[Path, tuple[Path, str]]) -> None:
    """Publish one job's files as relative links; `targets` has each one's target and SHA-256. Raises as `staged`."""
    with _temporaries(list(targets)) as temporaries:
        for (path, (target, _)), temporary in zip(targets.items(), temporaries, strict=True):
            temporary.unlink()
            temporary.symlink_to(os.path.relpath(target, path.parent))
        _publish({path: (link, targets[path][1]) for path, link in zip(targets, temporaries, strict=True)})


def write_bytes(path: Path, payload: Payload, *, recorded: bool = True) -> None:
    """Write `payload` to `path`, see `write_files`."""
    write_files({path: payload}, recorded=recorded)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, see `json_bytes`."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """JSON: keys in the order given, floats as Python prints them, one trailing newline. ValueError for NaN."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def mark_under_way(run: Path) -> None:
    """Mark a run as being made, for the life of this process; several processes may do so at once."""
    run.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(run / UNDER_WAY, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):  # the file system has no locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    _marks.append(descriptor)


def under_way(run: Path) -> bool:
    """Whether a process that marked the run is alive; False on a file system without locks."""
    return held(run / UNDER_WAY)


def hold(path: Path) -> int:
    """Make a file to append to and hold a shared lock on it, as long as the descriptor that is returned is open.

    Raises as `staged` does.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
    except OSError as error:
        raise _cannot_write(path, error) from error
    with contextlib.suppress(OSError):  # the file system has no locks
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def held(path: Path) -> bool:
    """Whether a process that holds a shared lock on a file is alive; False on a file system without locks."""
    try:
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The holders' locks are shared, so this one succeeds, unless a file system without locks answers EAGAIN to all.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return True
    except OSError:
        return False
    return False


def append(descriptor: int, payload: bytes, path: Path) -> None:
    """Append to a file of `hold`, whole or not at all, without waiting for the disk; `path` is what an error names.

    Raises as `staged` does.
    """
    end = os.fstat(descriptor).st_size
    try:
        left = memoryview(payload)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, end)
        raise _cannot_write(path, error) from error


def append_line(path: Path, line: bytes, anew: bool = False) -> None:
    """Append a line to a file of measurements, or begin it `anew`. It is no artifact: where it cannot be written, it is not."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if anew else 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def left_by(path: Path) -> tuple[str, bool] | None:
    """Of a temporary file, the host of the process that writes it and whether that may be alive; None for another file."""
    found = _TEMPORARY.search(path.name)
    if found is None:
        return None
    host, process = found.groups()
    return host, host != socket.gethostname() or _alive(int(process))


def reserve(descriptor: int, size: int) -> None:
    """Allocate `size` bytes of an open file, so that a full disk raises OSError before anything is written."""
    if size:
        os.posix_fallocate(descriptor, 0, size)


def remove(path: Path) -> None:
    """Remove an artifact and its record, the file first, and what dead processes left of either."""
    for one in (path, record_path(path)):
        one.unlink(missing_ok=True)
        _sweep(one)


@contextlib.contextmanager
def locked(folder: Path, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Serialise writers of one folder, so that files that belong together stay so; `waiting` is called before a wait."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held_by = (folder / ".lock").open("ab")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    with held_by as file:
        with contextlib.suppress(OSError):  # the file system has no locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temporaries(paths: list[Path]) -> Iterator[list[Path]]:
    """Yield an empty temporary file beside each path, removed after the block; an OSError raises as `staged` does."""
    made: list[Path] = []
    at = paths[0]
    try:
        for at in paths:
            at.parent.mkdir(parents=True, exist_ok=True)
            _sweep(at)
            temporary = at.with_name(f"{at.name}.tmp.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}")
            with temporary.open("xb"):
                made.append(temporary)
        yield made
    except OSError as error:
        raise _cannot_write(at, error) from error
    finally:
        for temporary in made:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _publish(written: dict[Path, tuple[Path, str]], recorded: bool = True) -> None:
    """Rename synced temporary files to their final names.

    Until a rename the old file stands under the name, after it the new one, and a crash may come between any two
    steps. So the record first lists both digests, then the files are renamed, and only then the old digest goes.
    """
    folders = {path.parent for path in written}
    with contextlib.ExitStack() as stack:
        if recorded:
            for folder in sorted(folders):
                stack.enter_context(locked(folder / FOLDER))
            _write_records({path: _with_standing(digest, path) for path, (_, digest) in written.items()})
        for path, (temporary, _) in written.items():
            temporary.replace(path)
        for folder in folders:
            _sync(folder)
        if recorded:
            doubled = {path: (digest,) for path, (_, digest) in written.items() if len(recorded_digests(path)) > 1}
            with contextlib.suppress(OSError, UserError, ShortageError):  # a second valid digest does no harm
                _write_records(doubled)


def _with_standing(digest: str, path: Path) -> tuple[str, ...]:
    """The new digest, then those of the file that has the name now, which stay valid until the rename."""
    standing = recorded_digests(path) if path.is_file() else ()
    return (digest, *(old for old in standing if old != digest and is_digest(old)))


def _write_records(digests: Mapping[Path, tuple[str, ...]]) -> None:
    contents = {
        record_path(path): b"".join(
            digest.encode() + b"  " + os.fsencode(recorded_name(path)) + b"\n" for digest in of_path
        )
        for path, of_path in digests.items()
    }
    if contents:
        write_files(contents, recorded=False)


def _cannot_write(path: Path, error: OSError) -> UserError | ShortageError:
    short = shortage(error, str(path))
    if short is not None:
        return short
    kind = MachineError if error.errno in MACHINE else UserError
    cause = os.strerror(error.errno) if error.errno else str(error)  # h5py's own text is a page long
    return kind(f"cannot write {path}: {cause}; nothing was left there, mend the cause and run again")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove temporary files of `path` whose process on this host is gone."""
    host = socket.gethostname()
    for stale in path.parent.glob(f"{glob.escape(path.name)}.tmp.{glob.escape(host)}.*"):
        process = stale.name.rsplit(".", 2)[-2]
        if process.isdigit() and not _alive(int(process)):
            stale.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
