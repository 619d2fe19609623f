"""How long work tells what it does. The library is silent; the command line passes a :class:`Progress` that prints."""

from __future__ import annotations


class Progress:
    """Receives messages and counts from long work, and ignores them; subclasses show them."""

    def message(self, text: str) -> None:
        """A line of information."""

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` items are finished."""


SILENT = Progress()
"""Shows nothing."""


class Shifted(Progress):
    """Counts of a part of the work, told as counts of the whole; messages as they are."""

    def __init__(self, inner: Progress, start: int, total: int) -> None:
        self._inner, self._start, self._total = inner, start, total

    def message(self, text: str) -> None:
        """A line of information."""
        self._inner.message(text)

    def update(self, done: int, total: int) -> None:
        """``done`` of the items of this part are finished."""
        self._inner.update(self._start + done, self._total)
