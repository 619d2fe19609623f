"""What all commands share: errors in one or two lines, progress bars on terminals, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri.errors import DeriError, some
from deri.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from deri.ecg import ECG
    from deri.store import Store


def say(text: str) -> None:
    """Print a line of information on stderr, so that stdout holds results alone."""
    sys.stderr.write(f"{text}\n")  # at once: a signal may come between a text and its end
    sys.stderr.flush()


def first_process() -> bool:
    """Whether this is the only process of a command, or the first of those that torchrun started for it."""
    return os.environ.get("RANK", "0") == "0"


def window_option(text: str) -> int | None:
    """The value of ``--windows N|all``; None: all."""
    if text == "all":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise DeriError(f"--windows {text}: a number from 1 on, or all")


def lead_note(file: str, ecg: ECG) -> str | None:
    """A line about a recording with fewer than twelve leads, or some for part of the time; None where all are there."""
    gone, partial = ecg.missing_leads, ecg.partial_leads
    if not gone and not partial:
        return None
    there = [lead for lead in ecg.leads if lead not in gone]
    which = f"without {', '.join(gone)}" if len(gone) < len(there) else ", ".join(there) or "none"
    listed = f" ({which})" if gone else ""
    while_there = f", {len(partial)} of them for part of the time" if partial else ""
    return f"{file}: {len(there)} of {len(ecg.leads)} leads{listed}{while_there}"


def say_doubts(file: str, ecg: ECG, progress: Progress) -> None:
    """Say what a model or its user must know of a recording: leads that are not there, and the reader's warnings."""
    if note := lead_note(file, ecg):
        progress.message(f"{note}; the model was trained with 12: expect less, above all of what only the others show")
    for code, sentence in (ecg.metadata.get("warnings") or {}).items():
        progress.warn(code, f"{file}: {sentence}")


class _Shown(Progress):
    """Messages, and of each kind of warning the first; :meth:`end` says how many others there were."""

    def __init__(self) -> None:
        self._warned: Counter[str] = Counter()

    def message(self, text: str) -> None:
        say(text)

    def warn(self, kind: str, text: str) -> None:
        self._warned[kind] += 1
        if self._warned[kind] == 1:
            self.message(text)

    def end(self) -> None:
        for kind, count in self._warned.items():
            if count > 1:
                self.message(f"the same of {count - 1} other recordings: {kind}")


class _Lines(_Shown):
    """A plain line about the counts every ``every`` seconds."""

    def __init__(self, label: str, every: float) -> None:
        super().__init__()
        self._label, self._every, self._last = label, every, time.monotonic()

    def update(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= self._every:
            self._last = time.monotonic()
            say(f"{self._label}: {done}/{total}")


class _Bar(_Shown):
    """Messages above a bar of ``rich``."""

    def __init__(self, label: str, bar: RichProgress) -> None:
        super().__init__()
        self._bar, self._task = bar, bar.add_task(label, total=None)

    def message(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)

    def update(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def progress(label: str, every: float = 10.0) -> Iterator[Progress]:
    """Yield what shows progress: a bar on a terminal, a plain line every ``every`` seconds elsewhere."""
    if not sys.stderr.isatty():
        lines = _Lines(label, every)
        yield lines
        lines.end()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = _Bar(label, bar)
        yield shown
        shown.end()


def open_store(path: str, skip_damaged: bool) -> Store:
    """The store of a command; with ``skip_damaged`` all of it is read, and what is left out is said."""
    import numpy as np

    from deri.store import Store

    if not skip_damaged:
        return Store.open(path)
    with progress(f"reading {path}") as show:
        store = Store.open(path, skip_damaged=True, progress=show)
    if gone := store.provenance.get("left_out"):
        ids = store.column("record_id")[np.setdiff1d(np.flatnonzero(store.begins), store.rows())]
        counts = ", ".join(f"{split} {n:,}" for split, n in gone.items() if n)
        say(
            f"{path}: {len(ids):,} of {store.recordings:,} recordings are damaged and left out ({counts}): "
            f"{some(ids.tolist())} (deri info {path} --verify names all)"
        )
    return store


def task_summary(result: dict[str, Any], out: Path) -> str:
    """What people read of the result of a task: the macro AUROC with its interval, and the notes."""
    from deri.evaluation.tables import with_interval

    macro = result["macro_auroc"]
    value = "null" if macro["value"] is None else with_interval(macro["value"], macro["ci"], before="95 % CI ")
    lines = [
        f"{result['task']} {result['split']}: macro AUROC {value} over {result['n_classes_scored']} of "
        f"{result['n_classes']} classes, {result['n']} records of {result['n_patients']} patients → {out}"
    ]
    return "\n".join([*lines, *(f"  {note}" for note in result["notes"])])
