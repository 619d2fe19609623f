"""What of a recording is drawn: on paper here, and as samples in the page."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import BytesIO

import numpy as np

from deri.ecg import ECG
from deri.ecg.plot import save_plot

SHOWN_S = 30.0
"""Seconds of a recording that the page is given."""
_ONE = threading.Lock()  # matplotlib is not made for several threads


def draw(ecg: ECG, suffix: str, title: str | None, annotations: Sequence[str]) -> bytes:
    """A drawing on ECG paper as the bytes of a file: ``png``, ``svg`` or ``pdf``; see :func:`deri.ecg.plot_ecg`."""
    drawn = BytesIO()
    with _ONE:
        save_plot(ecg, drawn, format=suffix, title=title, annotations=annotations)
    return drawn.getvalue()


def microvolts(ecg: ECG) -> dict[str, list[int | None]]:
    """The leads that are there, in whole µV, up to ``SHOWN_S``; None in gaps."""
    shown = np.round(1000 * ecg.signal[:, : round(SHOWN_S * ecg.fs)].astype(np.float64))
    missing = set(ecg.missing_leads)
    return {
        lead: [int(value) if np.isfinite(value) else None for value in row]
        for lead, row in zip(ecg.leads, shown, strict=True)
        if lead not in missing
    }
