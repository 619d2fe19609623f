"""What workers do: tasks of many records each; and the engine that does them in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from deri.progress import SILENT, Progress, Shifted

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

DIED = "worker_died"
"""The reason for which a record is refused whose worker died twice."""


class Task(Protocol[R_co]):
    """Work on some records, one after the other. What it writes does not depend on who does it, nor on how often."""

    def __len__(self) -> int:
        """How many records there are."""

    def run(self, progress: Progress) -> R_co:
        """Do it.

        ``progress.update`` is called with 0 right before the first record, and with the number of those done after
        each: where a worker dies, this tells which record it had in hands.
        """

    def without(self, record: int, why: str) -> Task[R_co] | None:
        """The same task, which refuses a record for :data:`DIED`; None where records cannot be refused.

        Args:
            record: its position.
            why: what became of its workers.
        """


class Engine(Protocol):
    """Does tasks."""

    def device(self, wanted: str | None) -> str | None:
        """The device for what the process that gives out the tasks computes itself."""

    def pieces(self, records: int, size: int) -> list[slice]:
        """How ``records`` are to be cut into tasks: up to ``size`` each where there are several workers."""

    def run(self, tasks: Iterable[Task[R]], total: int, progress: Progress = SILENT) -> Iterator[R]:
        """Yield the results in the order of the tasks.

        Args:
            tasks: taken one by one as workers become free.
            total: records that ``progress`` is told there are.
            progress: is told of the records done, and receives what tasks say.

        Raises:
            Exception: what a task raised, in its turn.
            DeriError: workers die again and again.
        """


class Here:
    """Does tasks in this process, in one piece."""

    def device(self, wanted: str | None) -> str | None:
        """That of the tasks."""
        return wanted

    def pieces(self, records: int, size: int) -> list[slice]:
        """All in one."""
        return [slice(0, records)] if records else []

    def run(self, tasks: Iterable[Task[R]], total: int, progress: Progress = SILENT) -> Iterator[R]:
        """See :meth:`Engine.run`."""
        done = 0
        for task in tasks:
            part = Shifted(progress, done, total)
            yield task.run(part)
            done = part.reached


HERE = Here()
