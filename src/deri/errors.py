"""Errors that a user can cause and cure.

The command line prints their message alone (one or two lines) and exits with code 2; every other exception is a
defect of this library and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class DeriError(Exception):
    """A user-caused problem. The message names the file or option, the cause and the cure."""


def some(names: Sequence[str], most: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class ReadError(DeriError):
    """An ECG that cannot be read or used.

    ``reason`` is a short stable code in snake_case (``missing_file``, ``unequal_lead_lengths`` …): a data set counts
    its rejected records by it. ``str(error)`` is the full sentence.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
