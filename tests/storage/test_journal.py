"""The journal of a shard: whole batches of its own job are read back, however its file ended, and nothing else is."""

from __future__ import annotations

import random
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dfeat.errors import MachineError
from dfeat.storage.journal import Journal, is_journal, journal_of, journals, remove_journals
from dfeat.storage.shards import Shard

SHARD = Shard("latents", 3, {"a": 1}, "model", [f"image {n} é" for n in range(9)], [], {}, {}, "index", "parts", "0/2")
BATCHES = [{SHARD.keys[n]: np.full((4, 2, 2), n, np.float16) for n in range(start, start + 3)} for start in (0, 3, 6)]


class Killed(Exception):
    """In place of a kill."""


def left_by_a_killed_job(path: Path, shard: Shard = SHARD, **further: str) -> Path:
    """The journal that a job leaves which was killed after three batches, computed 3, 3 and 2 rows at a time."""
    with pytest.raises(Killed), journal_of(path, shard, **further) as journal:
        for batch, size in zip(BATCHES, (3, 3, 2), strict=True):
            journal.add(batch, size)
        raise Killed
    (left,) = journals(path)
    return left


def test_rows_come_back_as_they_were_and_go_with_the_end_of_the_job(tmp_path: Path) -> None:
    path = tmp_path / "0-of-2.h5"
    assert is_journal(left_by_a_killed_job(path))
    with journal_of(path, SHARD) as journal:
        assert list(journal.rows) == SHARD.keys
        for batch in BATCHES:
            for key, row in batch.items():
                assert journal.rows[key].dtype == row.dtype and (journal.rows[key] == row).all()
        assert journal.least_size(SHARD.keys, 8) == 2
        assert journal.least_size(SHARD.keys[:3], 8) == 3
        assert journal.least_size(["another"], 8) == 8
    assert not list(tmp_path.iterdir())


def test_pictures_of_any_length_come_back(tmp_path: Path) -> None:
    pictures = {
        name: np.frombuffer(bytes(range(length)), np.uint8) for name, length in (("a", 0), ("b", 1), ("c", 200))
    }
    path = tmp_path / "0-of-1.h5"
    with pytest.raises(Killed), journal_of(path, SHARD) as journal:
        journal.add(pictures, 3)
        raise Killed
    with journal_of(path, SHARD) as journal:
        assert {name: row.tobytes() for name, row in journal.rows.items()} == {
            name: row.tobytes() for name, row in pictures.items()
        }


def test_wherever_a_journal_ends_or_is_damaged_whole_batches_are_read(tmp_path: Path) -> None:
    path = tmp_path / "0-of-2.h5"
    left = left_by_a_killed_job(path)
    content = left.read_bytes()
    rng = random.Random("journal")
    seen = set()
    for cut in (*range(0, len(content), 17), len(content) - 1):
        for damage in (
            content[:cut],
            content[:cut] + bytes([content[cut] ^ 1 << rng.randrange(8)]) + content[cut + 1 :],
        ):
            left.write_bytes(damage)
            journal = Journal(path, "")
            journal._identity = content[40:104].decode()
            journal.read()
            whole = len(journal.rows) // 3
            assert list(journal.rows) == SHARD.keys[: 3 * whole]
            for key, row in journal.rows.items():
                assert (row == BATCHES[SHARD.keys.index(key) // 3][key]).all()
            seen.add(whole)
            left.touch()
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(
    "other",
    [{"kind": "features"}, {"recipe": 4}, {"settings": {"a": 2}}, {"model": "x"}, {"keys": SHARD.keys[1:]}, {"index": "x"},
     {"parts": ""}, {"number": "1/2"}],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_rows_of_another_job_are_thrown_away(
    other: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "0-of-2.h5"
    left_by_a_killed_job(path)
    with journal_of(path, replace(SHARD, **other)) as journal:  # type: ignore[arg-type]
        assert not journal.rows
        assert not journals(path)
    assert "none is used" in capsys.readouterr().err


def test_rows_of_another_device_are_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "0-of-2.h5"
    left_by_a_killed_job(path, device="one")
    with journal_of(path, SHARD, device="another") as journal:
        assert not journal.rows


def test_the_journal_of_a_living_job_is_read_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "0-of-2.h5"
    with journal_of(path, SHARD) as living:
        living.add(BATCHES[0], 3)
        (own,) = journals(path)
        with journal_of(path, SHARD) as second:
            assert list(second.rows) == SHARD.keys[:3]
            second.add(BATCHES[1], 3)
            assert len(journals(path)) == 2
        with journal_of(path, replace(SHARD, model="another")) as stranger:
            assert not stranger.rows
        assert journals(path) == [own]
        living.add(BATCHES[1], 3)
        assert own.exists()
    assert not list(tmp_path.iterdir())


def test_rows_that_are_not_finite_are_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "0-of-2.h5"
    with pytest.raises(Killed), journal_of(path, SHARD) as journal:
        journal.add({**BATCHES[0], SHARD.keys[1]: np.full((4, 2, 2), np.nan, np.float16)}, 3)
        journal.add(BATCHES[1], 3)
        assert len(journal.rows) == 6
        raise Killed
    with journal_of(path, SHARD) as journal:
        assert list(journal.rows) == list(BATCHES[1])


@pytest.fixture
def at_most() -> Iterator[Callable[[int], None]]:
    """Files of this process may not grow beyond so many bytes, as on a disk that is full by then."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_batch_that_cannot_be_written_is_a_sentence_and_leaves_the_journal_as_it_was(
    tmp_path: Path, at_most: Callable[[int], None]
) -> None:
    path = tmp_path / "0-of-2.h5"
    size = left_by_a_killed_job(path).stat().st_size
    remove_journals(path)
    for batches in (1, 2, 0):
        with pytest.raises(MachineError, match=r"cannot write .*0-of-2\.h5: "), journal_of(path, SHARD) as journal:
            for batch in BATCHES[:batches]:
                journal.add(batch, 3)
            at_most(size // 2 if batches else 20)
            journal.add({key: np.tile(row, 99) for key, row in BATCHES[2].items()}, 3)
        at_most(resource.RLIM_INFINITY)
        assert len(journals(path)) == (batches > 0), "a file without a batch is not left"
        with pytest.raises(Killed), journal_of(path, SHARD) as found:
            assert len(found.rows) == 3 * batches
            raise Killed
        remove_journals(path)
