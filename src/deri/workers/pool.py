"""Several workers side by side: tasks of workers that are lost go to others, results come in the order of the tasks."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from deri.errors import DeriError
from deri.progress import SILENT, Progress
from deri.workers.process import TICK_SECONDS, Outcome, WorkerProcess
from deri.workers.task import Task

R = TypeVar("R")

_LOSSES = 5  # of the workers of one task
_PATIENCE_SECONDS = 60.0  # until one is told that there is no worker


class LostError(Exception):
    """A worker is gone, with its machine perhaps; its task is to be done by another."""


class Worker(Protocol):
    """Does one task at a time, in a thread of its own."""

    @property
    def done(self) -> int:
        """Records of the task in hands that are done, as far as is known."""

    def ready(self) -> bool:
        """Whether it takes tasks; waits for it a little."""

    def run(self, task: Task[R]) -> Outcome[R]:
        """Do a task; raises :class:`LostError`."""

    def stop(self) -> None:
        """Drop the task in hands, soon."""

    def close(self) -> None:
        """End the worker."""


class LocalWorker(WorkerProcess):
    """A process of this machine."""

    def ready(self) -> bool:
        """It is started with its first task."""
        return True


def local_workers(count: int) -> Sequence[LocalWorker]:
    """``count`` processes that share the processors."""
    threads = max(1, (os.cpu_count() or 1) // count)
    return [LocalWorker(os.getcwd(), threads) for _ in range(count)]


class _Item(Generic[R]):
    """A task on its way: which worker has it, what came of it, how often a worker was lost with it."""

    def __init__(self, task: Task[R]) -> None:
        self.task, self.losses = task, 0
        self.worker: Worker | None = None
        self.outcome: Outcome[R] | None = None

    @property
    def done(self) -> int:
        """Records of the task that are done."""
        if self.outcome is not None:
            return self.outcome.done
        return 0 if self.worker is None else self.worker.done


class Pool:
    """An engine of several workers. A context; at its end they are stopped."""

    def __init__(self, workers: Sequence[Worker], device: str | None = None) -> None:
        self._workers, self._device = workers, device
        self._due: deque[_Item[Any]] = deque()
        self._changed = threading.Condition()
        self._begun = self._over = False
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._serve, args=(worker,), daemon=True) for worker in workers]

    def __enter__(self) -> Pool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        for worker in self._workers:
            worker.stop()
        with self._changed:
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def device(self, wanted: str | None) -> str | None:
        """See :meth:`deri.workers.Engine.device`."""
        return self._device or wanted

    def pieces(self, records: int, size: int) -> list[slice]:
        """See :meth:`deri.workers.Engine.pieces`."""
        return [slice(start, min(start + size, records)) for start in range(0, records, size)]

    def run(self, tasks: Iterable[Task[R]], total: int, progress: Progress = SILENT) -> Iterator[R]:
        """See :meth:`deri.workers.Engine.run`."""
        items = map(_Item, tasks)
        pending: deque[_Item[R]] = deque()
        finished = most = 0
        patience = time.monotonic() + _PATIENCE_SECONDS
        while True:
            for item in islice(items, 2 * len(self._workers) - len(pending)):
                pending.append(item)
                self._give(item)
            if not pending:
                return
            outcome = self._wait(pending[0])
            if not self._begun and time.monotonic() > patience:
                progress.message("no worker could be started yet: waiting for a free processor, or GPU, of the cluster")
                patience = math.inf
            now = finished + sum(item.done for item in pending)
            if now > most:
                most = now
                progress.update(most, total)
            if outcome is not None:
                finished += pending.popleft().done
                for kind, text in outcome.said:
                    progress.warn(kind, text) if kind else progress.message(text)
                if outcome.error is not None:
                    raise outcome.error
                yield outcome.value  # type: ignore[misc]

    def _wait(self, item: _Item[R]) -> Outcome[R] | None:
        """What came of a task, if it comes soon."""
        with self._changed:
            self._changed.wait_for(lambda: item.outcome or self._failure, TICK_SECONDS)
        if self._failure is not None:
            raise self._failure
        return item.outcome

    def _give(self, item: _Item[Any], *, first: bool = False) -> None:
        with self._changed:
            (self._due.appendleft if first else self._due.append)(item)
            self._changed.notify_all()

    def _serve(self, worker: Worker) -> None:
        """Do tasks by ``worker``, until the pool is closed."""
        try:
            while not self._over:
                if worker.ready():
                    self._begun = True
                    with self._changed:
                        self._changed.wait_for(lambda: self._due or self._over)
                        item = self._due.popleft() if self._due and not self._over else None
                    if item is not None:
                        self._do(worker, item)
        except BaseException as error:
            self._failure = error
        finally:
            worker.close()

    def _do(self, worker: Worker, item: _Item[Any]) -> None:
        item.worker = worker
        try:
            item.outcome = worker.run(item.task)
        except LostError as lost:
            item.worker, item.losses = None, item.losses + 1
            if item.losses < _LOSSES:
                self._give(item, first=True)
                return
            item.outcome = Outcome(error=DeriError(f"the same work was lost {_LOSSES} times with its machine: {lost}"))
        with self._changed:
            self._changed.notify_all()
