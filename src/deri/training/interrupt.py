"""Signals that wait for the end of a step, so that a checkpoint can be kept."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_EARLY = getattr(signal, "SIGUSR1", None)  # schedulers send it some time before the end; Windows has none


class DeferredSignals:
    """Ctrl-C, SIGTERM and SIGUSR1 in the block set ``pending``, and act after it; SIGUSR1 then acts as SIGTERM.

    A second Ctrl-C acts at once. A second SIGTERM does not: some schedulers send it to every process of a job, and the
    launcher of a process sends it once more. Outside the main thread signals do what they did before.
    """

    def __init__(self) -> None:
        self.pending: int | None = None
        self._active = threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> DeferredSignals:
        if self._active:
            for number in (signal.SIGINT, signal.SIGTERM, *([_EARLY] if _EARLY else [])):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.pending == number == signal.SIGINT:
            self._restore()
            os.kill(os.getpid(), number)
        self.pending = signal.SIGTERM if number == _EARLY else number

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
        if self.pending is not None and kind is None:
            os.kill(os.getpid(), self.pending)
