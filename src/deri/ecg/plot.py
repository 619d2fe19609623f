"""A 12-lead ECG on paper: 25 mm/s, 10 mm/mV, three rows of four leads and a rhythm strip, in true millimetres."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import DeriError
from deri.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM_LEADS = ("II", "V1", "I", *LEADS)
"""The rhythm strip shows the first of these that was recorded."""

_SECONDS = 10.0
_COLUMN_SECONDS = _SECONDS / 4
_WIDTH = 280.0  # paper, mm; a multiple of 5 so that the grid ends on a heavy line
_LEFT = 20.0  # where the traces begin; the calibration pulse stands before it
_ROW = 35.0
_REACH = 45.0  # a trace is drawn this far above and below its zero line: ±4.5 mV, more than any QRS complex
_FOOT = 10.0
_HEAD = 15.0
_TEXT_LINE = 5.0
_DPI = 254  # ten pixels per millimetre: every grid line falls on a pixel
_POINTS_PER_MM = 72 / 25.4

_PAPER, _FINE, _HEAVY, _INK, _FAINT = "#fffaf7", "#f8d9d2", "#eda79c", "#14141c", "#6b6b78"


def plot_ecg(
    ecg: ECG,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    annotations: Sequence[str] | None = None,
    strip: str | None = None,
) -> Figure:
    """Draw a recording on ECG paper.

    The first 10 s are shown. With 10 s or more, the four columns follow each other in time as on a printed ECG; a
    shorter recording shows the first 2.5 s of every lead. The rhythm strip (lead II where recorded) shows all of it.
    Each lead is drawn about its median, a lead that was not recorded says so, gaps stay gaps.

    Args:
        ecg: any recording.
        path: write a PNG (10 pixels per mm) or an SVG here, by suffix, atomically. None only returns the figure.
        title: headline; by default the name of the source file.
        annotations: lines of text under it, e.g. what a model found.
        strip: lead of the rhythm strip; by default the first of ``RHYTHM_LEADS`` that was recorded.

    Returns:
        A matplotlib figure whose size is the paper's: printed unscaled, 1 mm is 1 mm.

    Raises:
        DeriError: a path that ends neither in ``.png`` nor in ``.svg``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    suffix = None if path is None else Path(path).suffix.lower()
    if suffix not in (None, ".png", ".svg"):
        raise DeriError(f"{path}: an ECG is drawn as .png or .svg; choose one of these suffixes")
    lines = list(annotations or ())
    head = _HEAD + _TEXT_LINE * len(lines)
    height = _on_grid(head + 4 * _ROW + _FOOT)
    figure = Figure(figsize=(_WIDTH / 25.4, height / 25.4), dpi=_DPI, facecolor=_PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, height)
    axes.axis("off")
    _draw_grid(axes, height)
    _draw_text(axes, ecg, height, title, lines)
    top = height - head
    for index, row in enumerate(ROWS):
        _draw_row(axes, ecg, row, _baseline(top, index))
    _draw_rhythm_strip(axes, ecg, _baseline(top, 3), strip)
    if path is not None and suffix is not None:
        # The salt and the missing date make equal drawings equal files.
        with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "deri"}):
            metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
            figure.savefig(temporary, format=suffix[1:], dpi=_DPI, facecolor=_PAPER, metadata=metadata)
    return figure


def ecg_png(ecg: ECG, *, width: int = 1400, title: str | None = None, strip: str | None = None) -> bytes:
    """Draw a recording as :func:`plot_ecg` does, as a PNG of ``width`` pixels in few colours, some 50 KB."""
    import io

    from PIL import Image

    figure = plot_ecg(ecg, title=title, strip=strip)
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=width / (_WIDTH / 25.4), facecolor=_PAPER, metadata={"Software": None})
    Image.open(full).convert("RGB").quantize(48).save(small, "png", optimize=True)
    return small.getvalue()


def _on_grid(length: float) -> float:
    return float(np.ceil(length / 5) * 5)


def _baseline(top: float, row: int) -> float:
    """Height of a row's zero line, on a heavy grid line."""
    return float(np.floor((top - _ROW * (row + 0.5)) / 5) * 5)


def _draw_grid(axes: Axes, height: float) -> None:
    for step, colour, width in ((1, _FINE, 0.1), (5, _HEAVY, 0.2)):
        pen: dict[str, Any] = {"colors": colour, "linewidth": width * _POINTS_PER_MM, "zorder": 0}
        axes.vlines(np.arange(0, _WIDTH + step, step), 0, height, **pen)
        axes.hlines(np.arange(0, height + step, step), 0, _WIDTH, **pen)


