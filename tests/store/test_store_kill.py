"""A preparation killed with SIGKILL, again and again, ends in the bytes of an undisturbed one."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import TextIO

import pytest

from deri.datasets import open_dataset
from deri.store import Store, prepare
from support import deadly, forked
from support.told import Told


@dataclass
class Running:
    """A preparation in a process of its own, which tells how many recordings are done."""

    process: ForkProcess
    lines: TextIO

    def read_until(self, wanted: int) -> bool:
        """Read progress lines until ``wanted`` recordings are done; False if the run ended before."""
        for line in self.lines:
            if line.strip() == "end":
                return False
            if line.strip() != "start" and int(line) >= wanted:
                return True
        raise AssertionError("the run failed")

    def kill(self) -> bool:
        """Kill it, and wait until its workers have left: they hold the other end of the pipe. False if it had ended."""
        self.process.kill()
        self.process.join()
        with self.lines:
            self.lines.read()
        return self.process.exitcode == -signal.SIGKILL


@pytest.fixture
def begin(dataset, tmp_path: Path) -> Callable[[int], Running]:
    """Begins the preparation of ``killed``."""

    def work(workers: int, pipe: int) -> None:
        def tell(done: int, total: int) -> None:
            print(done, flush=True)
            time.sleep(0.002)

        os.setsid()
        os.dup2(pipe, 1)
        sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        print("start")
        prepare(dataset, tmp_path / "killed", workers=workers, progress=Told(tell))
        print("end")

    def start(workers: int) -> Running:
        read, write = os.pipe()
        process, lines = forked.fork(work, workers, write), os.fdopen(read)
        os.close(write)
        return Running(process, lines)

    return start


def test_killed_in_one_process(begin, dataset, content, tmp_path: Path) -> None:
    expected = prepare(dataset, tmp_path / "whole")
    rng = random.Random()
    for low, high in ((1, 60), (60, 125), (125, 190)):
        running = begin(1)
        if running.read_until(rng.randrange(low, high)):
            time.sleep(rng.uniform(0, 0.003))
        running.kill()
        # At least 140 recordings of 2 ms were left at the first kill.
        assert high > 60 or not (tmp_path / "killed" / "store.json").exists()
    assert prepare(dataset, tmp_path / "killed") == expected
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not len(Store.open(tmp_path / "killed").damaged())


@pytest.mark.slow
def test_twenty_kills_at_any_moment(begin, dataset, content, tmp_path: Path) -> None:
    """One process or two, 20 kills; where a run was faster than its kill, the next store is begun."""
    expected = prepare(dataset, tmp_path / "whole")
    rng = random.Random()
    kills = stores = 0
    while kills < 20:
        running = begin(rng.choice([1, 1, 1, 2]))
        running.lines.readline()
        time.sleep(rng.uniform(0, 0.9))
        kills += running.kill()
        if (tmp_path / "killed" / "store.json").exists() or kills == 20:
            stores += 1
            assert prepare(dataset, tmp_path / "killed") == expected
            assert content(tmp_path / "killed") == content(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
    assert stores >= 1


@pytest.mark.slow
def test_killed_with_worker_processes(begin, dataset, content, tmp_path: Path) -> None:
    expected = prepare(dataset, tmp_path / "whole")
    rng = random.Random()
    for _ in range(3):
        running = begin(2)
        running.lines.readline()
        # The workers need half a second to start; kills fall before, while and after they work.
        time.sleep(rng.uniform(0.4, 1.3))
        running.kill()
    assert prepare(dataset, tmp_path / "killed", workers=2) == expected
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_killed_in_the_last_step(dataset, content, tmp_path: Path) -> None:
    """A kill before each rename of the last step, and before the removal of the work files."""
    prepare(dataset, tmp_path / "whole")
    for file in ("index.parquet", "rejects.parquet", "reports.parquet", "store.json", "work"):
        forked.run_until_killed(prepare, dataset, tmp_path / "killed", at=file)
        assert (tmp_path / "killed" / "store.json").exists() == (file == "work")
        assert (tmp_path / "killed" / "work" / "plan.json").exists()
    prepare(dataset, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_with_worker_processes(begin, dataset, content, tmp_path: Path) -> None:
    """Ctrl-C reaches parent and workers alike; all leave soon and the next run continues."""
    prepare(dataset, tmp_path / "whole")
    running = begin(2)
    running.lines.readline()
    time.sleep(0.7)
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.join(60)
    assert running.process.exitcode is not None
    output = running.lines.read()
    assert "end" in output or "KeyboardInterrupt" in output
    prepare(dataset, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_worker_that_is_killed_is_replaced(dataset, content, tmp_path: Path) -> None:
    def kill_one() -> None:
        for _ in range(2000):
            children = multiprocessing.active_children()
            if children:
                os.kill(children[0].pid, signal.SIGKILL)
                return
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    expected = prepare(dataset, tmp_path / "killed", workers=2)
    killer.join()
    assert prepare(dataset, tmp_path / "whole") == expected
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_a_recording_that_kills_its_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadly.install(tmp_path / "site", monkeypatch)
    source = open_dataset("folder", deadly.archive(tmp_path / "source", 70, deadly=(2, 66)))
    prepare(source, tmp_path / "store", workers=2)
    rejects = Store.open(tmp_path / "store").rejects
    assert rejects["file"].tolist() == ["r002.json", "r066.json"]
    assert set(rejects["reason"]) == {"worker_died"}
    assert set(rejects["detail"]) == {"the process that read it was killed by SIGKILL, twice"}
    assert len(Store.open(tmp_path / "store")) == 68


def test_a_chunk_whose_shard_is_not_whole_is_done_again(dataset, content, tmp_path: Path) -> None:
    for shard in ((0, 4), (1, 4), (2, 4)):
        prepare(dataset, tmp_path / "killed", shard=shard)
    (tmp_path / "killed" / "signals" / "shard-00000.npy").unlink()
    with open(tmp_path / "killed" / "signals" / "shard-00002.npy", "r+b") as file:
        file.truncate(5000)
    prepare(dataset, tmp_path / "killed")
    prepare(dataset, tmp_path / "whole")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
