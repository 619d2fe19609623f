"""A preparation killed with SIGKILL, again and again, ends in the bytes of an undisturbed one."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deri.datasets import open_dataset
from deri.store import Store, prepare
from support import deadly

SCRIPT = """
import pickle, sys, time
from pathlib import Path

from deri.progress import Progress

class Slow(Progress):
    def update(self, done, total):
        print(done, flush=True)
        time.sleep(0.002)

if __name__ == "__main__":
    from deri.store import prepare
    dataset = pickle.loads(Path(sys.argv[1]).read_bytes())
    print("start", flush=True)
    prepare(dataset, sys.argv[2], workers=int(sys.argv[3]), progress=Slow())
    print("end", flush=True)
"""

LAST_STEP = """
import os, pickle, shutil, signal, sys
from pathlib import Path
from deri.store import prepare

def deadly(function, position):
    def call(*arguments, **options):
        if Path(arguments[position]).name == sys.argv[3]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.replace = deadly(os.replace, 1)
shutil.rmtree = deadly(shutil.rmtree, 0)
prepare(pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2])
"""


@pytest.fixture
def command(dataset, tmp_path: Path):
    (tmp_path / "run.py").write_text(SCRIPT)
    (tmp_path / "dataset.pickle").write_bytes(pickle.dumps(dataset))

    def start(workers: int) -> subprocess.Popen[str]:
        arguments = [sys.executable, "run.py", "dataset.pickle", "killed", str(workers)]
        return subprocess.Popen(
            arguments, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )

    return start


def read_until(process: subprocess.Popen[str], wanted: int) -> bool:
    """Read progress lines until ``wanted`` recordings are done; False if the run ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "end":
            return False
        if line.strip() != "start" and int(line) >= wanted:
            return True
    raise AssertionError("the run failed")


def test_killed_in_one_process(command, dataset, content, tmp_path: Path) -> None:
    expected = prepare(dataset, tmp_path / "whole")
    rng = random.Random()
    for low, high in ((1, 60), (60, 125), (125, 190)):
        process = command(1)
        if read_until(process, rng.randrange(low, high)):
            time.sleep(rng.uniform(0, 0.003))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        # At least 140 recordings of 2 ms were left at the first kill.
        assert high > 60 or not (tmp_path / "killed" / "store.json").exists()
    assert prepare(dataset, tmp_path / "killed") == expected
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert not len(Store.open(tmp_path / "killed").damaged())


@pytest.mark.slow
def test_twenty_kills_at_any_moment(command, dataset, content, tmp_path: Path) -> None:
    """One process or two, 20 kills; where a run was faster than its kill, the next store is begun."""
    expected = prepare(dataset, tmp_path / "whole")
    rng = random.Random()
    kills = stores = 0
    while kills < 20:
        process = command(rng.choice([1, 1, 1, 2]))
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.9))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.read()
        process.stdout.close()
        if (tmp_path / "killed" / "store.json").exists() or kills == 20:
            stores += 1
            assert prepare(dataset, tmp_path / "killed") == expected
            assert content(tmp_path / "killed") == content(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
    assert stores >= 1


@pytest.mark.slow
def test_killed_with_worker_processes(command, dataset, content, tmp_path: Path) -> None:
    expected = prepare(dataset, tmp_path / "whole")
    rng = random.Random()
    for _ in range(3):
        process = command(2)
        assert process.stdout is not None
        process.stdout.readline()
        # The workers need half a second to start; kills fall before, while and after they work.
        time.sleep(rng.uniform(0.4, 1.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        # Its workers hold the other end of the pipe: the end of file comes when the last of them has left.
        process.stdout.read()
        process.stdout.close()
    assert prepare(dataset, tmp_path / "killed", workers=2) == expected
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_killed_in_the_last_step(dataset, content, tmp_path: Path) -> None:
    """A kill before each rename of the last step, and before the removal of the work files."""
    prepare(dataset, tmp_path / "whole")
    (tmp_path / "run.py").write_text(LAST_STEP)
    (tmp_path / "dataset.pickle").write_bytes(pickle.dumps(dataset))
    for file in ("index.parquet", "rejects.parquet", "reports.parquet", "store.json", "work"):
        status = subprocess.run([sys.executable, "run.py", "dataset.pickle", "killed", file], cwd=tmp_path)
        assert status.returncode == -signal.SIGKILL
        assert (tmp_path / "killed" / "store.json").exists() == (file == "work")
        assert (tmp_path / "killed" / "work" / "plan.json").exists()
    prepare(dataset, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


@pytest.mark.slow
def test_interrupted_with_worker_processes(dataset, content, tmp_path: Path) -> None:
    """Ctrl-C reaches parent and workers alike; all leave soon and the next run continues."""
    prepare(dataset, tmp_path / "whole")
    (tmp_path / "run.py").write_text(SCRIPT)
    (tmp_path / "dataset.pickle").write_bytes(pickle.dumps(dataset))
    process = subprocess.Popen(
        [sys.executable, "run.py", "dataset.pickle", "killed", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.7)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert "end" in output or "KeyboardInterrupt" in errors
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
