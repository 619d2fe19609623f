"""Workers side by side: the order of results, counts, messages, errors, lost workers, and the end of a run."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from deri.errors import DeriError
from deri.progress import Progress
from deri.workers import HERE, Engine, open_engine
from deri.workers.pool import LostError, Pool
from deri.workers.process import Outcome
from support.tasks import Fails, Squares
from support.told import Told

TASKS = [Squares(tuple(range(start, start + 5))) for start in range(0, 40, 5)]
SQUARES = [([n**2 for n in task.numbers], {}) for task in TASKS]


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: list[int] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, kind: str, text: str) -> None:
        self.lines.append(f"{kind}: {text}")

    def update(self, done: int, total: int) -> None:
        assert total == 40
        self.counts.append(done)


def check(engine: Engine) -> None:
    heard = Heard()
    assert list(engine.run(iter(TASKS), 40, heard)) == SQUARES
    assert heard.lines == [line for t in TASKS for line in ("5 numbers", f"sum: sum {sum(t.numbers)}")]
    assert heard.counts == sorted(heard.counts)
    assert heard.counts[-1] == 40


def test_this_process() -> None:
    check(HERE)
    assert HERE.pieces(10, 4) == [slice(0, 10)]
    assert HERE.pieces(0, 4) == []


def test_worker_processes() -> None:
    with open_engine("local", 2) as engine:
        check(engine)
        assert engine.pieces(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
        with pytest.raises(DeriError, match="a user's error"):
            list(engine.run([TASKS[0], Fails((0,))], 6))
        assert list(engine.run(TASKS[:1], 5)) == SQUARES[:1]


def test_a_run_that_is_left_ends_soon() -> None:
    start = time.monotonic()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_engine("local", 2) as engine:
        list(engine.run([Squares(tuple(range(1000)), seconds=0.05)], 1000, Told(stop)))
    assert time.monotonic() - start < 40


class Shaky:
    """A worker without a process, which is lost with some tasks."""

    def __init__(self, losses: int, there: threading.Event | None = None) -> None:
        self.losses, self.there, self.done, self.closed = losses, there, 0, False

    def ready(self) -> bool:
        return self.there is None or self.there.wait(0.01)

    def run(self, task: Any) -> Outcome[Any]:
        if self.losses:
            self.losses -= 1
            raise LostError("node")
        return Outcome(task.run(Progress()), done=len(task))

    def stop(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def test_tasks_of_lost_workers_go_to_others() -> None:
    workers = [Shaky(3), Shaky(0, threading.Event())]  # the second never comes
    with Pool(workers) as pool:
        assert list(pool.run(TASKS, 40)) == SQUARES
    assert all(worker.closed for worker in workers)


def test_work_that_is_lost_again_and_again_is_given_up() -> None:
    with Pool([Shaky(100)]) as pool, pytest.raises(DeriError, match="lost 5 times with its machine: node"):
        list(pool.run(TASKS, 40))


def test_a_defect_of_a_worker_ends_the_run() -> None:
    worker = Shaky(0)
    worker.run = None  # type: ignore[assignment, method-assign]
    with Pool([worker]) as pool, pytest.raises(TypeError):
        list(pool.run(TASKS, 40))


def test_what_is_no_engine_is_told() -> None:
    with pytest.raises(DeriError, match="--engine spark: choose local or ray"):
        open_engine("spark")
    with pytest.raises(DeriError, match="--workers 0"):
        open_engine("local", 0)


def test_relative_paths_mean_the_same_in_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "marks").mkdir()
    with open_engine("local", 2) as engine:
        list(engine.run([Squares((1,), deadly=(1,), once=Path("marks"))], 1))
    assert os.listdir("marks") == ["1"]
