"""`dfeat verify`: every artifact is looked at, and damage, strangers and leftovers are told apart."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from dfeat.cli import main
from dfeat.data.pixels import cache_index
from dfeat.storage.records import record_path
from dfeat.verify import verify_run
from tests.conftest import World


@pytest.fixture
def run(world: World, tmp_path: Path) -> Path:
    """A copy of the early steps of a run."""
    for step in ("data", "occlusion"):
        shutil.copytree(world.root / step, tmp_path / "run" / step)
    return tmp_path / "run"


def bad(run: Path) -> dict[str, str]:
    return {finding.path: finding.why for finding in verify_run(run) if finding.state == "bad"}


def test_every_artifact_of_a_whole_run_is_listed(run: Path) -> None:
    findings = list(verify_run(run))
    assert {finding.state for finding in findings} == {"whole"}
    assert {finding.path for finding in findings} == {
        path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file() and path.parent.name != ".sha256"
    }


def test_a_flipped_byte_in_any_file_is_named(run: Path) -> None:
    for finding in verify_run(run):
        path = run / finding.path
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
        assert "not what was written" in bad(run)[finding.path]
        path.write_bytes(whole)


def test_a_file_without_record_and_one_of_another_index_are_named(run: Path, world: World) -> None:
    record_path(run / "occlusion/parts.json").unlink()
    cache_index(run / "data/dfeat", world.stage("pixels"), run / "data/imagenet_val/pixels.h5")
    found = bad(run)
    assert "no digest record" in found.pop("occlusion/parts.json")
    assert "another index" in found.pop("data/imagenet_val/pixels.h5")
    assert not found


def test_the_command_lists_all_and_its_status_says_what_was_found(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["dfeat", "verify", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    (run / "data" / f"index.csv.tmp.{socket.gethostname()}.{os.getpid()}.00").touch()
    assert status(str(run)) == 0
    printed = capsys.readouterr().out
    assert "left over" in printed
    assert printed.count("whole") == len(list(verify_run(run)))
    for name in ("dfeat/problems.csv", "train/annotations.json"):
        (run / "data" / name).write_text("")
    assert status(str(run)) == 1
    printed = capsys.readouterr().out
    assert "2 bad, 1 left over" in printed
    assert "data/imagenet_val/index.csv" in printed
    assert status(str(run / "data")) == 2
