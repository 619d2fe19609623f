"""A worker process: does tasks, is started again when it dies, and finds the record that kills it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from deri.errors import DeriError, out_of_memory
from deri.progress import Progress
from deri.workers.task import Task

R = TypeVar("R")

TICK_SECONDS = 0.2  # how often one looks how far a worker is
_LEAVE_SECONDS = 10.0  # a worker that has not left by then hangs in a read: it ends itself
_DEATHS = 5  # of the workers of one task, each at another record: the machine is at fault
_IN_A_ROW = 8  # records one after the other that kill their workers: it is not the records
_NOT_BEGUN = -1
_DIED = (
    "a worker process died again and again ({how}), often for want of memory: run the same command again with fewer "
    "--workers; finished parts are kept.\n"
    "(A script that asks for workers needs if __name__ == '__main__'.)"
)


class StoppedError(Exception):
    """The run is over; what the task did is dropped and done anew by the next run."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What came of a task.

    Attributes:
        value: what it returned.
        error: what it raised.
        said: its messages and warnings, as ``(kind, text)``; a message has kind "".
        done: records done.
    """

    value: R | None = None
    error: BaseException | None = None
    said: list[tuple[str, str]] = field(default_factory=list)
    done: int = 0


class WorkerProcess:
    """A process that does one task at a time.

    Args:
        folder: its working directory, which makes relative paths mean the same in all workers.
        threads: that NumPy and torch use in it; None: as many as they like.

    """

    def __init__(self, folder: str, threads: int | None = None) -> None:
        # Spawned, not forked: the caller may run threads (a progress display, torch), which a fork would tear apart.
        self._context = multiprocessing.get_context("spawn")
        # Records done, and whether to stop. Shared without locks, which a worker that is killed would keep.
        self._shared: Any = self._context.RawArray("q", 2)
        self._given = folder, threads
        self._process: Any = None
        self._pipe: Connection | None = None

    @property
    def done(self) -> int:
        """Records of the task in hands that are done."""
        return max(0, int(self._shared[0]))

    def run(self, task: Task[R]) -> Outcome[R]:
        """Do a task. A record in whose turn the process dies twice is refused; a task without records to refuse fails.

        Returns the outcome, with a DeriError where the process dies again and again.
        """
        outcome = self._run(task)
        done, self._shared[0] = self.done, _NOT_BEGUN
        return replace(outcome, done=done)

    def _run(self, task: Task[R]) -> Outcome[R]:
        suspect, deaths, refused = None, 0, list[int]()
        while True:
            outcome = self._attempt(task)
            if outcome is not None:
                return outcome
            if self._shared[1]:
                return Outcome(error=StoppedError())
            at, how, deaths = int(self._shared[0]), self._ended(), deaths + 1
            if at != suspect and deaths < _DEATHS:
                suspect = at
                continue
            found = at == suspect and 0 <= at < len(task)
            rest = task.without(at, f"the process that read it was {how}, twice") if found else None
            refused.append(at)
            if rest is None or refused[-_IN_A_ROW:] == list(range(at - _IN_A_ROW + 1, at + 1)):
                return Outcome(error=DeriError(_DIED.format(how=how)))
            task, suspect, deaths = rest, None, 0

    def _attempt(self, task: Task[R]) -> Outcome[R] | None:
        """Do a task; None where the process died."""
        self._shared[0] = _NOT_BEGUN
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send(task)
            outcome: Outcome[R] = self._pipe.recv()
            return outcome
        except (EOFError, OSError) as error:  # its end of the pipe is closed, or nobody reads it
            if isinstance(error, OSError) and error.errno not in (None, errno.EPIPE, errno.ECONNRESET):
                raise
            return None

    def _start(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_work, args=(theirs, self._shared, *self._given))
        self._process.start()
        theirs.close()  # else its end would not be told here

    def _ended(self) -> str:
        """How the process ended."""
        self._process.join()
        code = self._process.exitcode
        if code < 0:
            with suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    def stop(self) -> None:
        """Let the process leave: at its next record, or in ten seconds."""
        self._shared[1] = 1

    def close(self) -> None:
        """End the process; after :meth:`stop` what it does is dropped."""
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join()


class _Relay(Progress):
    """In a worker process: what the task tells."""

    def __init__(self, shared: Any) -> None:
        self._shared, self.said = shared, list[tuple[str, str]]()

    def message(self, text: str) -> None:
        self.said.append(("", text))

    def warn(self, kind: str, text: str) -> None:
        self.said.append((kind, text))

    def update(self, done: int, total: int) -> None:
        self._shared[0] = done
        if self._shared[1]:
            raise StoppedError


def _work(pipe: Connection, shared: Any, folder: str, threads: int | None) -> None:
    """Do the tasks that come, until the pipe is closed."""
    # Ctrl-C, and often SIGTERM, reach the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(shared,), daemon=True).start()
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with suppress(EOFError, OSError, StoppedError):  # the parent closed the pipe
        while True:
            pipe.send(_outcome(pipe, shared, folder))


def _outcome(pipe: Connection, shared: Any, folder: str) -> Outcome[Any]:
    relay = _Relay(shared)
    error: BaseException
    try:
        task: Task[Any] = pipe.recv()
        os.chdir(folder)
        return Outcome(task.run(relay), said=relay.said)
    except (EOFError, StoppedError):
        raise
    except (DeriError, OSError) as raised:
        error = raised
    except Exception as raised:  # a defect; not every exception survives the way to another process
        text = f"a worker process failed\n{traceback.format_exc()}"
        error = MemoryError(str(raised)) if out_of_memory(raised) else RuntimeError(text)
    return Outcome(error=error, said=relay.said)


def _leave_with_parent(shared: Any) -> None:
    """End this process when its parent has died, or wants it to stop and it hangs."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive() and not shared[1]:
        time.sleep(TICK_SECONDS)
    if shared[1]:
        time.sleep(_LEAVE_SECONDS)
    os._exit(1)
