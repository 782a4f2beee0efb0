"""Rows prepared ahead keep their order, errors come where they are due, and waiting is counted."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from dfeat.diffusion.stream import Done, Waiting, fetched, padded, prepared


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_order_and_values_do_not_depend_on_the_threads(workers: int) -> None:
    assert list(prepared(range(50), lambda n: n * n, workers, 4)) == [n * n for n in range(50)]


def test_no_more_than_the_window_is_prepared_ahead() -> None:
    begun: list[int] = []
    stream = prepared(range(100), begun.append, 2, 5)
    next(stream)
    time.sleep(0.05)
    assert len(begun) <= 7
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() < 50


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_where_its_result_is_due(workers: int) -> None:
    def prepare(number: int) -> int:
        if number == 3:
            raise ValueError("number 3")
        return number

    stream = prepared(range(10), prepare, workers, 4)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="number 3"):
        next(stream)


def test_batches_are_padded_to_one_shape() -> None:
    assert list(padded("abcde", 2)) == [["a", "b"], ["c", "d"], ["e", "e"]]
    assert list(padded("", 2)) == []


def test_results_come_in_order() -> None:
    results = fetched(range(4), lambda n: (torch.full((2,), n), torch.tensor([n > 1])))
    assert [(n, int(a[0]), bool(b[0])) for n, (a, b) in results] == [
        (0, 0, False),
        (1, 1, False),
        (2, 2, True),
        (3, 3, True),
    ]


def test_waiting_counts_the_time_items_take() -> None:
    waiting = Waiting()
    for _ in waiting.of(prepared(range(3), lambda _n: time.sleep(0.02), 0, 0)):
        time.sleep(0.02)
    done = Done.after(3, waiting)
    assert 0.06 <= waiting.waited < done.seconds
    assert 0 < done.waited < 1
    assert str(done).startswith("3 rows in ")
