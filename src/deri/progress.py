"""How long work tells what it does. The library is silent; the command line passes a :class:`Progress` that prints."""

from __future__ import annotations


class Progress:
    """Receives messages and counts from long work, and ignores them; subclasses show them."""

    def message(self, text: str) -> None:
        """A line of information."""

    def warn(self, kind: str, text: str) -> None:
        """A line about one of many recordings; of a ``kind`` the first is enough, the others may be counted."""

    def update(self, done: int, total: int) -> None:
        """``done`` of ``total`` items are finished."""


SILENT = Progress()
"""Shows nothing."""


class Shifted(Progress):
    """Counts of a part of the work, told as counts of the whole and once each; messages as they are.

    Attributes:
        reached: items of the whole that were told to be finished last.
    """

    def __init__(self, inner: Progress, start: int, total: int) -> None:
        self._inner, self._start, self._total, self.reached = inner, start, total, start

    def message(self, text: str) -> None:
        """A line of information."""
        self._inner.message(text)

    def warn(self, kind: str, text: str) -> None:
        """A line about one of many recordings."""
        self._inner.warn(kind, text)

    def update(self, done: int, total: int) -> None:
        """``done`` of the items of this part are finished."""
        if self._start + done != self.reached:
            self.reached = self._start + done
            self._inner.update(self.reached, self._total)
