"""Writing: whole under the final name, or not at all."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dfeat.errors import UserError
from dfeat.storage.atomic import staged, write_bytes, write_json


def test_a_file_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep" / "file", b"content")
    write_bytes(tmp_path / "deep" / "file", b"new")
    assert (tmp_path / "deep" / "file").read_bytes() == b"new"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_an_error_while_writing_leaves_what_was_there(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), staged(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


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
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["file", alive.name, elsewhere.name])


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "taken" / "file.json", {})


def test_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []
