"""A worker process: what it returns, how it dies, and which record is refused for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from deri.errors import DeriError, ReadError
from deri.workers.process import Outcome, WorkerProcess
from support.tasks import Fails, Squares

KILLED = "the process that read it was killed by SIGKILL, twice"


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerProcess]:
    worker = WorkerProcess(str(tmp_path))
    yield worker
    worker.stop()
    worker.close()


def test_a_task_and_what_it_says(worker: WorkerProcess) -> None:
    outcome = worker.run(Squares((1, 2, 3)))
    assert outcome == Outcome(([1, 4, 9], {}), None, [("", "3 numbers"), ("sum", "sum 6")], 3)
    assert worker.done == 0


def test_errors_come_back(worker: WorkerProcess) -> None:
    error = worker.run(Fails((0,))).error
    assert isinstance(error, DeriError)
    assert str(error) == "a user's error"
    defect = worker.run(Fails((1,))).error
    assert isinstance(defect, RuntimeError)
    assert "ZeroDivisionError: a defect" in str(defect)
    assert worker.run(Squares((2,))).value == ([4], {})


def test_a_record_that_kills_is_tried_twice_and_refused(worker: WorkerProcess) -> None:
    assert worker.run(Squares((7, 8, 9, 10), deadly=(8, 10))).value == ([49, None, 81, None], {1: KILLED, 3: KILLED})


def test_a_process_that_dies_by_chance_costs_no_record(worker: WorkerProcess, tmp_path: Path) -> None:
    assert worker.run(Squares((3, 4, 5, 6), deadly=(-1, 4, 6), once=tmp_path)).value == ([9, 16, 25, 36], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["-1", "4", "6"]


@pytest.mark.parametrize(
    "task",
    [
        Squares((1, 2), deadly=(-1,)),  # before any record: a script without a guard, a model too large
        Squares((1, 2), deadly=(2,), refuses=False),
        Squares(tuple(range(1, 20)), deadly=tuple(range(4, 20))),  # it is not the records
    ],
)
def test_what_dies_again_and_again_is_given_up(
    task: Squares, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deri.workers.process._IN_A_ROW", 2)
    error = worker.run(task).error
    assert isinstance(error, DeriError)
    assert "killed by SIGKILL" in str(error)
    assert "fewer --workers" in str(error)


@pytest.mark.parametrize("error", [OSError("handle is closed"), BrokenPipeError(errno.EPIPE, "Broken pipe")])
def test_a_process_that_dies_while_it_is_given_work(
    error: OSError, worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(*_: object) -> None:
        os.kill(worker._process.pid, 9)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "send", send)
        assert worker._attempt(Squares((1,))) is None
    assert worker.run(Squares((3,))).value == ([9], {})


def test_errors_of_recordings_keep_their_reason(worker: WorkerProcess) -> None:
    again = ReadError("x.hea: bad", "bad_header").__reduce__()
    assert again[0](*again[1]).reason == "bad_header"
