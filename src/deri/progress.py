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
