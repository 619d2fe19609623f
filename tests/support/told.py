"""Progress that calls a function."""

from __future__ import annotations

from collections.abc import Callable

from deri.progress import Progress


class Told(Progress):
    """Passes counts on."""

    def __init__(self, update: Callable[[int, int], object]) -> None:
        self._update = update

    def update(self, done: int, total: int) -> None:
        self._update(done, total)
