"""Errors that a user can cause and cure.

The command line prints their message alone (one or two lines) and exits with code 2; every other exception is a
defect of this library and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DeriError(Exception):
    """A user-caused problem. The message names the file or option, the cause and the cure."""


def some(names: Sequence[str], most: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def install(extra: str) -> str:
    """The command that installs an extra of this package: from the checkout where it runs from one, else by name."""
    checkout = Path(__file__).resolve().parents[2]
    return f"pip install '{checkout if (checkout / 'pyproject.toml').is_file() else 'deri'}[{extra}]'"


class ReadError(DeriError):
    """An ECG that cannot be read or used.

    ``reason`` is a short stable code in snake_case (``missing_file``, ``unequal_lead_lengths`` …): a data set counts
    its rejected records by it. ``str(error)`` is the full sentence.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        return type(self), (str(self), self.reason)


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM on the command line. No :class:`KeyboardInterrupt`, which typer swallows without a word.

    Attributes:
        signal: its number.
        way_on: how to go on afterwards; filled in by :func:`deri.files.writing`.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal
        self.way_on = ""


def out_of_memory(error: BaseException) -> bool:
    """Whether Python, or torch on a CPU or GPU, had no memory left; torch is not imported for it."""
    name, text = type(error).__name__, str(error)
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "DefaultCPUAllocator" in text