def _draw_text(axes: Axes, ecg: ECG, height: float, title: str | None, lines: list[str]) -> None:
    if title is None:
        title = Path(str(ecg.metadata.get("source_file", "ECG"))).stem
    subject = []
    if ecg.metadata.get("age") is not None:
        subject.append(f"{ecg.metadata['age']:g} years")
    if ecg.metadata.get("sex"):
        subject.append(str(ecg.metadata["sex"]))
    _text(axes, 5, height - 7, title, 11, weight="bold")
    _text(axes, _WIDTH - 5, height - 7, ", ".join(subject), 9, align="right")
    for i, line in enumerate(lines):
        _text(axes, 5, height - 13 - _TEXT_LINE * i, line, 8.5)
    columns = "columns consecutive" if ecg.duration >= _SECONDS else "columns all from 0 s"
    cut = (
        f"first {_SECONDS:g} of {ecg.duration:.1f} s"
        if ecg.duration > _SECONDS + 1 / ecg.fs
        else f"{ecg.duration:.1f} s"
    )
    facts = f"{MM_PER_SECOND:g} mm/s     {MM_PER_MV:g} mm/mV     {ecg.fs:g} Hz     {cut}, {columns}"
    _text(axes, 5, 3.5, facts, 8)
    _text(axes, _WIDTH - 5, 3.5, "research use only, not a medical device", 7, align="right", color=_FAINT)


def _text(axes: Axes, x: float, y: float, text: str, size: float, *, align: str = "left", **style: Any) -> None:
    # A box of paper behind the letters keeps them readable on the grid; "$" would start mathematics.
    box = {"facecolor": _PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    style = {"color": _INK, "verticalalignment": "baseline", "zorder": 4, "bbox": box, **style}
    axes.text(x, y, text.replace("$", r"\$"), fontsize=size, horizontalalignment=align, **style)


def _draw_row(axes: Axes, ecg: ECG, leads: Sequence[str], baseline: float) -> None:
    _draw_calibration(axes, baseline)
    consecutive = ecg.duration >= _SECONDS
    for column, lead in enumerate(leads):
        start = _COLUMN_SECONDS * column
        x = _LEFT + MM_PER_SECOND * start
        _draw_trace(axes, ecg, lead, x, baseline, start if consecutive else 0.0, _COLUMN_SECONDS)
        if column:
            axes.vlines(x, baseline - 4, baseline + 4, colors=_INK, linewidth=0.2 * _POINTS_PER_MM, zorder=3)


def _draw_rhythm_strip(axes: Axes, ecg: ECG, baseline: float, strip: str | None) -> None:
    missing = ecg.missing_leads
    lead = strip or next((lead for lead in RHYTHM_LEADS if lead not in missing), "II")
    _draw_calibration(axes, baseline)
    _draw_trace(axes, ecg, lead, _LEFT, baseline, 0.0, _SECONDS)


def _draw_calibration(axes: Axes, baseline: float) -> None:
    """A pulse of 1 mV and 0.2 s."""
    low, high = baseline, baseline + MM_PER_MV
    begin = _LEFT - 12.5
    axes.plot(
        [begin, begin + 2.5, begin + 2.5, begin + 7.5, begin + 7.5, begin + 10],
        [low, low, high, high, low, low],
        color=_INK,
        linewidth=0.3 * _POINTS_PER_MM,
        solid_joinstyle="miter",
        zorder=3,
    )


def _draw_trace(axes: Axes, ecg: ECG, lead: str, x: float, baseline: float, start: float, seconds: float) -> None:
    from matplotlib.patches import Rectangle

    first, last = round(start * ecg.fs), round((start + seconds) * ecg.fs)
    whole = ecg.signal[LEADS.index(lead)]
    _text(axes, x + 1.5, baseline + 11.5, lead, 9, weight="bold")
    if lead in ecg.missing_leads:
        _text(axes, x + 5, baseline - 1, "not recorded", 8, color=_FAINT)
        return
    # About the median of the ten seconds shown, so that the same lead has the same zero in its column and in the strip.
    shown = whole[: round(_SECONDS * ecg.fs)]
    finite = shown[np.isfinite(shown)]
    zero = float(np.median(finite)) if finite.size else 0.0
    piece = whole[first : last + 1]  # one sample more, so that columns meet
    time = np.arange(len(piece)) / ecg.fs
    (line,) = axes.plot(
        x + MM_PER_SECOND * time,
        baseline + MM_PER_MV * (piece - zero),
        color=_INK,
        linewidth=0.3 * _POINTS_PER_MM,
        solid_joinstyle="round",
        zorder=2,
    )
    # A pacing spike may reach its neighbours' rows, as on a printer, but not cross the whole sheet.
    line.set_clip_path(Rectangle((0, baseline - _REACH), _WIDTH, 2 * _REACH, transform=axes.transData))
