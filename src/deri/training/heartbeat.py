"""A word, and an end, where one of many processes hangs: the others would wait for it in silence."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store


@dataclass
class Sign:
    """What was last heard of a process, and when something in it changed, in s of this process's clock.

    Attributes:
        text: host and process id.
        where: what its main thread does; empty where it waits for others.
        ticks: of its thread, which runs while the process does.
        beats: of its main thread.
    """

    text: str
    where: str
    ticks: int
    beats: int
    ticked: float
    beaten: float


class Heartbeat:
    """Tells the other processes that this one goes on, and ends it where another has not for ``timeout`` s.

    Args:
        store: that all processes share.
        rank: of this process.
        world: number of processes.
        timeout: s.
    """

    def __init__(self, store: Store, rank: int, world: int, timeout: float) -> None:
        self._store, self._rank, self._world, self._timeout = store, rank, world, timeout
        self._pause = min(10.0, timeout / 4)
        self._beats = self._ticks = 0
        self._main = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deri-heartbeat", daemon=True)
        self.signs: dict[int, Sign] = {}

    def beat(self) -> None:
        """Say that the main thread goes on."""
        self._beats += 1

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._over.wait(self._pause):
                self._tell()
                self._hear(time.monotonic())
                hung, text = self.hung(time.monotonic())
                if hung:
                    if self._rank == min(set(self.signs) - set(hung), default=self._rank):
                        print(f"deri: {text}; go on with --resume", file=sys.stderr, flush=True)
                    elif self._over.wait(3 * self._pause):  # who says it goes first: the end of one fails others
                        return
                    os._exit(2)
        except RuntimeError:  # the store is gone, and with it the process that kept it
            self._alone()

    def _alone(self) -> None:
        """End this process unless its main thread goes on: it may wait for what nobody will send."""
        before = -1
        while self._beats != before:
            before = self._beats
            if self._over.wait(self._timeout):
                return
        print(
            f"deri: process {self._rank}: the first process is gone; go on with --resume", file=sys.stderr, flush=True
        )
        os._exit(2)

    def _tell(self) -> None:
        self._ticks += 1
        said = [f"process {self._rank} (pid {os.getpid()} on {socket.gethostname()})", self._where()]
        self._store.set(f"deri/heartbeat/{self._rank}", json.dumps([*said, self._ticks, self._beats]))

    def _where(self) -> str:
        """Where the main thread is in this package; nothing where it waits for other processes."""
        frame, found = sys._current_frames().get(self._main), "outside deri"
        while frame is not None:
            name = frame.f_code.co_filename.replace(os.sep, "/")
            if "/torch/distributed/" in name:
                return ""
            if "/deri/" in name and found == "outside deri":
                found = f"in {frame.f_code.co_name}, {name.rpartition('/deri/')[2]}:{frame.f_lineno}"
            frame = frame.f_back
        return found

    def _hear(self, now: float) -> None:
        for rank in range(self._world):
            key = f"deri/heartbeat/{rank}"
            if not self._store.check([key]):
                continue
            text, where, ticks, beats = json.loads(self._store.get(key))
            before = self.signs.get(rank)
            ticked = now if before is None or before.ticks != ticks else before.ticked
            beaten = now if before is None or before.beats != beats else before.beaten
            self.signs[rank] = Sign(text, where, ticks, beats, ticked, beaten)

    def hung(self, now: float) -> tuple[list[int], str]:
        """Ranks that hang, and what to say of them.

        A process that gives no sign hangs. Where all do and none gets on, it is those that do not wait for others.
        """
        silent = [rank for rank, sign in self.signs.items() if now - sign.ticked > self._timeout]
        if silent:
            names = ", ".join(self.signs[rank].text for rank in silent)
            return silent, f"{names} has given no sign for {self._timeout:g} s (train.timeout)"
        if not self.signs or any(now - sign.beaten <= self._timeout for sign in self.signs.values()):
            return [], ""
        busy = [rank for rank, sign in self.signs.items() if sign.where]
        names = ", ".join(f"{self.signs[rank].text} {self.signs[rank].where}" for rank in busy)
        said = names + " does not get on, and the others wait for it" if busy else "all processes wait for each other"
        return busy or list(self.signs), f"{said} since {self._timeout:g} s (train.timeout)"
