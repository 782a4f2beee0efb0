"""`make gpu`: whatever becomes of a part, the summary has what it and the others found; what is missing is named."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tools.gpu import summary, wheels
from tools.gpu.__main__ import _run, environment_for
from tools.gpu.summary import Part

MACHINE = {"card": "NVIDIA X", "driver": {"driver_version": "1.2"}, "packages": {"torch": "2.11", "numpy": None}}
TESTED = """
print("tests/gpu/test_a.py::test_one[a b] PASSED [ 30%]")
print("tests/gpu/test_a.py::test_two FAILED [ 60%]", flush=True)
import time
time.sleep(600)
"""
MEASURED = """
import sys
from pathlib import Path
Path(sys.argv[1]).write_text('{"figures": {"gpu": [{"row": "latents", "rate": 3.5}]}}')
print("latents 3.5")
sys.exit("the driver is gone")
"""


def test_a_part_that_hangs_and_one_that_fails_leave_what_they_had_written(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    parts = [Part("machine"), Part("tests"), Part("bench")]
    commands = [f"print('''{json.dumps(MACHINE)}''')", TESTED, MEASURED]
    for number, (code, limit) in enumerate(zip(commands, (60, 3, 60), strict=True)):
        command = [sys.executable, "-c", code, str(work / "bench.json")]
        _run(parts, number, command, limit, work, out, os.environ)
    assert [part.ended for part in parts] == ["done", "stopped at its limit of 3 s", "failed with status 1"]
    _run(parts, 0, [], 0.5, work, out, os.environ)
    assert parts[0].ended == "not begun: no time left"
    text, content = summary.write(parts, work, out), json.loads((out / "summary.json").read_text())
    assert text.startswith("NVIDIA X, ") and "driver_version 1.2" in text and "torch 2.11; " in text
    assert "tests: 1 passed, 1 failed" in text and "test_a.py::test_two" in text
    assert "latents 3.5" in text and "the driver is gone" in text
    assert content["bench"] == [{"row": "latents", "rate": 3.5}]
    assert "test_one[a b] PASSED" in (out / "logs.txt").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["logs.txt", "summary.json", "summary.txt"]


def test_outcomes_are_read_from_the_lines_of_pytest() -> None:
    said = "t/a.py::b PASSED [ 1%]\nt/a.py::c[x y] SKIPPED (why) [ 2%]\nt/a.py::d ERROR [ 3%]\nERROR t/a.py::d - KeyError: 1\n"
    found = summary.tests(said)
    assert (found["passed"], found["failed"], found["skipped"], found["error"]) == (1, 0, 1, 1)
    assert found["which failed"] == ["t/a.py::d"] and found["reasons"] == ["t/a.py::d - KeyError: 1"]


def wheel(folder: Path, name: str, needs: str, files: dict[str, str]) -> None:
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\n{needs}\n")
        for path, text in files.items():
            archive.writestr(path, text)


def test_packed_wheels_are_importable_and_tell_what_they_need(tmp_path: Path) -> None:
    needs = (
        'Requires-Dist: other_one>=2\nRequires-Dist: numpy>=1; python_version < "3.15"\nRequires-Dist: x; extra == "y"'
    )
    wheel(tmp_path, "one", needs, {"one/__init__.py": "", "one-1.0.data/purelib/beside.py": ""})
    wheel(tmp_path, "other-one", "", {"other.py": ""})
    assert wheels.needs(tmp_path) == ['numpy>=1; python_version < "3.15"']
    assert wheels.unpack(tmp_path, tmp_path / "site") == ["one 1.0", "other one"]
    assert all((tmp_path / "site" / name).exists() for name in ("one/__init__.py", "beside.py", "other.py"))


def test_missing_packages_are_a_sentence_where_none_are_packed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert wheels.lacking() == []
    assert environment_for(tmp_path, dry=True)["DFEAT_TEST_DEVICE"] == "cpu"
    monkeypatch.setattr(wheels, "IMPORTED", ("numpy", "no_such_module"))
    monkeypatch.setattr(wheels, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match=r"has no no_such_module.*make gpu-pack"):
        environment_for(tmp_path, dry=True)


def test_every_package_that_is_packed_by_default_is_in_the_lock() -> None:
    lock = Path("requirements.lock").read_text()
    assert all(f"\n{name}==" in lock for name in wheels.LACKING)
