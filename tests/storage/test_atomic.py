"""Writing: whole under the final name, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from dfeat.errors import MachineError, UserError
from dfeat.storage import atomic
from dfeat.storage.atomic import remove, staged, write_bytes, write_files, write_json
from dfeat.storage.records import FOLDER, read_bytes, read_json, record_path, recorded_digests


def names(folder: Path) -> list[str]:
    """The files of a folder but for the digest records."""
    return sorted(path.name for path in folder.iterdir() if path.name != FOLDER)


def test_a_file_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep" / "file", b"content")
    write_bytes(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert names(tmp_path / "deep") == ["file"]


def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), staged(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_what_reads_back_differently_is_refused(tmp_path: Path) -> None:
    def verify(path: Path) -> None:
        if path.read_bytes() != b"right":
            raise OSError("not what was written")

    refused = pytest.raises(UserError, match=r"cannot write .*not what was written")
    with refused, staged(tmp_path / "file", verify=verify) as temporary:
        temporary.write_bytes(b"wrong")
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_dead_processes_are_swept_and_living_ones_kept(tmp_path: Path) -> None:
    host = socket.gethostname()
    dead = tmp_path / f"file.tmp.{host}.999999999.abcd"
    alive = tmp_path / f"file.tmp.{host}.{os.getpid()}.abcd"
    elsewhere = tmp_path / "file.tmp.other-host.999999999.abcd"
    for path in (dead, alive, elsewhere):
        path.write_bytes(b"")
    write_bytes(tmp_path / "file", b"x")
    assert names(tmp_path) == sorted(["file", alive.name, elsewhere.name])


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "taken" / "file.json", {})


def test_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_what_sha256sum_checks(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a file", b"old")
    write_bytes(tmp_path / "a file", b"content")
    record = record_path(tmp_path / "a file")
    checked = subprocess.run(["sha256sum", "-c", record], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert checked.stdout == "a file: OK\n"


@pytest.mark.parametrize("where", ["file", ".sha256/file"])
def test_a_flipped_byte_in_a_file_or_its_record_is_found(tmp_path: Path, where: str) -> None:
    write_bytes(tmp_path / "file", b"content")
    whole = (tmp_path / where).read_bytes()
    for position in range(min(len(whole), 64)):
        (tmp_path / where).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(UserError, match=r"file cannot be used: .*make it again with `dfeat parts`"):
            read_bytes(tmp_path / "file", "parts")
    (tmp_path / where).write_bytes(whole)
    assert read_bytes(tmp_path / "file", "parts") == b"content"


def test_a_file_without_a_record_is_read_and_one_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "brought").write_text("[1]")
    assert read_json(tmp_path / "brought", "parts") == [1]
    with pytest.raises(UserError, match="is missing; make it with `dfeat parts`"):
        read_json(tmp_path / "gone", "parts")
    (tmp_path / "brought").write_text("[1")
    with pytest.raises(UserError, match="not JSON"):
        read_json(tmp_path / "brought", "parts")


@pytest.mark.parametrize("dies_at", range(12))
def test_wherever_a_write_dies_the_file_has_its_digest_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Every system call that changes a name is a place to die; there is no clean-up, as after SIGKILL."""
    write_files({tmp_path / "a": b"old a", tmp_path / "b": b"old b"})
    steps = iter(range(100))
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if next(steps) >= dies_at:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with contextlib.suppress(KeyboardInterrupt):
        write_files({tmp_path / "a": b"new a", tmp_path / "b": b"new b"})
    monkeypatch.undo()
    assert read_bytes(tmp_path / "a", "x") in (b"old a", b"new a")
    assert read_bytes(tmp_path / "b", "x") in (b"old b", b"new b")


def test_files_of_one_job_are_all_written_before_the_first_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic.reserve

    def full(descriptor: int, size: int) -> None:
        if size == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor, size)

    monkeypatch.setattr(atomic, "reserve", full)
    with pytest.raises(MachineError, match="second: No space left on device"):
        write_files({tmp_path / "first": b"1", tmp_path / "second": b"333"})
    assert list(tmp_path.iterdir()) == []


def test_a_removed_artifact_takes_its_record_along(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"x")
    remove(tmp_path / "file")
    assert recorded_digests(tmp_path / "file") == ()
    assert names(tmp_path) == []


def test_two_writers_of_one_file_leave_a_file_and_its_record(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for turn in range(10):
            write_bytes(tmp_path / "file", f"{number} {turn}".encode())

    writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert read_bytes(tmp_path / "file", "x")
    assert len(recorded_digests(tmp_path / "file")) == 1
