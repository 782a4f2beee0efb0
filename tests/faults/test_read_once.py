"""A reader hashes each byte of an artifact once: for its digest record, or without one for the payload's digest."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfeat.evaluation.origins import read_verdicts_origin
from dfeat.storage.records import FOLDER, record_path
from dfeat.storage.shards import read_rows
from dfeat.training.settings import TrainingSettings
from dfeat.training.sources import Inputs, read_sources
from dfeat.verify import verify_run
from tests.conftest import World

from .test_bit_rot import JOB_ARTIFACTS

unobserved_sha256 = hashlib.sha256
Hashed = list[tuple[str, int]]


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Hashed:
    """(digest, bytes) of everything that is hashed with SHA-256 from here on."""
    seen: Hashed = []

    class Counted:
        def __init__(self, content: Any = b"") -> None:
            self.hash, self.bytes = unobserved_sha256(), 0
            self.update(content)

        def update(self, content: Any) -> None:
            self.hash.update(content)
            self.bytes += memoryview(content).nbytes

        def hexdigest(self) -> str:
            seen.append((self.hash.hexdigest(), self.bytes))
            return self.hash.hexdigest()

    def of_file(file: io.BufferedReader, name: str) -> Any:
        assert name == "sha256"
        return Counted(file.read())

    monkeypatch.setattr(hashlib, "sha256", Counted)
    monkeypatch.setattr(hashlib, "file_digest", of_file)
    return seen


def digest_of(path: Path) -> str:
    return unobserved_sha256(path.read_bytes()).hexdigest()


READERS = {**JOB_ARTIFACTS, "verdicts.csv": ("judge", "verdicts.csv", lambda p: read_verdicts_origin(p).read_text(p))}
SHARDS = {
    **{kind: JOB_ARTIFACTS[kind] for kind in ("pixel cache", "latents", "features", "inpainted images")},
    "features, loaded": ("features", "features.h5", lambda path: read_rows([path], "features")),
    "features, mapped": ("features", "features.h5", lambda path: read_rows([path], "features", fits=0)),
}


@pytest.mark.parametrize("kind", READERS | SHARDS)
def test_a_reader_hashes_each_file_once_and_nothing_else(
    kind: str, undisturbed: Callable[[str], Path], tmp_path: Path, hashed: Hashed
) -> None:
    job, name, use = (READERS | SHARDS)[kind]
    shutil.copytree(undisturbed(job), tmp_path / "run")
    hashed.clear()
    use(tmp_path / "run" / name)
    files = {digest_of(path): path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert digest_of(tmp_path / "run" / name) in dict(hashed)
    assert len(dict(hashed)) == len(hashed)
    assert dict(hashed).items() <= files.items()


@pytest.mark.parametrize("kind", SHARDS)
def test_a_shard_without_a_record_has_its_payload_hashed_once(
    kind: str, undisturbed: Callable[[str], Path], tmp_path: Path, hashed: Hashed
) -> None:
    job, name, use = SHARDS[kind]
    shutil.copytree(undisturbed(job), tmp_path / "run")
    path = tmp_path / "run" / name
    record_path(path).unlink()
    hashed.clear()
    use(path)
    assert len(hashed) == 1
    assert 0 < hashed[0][1] <= path.stat().st_size


def test_a_training_hashes_each_of_its_inputs_once(world: World, hashed: Hashed) -> None:
    read_sources("black_out", Inputs(world.train, world.train / "pixels.h5", world.parts), TrainingSettings())
    assert Counter(hashed) == Counter(set(hashed))
    assert len(hashed) == 5  # index.csv, source.json, classes.json, parts.json, pixels.h5


def test_verify_hashes_each_large_file_once(world: World, tmp_path: Path, hashed: Hashed) -> None:
    for step in ("data", "occlusion"):
        shutil.copytree(world.root / step, tmp_path / "run" / step)
    hashed.clear()
    assert {finding.state for finding in verify_run(tmp_path / "run")} == {"whole"}
    paths = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.parent.name != FOLDER]
    paths += [path for path in paths if path.name in ("index.csv", "classes.json")]  # read with source.json again
    assert Counter(digest for digest, _ in hashed) == Counter(digest_of(path) for path in paths)
