from __future__ import annotations

import os
import time

import pytest
from torch.distributed import HashStore, TCPStore

from deri.errors import DeriError
from deri.training.distributed import join_replicas
from deri.training.heartbeat import Heartbeat, Sign
from support import forked
from support.ports import free_port


def watcher(signs: list[Sign]) -> Heartbeat:
    heartbeat = Heartbeat(HashStore(), 0, len(signs), 60.0)
    heartbeat.signs = dict(enumerate(signs))
    return heartbeat


def sign(rank: int, where: str, ticked: float, beaten: float) -> Sign:
    return Sign(f"process {rank}", where, 1, 1, ticked, beaten)


@pytest.mark.parametrize(
    ("signs", "hung", "text"),
    [
        ([("", 95, 90), ("", 95, 90)], [], ""),
        ([("", 95, 10), ("in read", 95, 90)], [], ""),  # the second is slow, and gets on
        ([("", 95, 10), ("in read", 95, 10)], [1], "process 1 in read does not get on"),
        ([("", 95, 10), ("", 20, 20)], [1], "process 1 has given no sign for 60 s"),
        ([("", 95, 10), ("", 95, 10)], [0, 1], "all processes wait for each other"),
    ],
)
def test_who_hangs(signs: list[tuple[str, float, float]], hung: list[int], text: str) -> None:
    found, said = watcher([sign(rank, *values) for rank, values in enumerate(signs)]).hung(100.0)
    assert found == hung
    assert text in said
    assert bool(said) == bool(hung)


def hang(rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with join_replicas("cpu", 2.0) as replica, replica.watched():
        if rank == 1:
            time.sleep(100)
        replica.barrier()


def test_a_process_that_hangs_ends_all_with_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    processes = [forked.fork(hang, rank, port) for rank in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [2, 2]
    assert "deri: process 1 (pid" in (told := capfd.readouterr().err)
    assert "does not get on, and the others wait for it since 2 s (train.timeout); go on with --resume" in told


class Gone:
    """A store whose process has ended."""

    def set(self, key: str, value: str) -> None:
        raise RuntimeError("connection reset by peer")


def stuck() -> None:
    with Heartbeat(Gone(), 1, 2, 0.4):  # type: ignore[arg-type]
        time.sleep(60)


def test_a_process_that_is_left_alone_ends_unless_it_is_done() -> None:
    process = forked.fork(stuck)
    process.join(30)
    assert process.exitcode == 2
    with Heartbeat(Gone(), 1, 2, 30.0):  # type: ignore[arg-type]
        time.sleep(0.1)


def join(rank: int, attempt: int, port: int, late: float) -> None:
    given = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    given |= {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": attempt}
    os.environ |= {name: str(value) for name, value in given.items()}
    time.sleep(late)
    with join_replicas("cpu", timeout=10.0):
        os._exit(0)  # as one that is killed


def test_processes_that_are_started_again_do_not_take_the_addresses_of_those_before() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True)  # torchrun's, which all its processes share
    for attempt, late in enumerate([(0.0, 0.0), (2.0, 0.0), (0.0, 2.0)]):
        processes = [forked.fork(join, rank, attempt, store.port, late[rank]) for rank in range(2)]
        for process in processes:
            process.join(30)
        assert [process.exitcode for process in processes] == [0, 0], attempt


def test_a_process_that_does_not_reach_the_others_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    given = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    told = r"process 0 did not reach the others within 1 s \(train.timeout\)"
    with pytest.raises(DeriError, match=told), join_replicas("cpu", timeout=1.0):
        pass
