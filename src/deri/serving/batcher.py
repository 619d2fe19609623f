"""One thread that does the work of all requests together: what waits is taken at once, and nothing waits for more."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Job(NamedTuple):
    items: Sequence
    future: Future


class Batcher(Generic[T, R]):
    """Work on items of many callers in batches.

    Args:
        work: from items to as many results, in their order; called in one thread alone.
        size: items at once.
        name: of the thread.
        observe: is told how many items each batch had.
    """

    def __init__(
        self,
        work: Callable[[list[T]], Sequence[R]],
        size: int,
        name: str,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._work, self._size, self._observe = work, size, observe
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, items: Sequence[T]) -> list[Future[list[R]]]:
        """Hand in items; the results come as one future per ``size`` of them, so that no caller holds up the others."""
        jobs = [_Job(items[i : i + self._size], Future()) for i in range(0, len(items), self._size)]
        for job in jobs:
            self._queue.put(job)
        return [job.future for job in jobs]

    def close(self) -> None:
        """Finish what was handed in, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        held: _Job | None = None
        while (first := held or self._queue.get()) is not None:
            jobs, held, closing = self._gather(first)
            self._answer([job for job in jobs if job.future.set_running_or_notify_cancel()])
            if closing:
                break

    def _gather(self, first: _Job) -> tuple[list[_Job], _Job | None, bool]:
        """The jobs of a batch, the one that did not fit, and whether the end was asked for."""
        jobs, count = [first], len(first.items)
        while True:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, None, False
            if job is None:
                return jobs, None, True
            if count + len(job.items) > self._size:
                return jobs, job, False
            jobs.append(job)
            count += len(job.items)

    def _answer(self, jobs: list[_Job]) -> None:
        """Work on jobs together, and where that fails on each alone, so that one bad item spoils its own job only."""
        if not jobs:
            return
        try:
            items = [item for job in jobs for item in job.items]
            self._observe(len(items))
            results = list(self._work(items))
        except Exception as error:
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
            else:
                for job in jobs:
                    self._answer([job])
            return
        at = 0
        for job in jobs:
            job.future.set_result(results[at : at + len(job.items)])
            at += len(job.items)
