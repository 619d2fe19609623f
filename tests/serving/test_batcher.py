"""Batches: results go to whom they belong, what waits is taken together, and one bad item spoils its own job."""

from __future__ import annotations

import threading

import pytest

from deri.serving.batcher import Batcher


class Doubler:
    """Doubles numbers, once it may; remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may, self.began = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[int]:
        self.began.set()
        assert self.may.wait(10)
        self.batches.append(items)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


def test_what_waits_is_worked_on_together() -> None:
    work = Doubler()
    batcher = Batcher(work, 4, "test")
    [first] = batcher.submit([1])
    assert work.began.wait(10)  # the first is at work alone; the others come meanwhile
    rest = [future for items in ([2, 3], [4], [5, 6]) for future in batcher.submit(items)]
    work.may.set()
    assert [future.result(10) for future in [first, *rest]] == [[2], [4, 6], [8], [10, 12]]
    assert work.batches == [[1], [2, 3, 4], [5, 6]]
    batcher.close()


def test_a_large_job_is_cut() -> None:
    work = Doubler()
    work.may.set()
    batcher = Batcher(work, 4, "test")
    futures = batcher.submit(list(range(10)))
    assert [one for future in futures for one in future.result(10)] == list(range(0, 20, 2))
    assert max(map(len, work.batches)) == 4
    batcher.close()


def test_one_bad_item_spoils_its_own_job() -> None:
    work = Doubler()
    batcher = Batcher(work, 4, "test")
    [first] = batcher.submit([1])
    assert work.began.wait(10)
    [good], [bad], [other] = (batcher.submit([item]) for item in (2, 13, 3))
    work.may.set()
    assert [good.result(10), other.result(10), first.result(10)] == [[4], [6], [2]]
    with pytest.raises(ValueError, match="13"):
        bad.result(10)
    batcher.close()


def test_close_finishes_what_was_handed_in() -> None:
    work = Doubler()
    batcher = Batcher(work, 2, "test")
    futures = [future for item in range(5) for future in batcher.submit([item])]
    work.may.set()
    batcher.close()
    assert [future.result(0) for future in futures] == [[0], [2], [4], [6], [8]]


def test_a_cancelled_job_is_left_out() -> None:
    work = Doubler()
    batcher = Batcher(work, 4, "test")
    [first] = batcher.submit([1])
    assert work.began.wait(10)
    [gone], [kept] = batcher.submit([2]), batcher.submit([3])
    assert gone.cancel()
    work.may.set()
    assert kept.result(10) == [6]
    assert first.result(10) == [2]
    assert 2 not in [item for batch in work.batches for item in batch]
    batcher.close()
