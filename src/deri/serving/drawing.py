"""What of a recording is drawn: on paper here, and as samples in the page."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from deri.ecg import ECG, plot_ecg

SHOWN_S = 30.0
"""Seconds of a recording that the page is given."""
_ONE = threading.Lock()  # matplotlib is not made for several threads


def draw(ecg: ECG, suffix: str, title: str | None, annotations: Sequence[str]) -> bytes:
    """A drawing on ECG paper as the bytes of a file: ``png``, ``svg`` or ``pdf``; see :func:`deri.ecg.plot_ecg`."""
    with TemporaryDirectory(prefix="deri-") as folder, _ONE:
        path = Path(folder) / f"ecg.{suffix}"
        plot_ecg(ecg, path, title=title, annotations=annotations)
        return path.read_bytes()


def microvolts(ecg: ECG) -> dict[str, list[int | None]]:
    """The leads that are there, in whole µV, up to ``SHOWN_S``; None in gaps."""
    shown = np.round(1000 * ecg.signal[:, : round(SHOWN_S * ecg.fs)].astype(np.float64))
    missing = set(ecg.missing_leads)
    return {
        lead: [int(value) if np.isfinite(value) else None for value in row]
        for lead, row in zip(ecg.leads, shown, strict=True)
        if lead not in missing
    }
