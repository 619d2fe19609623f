"""Tasks that kill those who do them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from deri.errors import DeriError
from deri.progress import Progress


@dataclass(frozen=True)
class Squares:
    """The squares of numbers, None for one that is refused.

    A number of ``deadly`` kills its process; -1 stands for the time before the first. ``once`` is a folder with a file
    for each number that has killed: it does so once. ``seconds`` is for each number.
    """

    numbers: tuple[int, ...]
    deadly: tuple[int, ...] = ()
    once: Path | None = None
    seconds: float = 0.0
    refused: dict[int, str] = field(default_factory=dict)
    refuses: bool = True

    def __len__(self) -> int:
        return len(self.numbers)

    def run(self, progress: Progress) -> tuple[list[int | None], dict[int, str]]:
        self._live(-1)
        progress.update(0, len(self))
        squares: list[int | None] = []
        for i, number in enumerate(self.numbers):
            if i not in self.refused:
                self._live(number)
            squares.append(None if i in self.refused else number**2)
            progress.update(i + 1, len(self))
        progress.message(f"{len(squares)} numbers")
        progress.warn("sum", f"sum {sum(self.numbers)}")
        return squares, self.refused

    def _live(self, number: int) -> None:
        time.sleep(self.seconds)
        if number not in self.deadly:
            return
        if self.once is not None:
            mark = self.once / str(number)
            if mark.exists():
                return
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)

    def without(self, record: int, why: str) -> Squares | None:
        return replace(self, refused={**self.refused, record: why}) if self.refuses else None


@dataclass(frozen=True)
class Fails(Squares):
    """Raises."""

    def run(self, progress: Progress) -> tuple[list[int | None], dict[int, str]]:
        if self.numbers[0]:
            raise ZeroDivisionError("a defect")
        raise DeriError("a user's error")
