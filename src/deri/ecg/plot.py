"""A 12-lead ECG on paper: 25 mm/s, 10 mm/mV, three rows of four leads and a rhythm strip, in true millimetres."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deri.ecg.gains import with_common_gain
from deri.ecg.intervals import intervals
from deri.ecg.leads import LEADS
from deri.ecg.quality import wrong_unit
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
FORMATS = ("png", "svg", "pdf")
DOUBTS = {
    "common_gain": "Amplitudes: the header's gains contradict the samples. All leads are drawn at one gain, 1000 units "
    "per mV: leads can be compared, the absolute size is assumed.",
    "inconsistent_gains": "Amplitudes are not to be trusted: the header's gains contradict the samples, leads cannot "
    "be compared.",
    "uncalibrated": "Amplitudes are not to be trusted: the file states no gain, 200 units per mV are assumed.",
    "gain_corrected": "Amplitudes: the header is one of those published with a false gain; the true one is used.",
}
"""Warnings of a recording that a reader of its amplitudes must see → the sentence on the sheet."""

_SECONDS = 10.0
_COLUMN_SECONDS = _SECONDS / 4
_FEW = 3  # up to so many recorded leads, each has rows of its own
_WIDTH = 280.0  # paper, mm; a multiple of 5 so that the grid ends on a heavy line
_LEFT = 20.0  # where the traces begin; the calibration pulse stands before it
_ROW = 30.0  # from one zero line to the next, at least
_REACH = 45.0  # a trace is drawn this far above and below its zero line: ±4.5 mV, more than any QRS complex
_ROOM = 30.0  # a row is made as high as its traces need, up to this far from the zero line
_NAME_HEIGHT, _NAME_UP = 4.0, 11.5  # of a lead's name, mm: how high, and how far above the zero line if it can
_FOOT = 10.0
_HEAD = 12.0
_TEXT_LINE = 5.0
_TEXT_WIDTH = 165  # characters in a line of text
_DPI = 254  # ten pixels per millimetre: every grid line falls on a pixel
_POINTS_PER_MM = 72 / 25.4

_PAPER, _FINE, _HEAVY, _INK, _FAINT, _ALARM = "#fffaf7", "#f8d9d2", "#eda79c", "#14141c", "#6b6b78", "#a3150c"


class Piece(NamedTuple):
    """A part of a lead in its place on the sheet.

    Attributes:
        lead: its name.
        start: s, where the part begins in the recording.
        seconds: its length, if the recording is so long.
        x: where it begins on the sheet, mm.
    """

    lead: str
    start: float
    seconds: float
    x: float = _LEFT

    def samples(self, ecg: ECG) -> slice:
        """The samples that are drawn: one more than its seconds hold, so that columns meet."""
        return slice(round(self.start * ecg.fs), round((self.start + self.seconds) * ecg.fs) + 1)


def layout(ecg: ECG, strip: str | None = None) -> list[list[Piece]]:
    """The rows of the sheet of a recording.

    Three rows of four leads and the rhythm strip ``strip``. With 10 s or more the columns follow each other in time; a
    lead that was recorded at another time than that of its column shows its own beginning. Up to three recorded
    leads have rows of 10 s instead, a single one up to four in succession.
    """
    recorded = [lead for lead in LEADS if lead not in ecg.missing_leads]
    if len(recorded) == 1:
        count = min(4, max(1, int(np.ceil(ecg.duration / _SECONDS - 1e-6))))
        return [[Piece(recorded[0], _SECONDS * i, _SECONDS)] for i in range(count)]
    if 1 < len(recorded) <= _FEW:
        return [[Piece(lead, 0.0, _SECONDS)] for lead in recorded]
    strip = strip or next((lead for lead in RHYTHM_LEADS if lead in recorded), "II")
    rows = [[_in_column(ecg, lead, column) for column, lead in enumerate(row)] for row in ROWS]
    return [*rows, [Piece(strip, 0.0, _SECONDS)]]


def _in_column(ecg: ECG, lead: str, column: int) -> Piece:
    start = _COLUMN_SECONDS * column if ecg.duration >= _SECONDS else 0.0
    piece = Piece(lead, start, _COLUMN_SECONDS, _LEFT + MM_PER_SECOND * _COLUMN_SECONDS * column)
    row = np.isfinite(ecg.signal[LEADS.index(lead)])
    if row[piece.samples(ecg)].sum() > 0.1 * _COLUMN_SECONDS * ecg.fs or not row.any():
        return piece
    return piece._replace(start=float(row.argmax()) / ecg.fs)


def plot_ecg(
    ecg: ECG,
    path: str | Path | None = None,
    *,
    title: str | None = None,
    annotations: Sequence[str] | None = None,
    strip: str | None = None,
) -> Figure:
    """Draw a recording on ECG paper, see :func:`layout` for what is shown where.

    The head has rate and intervals (:func:`deri.ecg.intervals.intervals`), age, sex and date; the foot the scale, the
    rate of samples, and the filters where the file tells them. Each lead is drawn about its median, a lead that was
    not recorded says so, gaps stay gaps. Where gains are doubtful the sheet says so (``DOUBTS``); where the header's
    gains are refuted all leads have one, see :func:`deri.ecg.gains.with_common_gain`.

    Args:
        ecg: any recording.
        path: write a PNG (10 pixels per mm), SVG or PDF here, by suffix, atomically. None only returns the figure.
        title: headline; by default the name of the source file.
        annotations: lines of text under it, e.g. what a model found.
        strip: lead of the rhythm strip; by default the first of ``RHYTHM_LEADS`` that was recorded.

    Returns:
        A matplotlib figure whose size is the paper's: printed unscaled, 1 mm is 1 mm.

    Raises:
        DeriError: a path that ends in none of ``.png``, ``.svg`` and ``.pdf``.
    """
    from matplotlib.figure import Figure

    if path is not None:
        _format_of(path)
    ecg = with_common_gain(ecg)
    rows = layout(ecg, strip)
    lines = [line for text in annotations or () for line in textwrap.wrap(text, _TEXT_WIDTH)]
    doubts = [line for text in _doubts(ecg) for line in textwrap.wrap(text, _TEXT_WIDTH)]
    head = _HEAD + _TEXT_LINE * (1 + len(lines) + len(doubts))
    depths, below = _depths(ecg, rows)
    height = _on_grid(head + depths[-1] + below + _FOOT)
    figure = Figure(figsize=(_WIDTH / 25.4, height / 25.4), dpi=_DPI, facecolor=_PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, height)
    axes.axis("off")
    _draw_grid(axes, height)
    _draw_head(axes, ecg, height, title, lines, doubts)
    _draw_foot(axes, ecg, rows)
    names = _Names(axes)
    for row, depth in zip(rows, depths, strict=True):
        _draw_row(axes, ecg, row, float(np.floor((height - head - depth) / 5) * 5), names)
    names.draw()
    if path is not None:
        with atomic_path(path) as temporary:
            _write(figure, temporary, _format_of(path), _DPI)
    return figure


def save_plot(
    ecg: ECG,
    file: str | Path | IO[bytes],
    *,
    format: str | None = None,
    width: int | None = None,
    title: str | None = None,
    annotations: Sequence[str] | None = None,
    strip: str | None = None,
) -> None:
    """Write the sheet of :func:`plot_ecg` to a path, atomically, or to an open binary file.

    Args:
        ecg: any recording.
        file: path or open file.
        format: ``png``, ``svg`` or ``pdf``; by default the suffix of the path.
        width: of a PNG, in pixels; by default 10 per mm.
        title: see :func:`plot_ecg`, as for the rest.
        annotations: lines of text.
        strip: lead of the rhythm strip.

    Raises:
        DeriError: another format, or an open file and no format.
    """
    path = Path(file) if isinstance(file, str | os.PathLike) else None
    if format is None and path is None:
        raise DeriError(f"the format of an open file has to be said: format= one of {', '.join(FORMATS)}")
    kind = _format_of(path) if format is None and path is not None else str(format).lower()
    if kind not in FORMATS:
        raise DeriError(f"format={format}: an ECG is drawn as {', '.join(FORMATS)}; choose one of these")
    figure = plot_ecg(ecg, title=title, annotations=annotations, strip=strip)
    dpi = _DPI if width is None else width / (_WIDTH / 25.4)
    if path is None:
        _write(figure, file, kind, dpi)
        return
    with atomic_path(path) as temporary:
        _write(figure, temporary, kind, dpi)


def ecg_png(ecg: ECG, *, width: int = 1400, title: str | None = None, strip: str | None = None) -> bytes:
    """Draw a recording as :func:`plot_ecg` does, as a PNG of ``width`` pixels in few colours, some 50 KB."""
    import io

    from PIL import Image

    full, small = io.BytesIO(), io.BytesIO()
    save_plot(ecg, full, format="png", width=width, title=title, strip=strip)
    Image.open(full).convert("RGB").quantize(48).save(small, "png", optimize=True)
    return small.getvalue()


def _format_of(path: str | Path) -> str:
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise DeriError(f"{path}: an ECG is drawn as .png, .svg or .pdf; choose one of these suffixes")
    return kind


def _write(figure: Figure, file: Any, kind: str, dpi: float) -> None:
    from matplotlib import rc_context

    # The salt and the missing date make equal drawings equal files.
    unsaid = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}[kind]
    with rc_context({"svg.hashsalt": "deri", "pdf.fonttype": 42}):
        figure.savefig(file, format=kind, dpi=dpi, facecolor=_PAPER, metadata={unsaid: None})


def _doubts(ecg: ECG) -> list[str]:
    """What a reader of the amplitudes must know."""
    warnings = ecg.metadata.get("warnings") or {}
    codes = [code for code in DOUBTS if code in warnings]
    if "common_gain" in codes:
        codes.remove("inconsistent_gains")
    found = [DOUBTS[code] for code in codes]
    finite = ecg.signal[:, : round(_SECONDS * ecg.fs)]
    span = np.nanmax(finite, initial=-np.inf) - np.nanmin(finite, initial=np.inf) if np.isfinite(finite).any() else 1.0
    if not 0.1 < span < 30 and (unit := wrong_unit(finite)):
        found.append(f"Amplitudes are impossible: values that are said to be mV are probably {unit}.")
    return found


def _on_grid(length: float) -> float:
    return float(np.ceil(length / 5) * 5)


def _zero(ecg: ECG, lead: str) -> float:
    """The median of the ten seconds shown, so that a lead has the same zero in its column and in the strip."""
    shown = ecg.signal[LEADS.index(lead), : round(_SECONDS * ecg.fs)]
    finite = shown[np.isfinite(shown)]
    return float(np.median(finite)) if finite.size else 0.0


def _depths(ecg: ECG, rows: list[list[Piece]]) -> tuple[list[float], float]:
    """How far below the head the zero line of each row lies, and what the last needs under it; mm, on the grid."""
    depths: list[float] = []
    below = 0.0
    for row in rows:
        values = [
            MM_PER_MV * (ecg.signal[LEADS.index(piece.lead), piece.samples(ecg)] - _zero(ecg, piece.lead))
            for piece in row
        ]
        finite = np.concatenate(values)
        finite = np.clip(finite[np.isfinite(finite)], -_ROOM, _ROOM)
        above = float(finite.max(initial=0.0)) + _NAME_HEIGHT
        least = _ROW if depths else _NAME_UP + _NAME_HEIGHT
        depths.append((depths[-1] if depths else 0.0) + _on_grid(max(least, below + above)))
        below = max(10.0, -float(finite.min(initial=0.0)) + 2)
    return depths, below


def _draw_grid(axes: Axes, height: float) -> None:
    for step, colour, width in ((1, _FINE, 0.1), (5, _HEAVY, 0.2)):
        pen: dict[str, Any] = {"colors": colour, "linewidth": width * _POINTS_PER_MM, "zorder": 0}
        axes.vlines(np.arange(0, _WIDTH + step, step), 0, height, **pen)
        axes.hlines(np.arange(0, height + step, step), 0, _WIDTH, **pen)


def _draw_head(axes: Axes, ecg: ECG, height: float, title: str | None, lines: list[str], doubts: list[str]) -> None:
    about = ecg.metadata
    if title is None:
        title = Path(str(about.get("source_file", "ECG"))).stem
    subject = [f"{about['age']:g} years"] if about.get("age") is not None else []
    subject += [str(about["sex"])] if about.get("sex") else []
    at = height - 7
    _text(axes, 5, at, textwrap.shorten(title, 90, placeholder=" …"), 11, weight="bold")
    _text(axes, _WIDTH - 5, at, ", ".join(subject), 9, align="right")
    at -= _TEXT_LINE + 1
    _text(axes, 5, at, _measured(ecg), 8.5)
    _text(axes, _WIDTH - 5, at, str(about.get("date") or "").replace("T", " "), 8.5, align="right")
    for line in lines:
        at -= _TEXT_LINE
        _text(axes, 5, at, line, 8.5)
    for line in doubts:
        at -= _TEXT_LINE
        _text(axes, 5, at, line, 8.5, color=_ALARM)


def _measured(ecg: ECG) -> str:
    found = intervals(ecg)

    def told(*names: str, unit: str) -> str:
        if any(found[name] is None for name in names):
            return "–"
        return "/".join(f"{found[name]:.0f}".replace("-", "−") for name in names) + unit

    return (
        f"rate {told('rate_bpm', unit='/min')}     PR {told('pr_ms', unit=' ms')}     QRS {told('qrs_ms', unit=' ms')}"
        f"     QT/QTc {told('qt_ms', 'qtc_ms', unit=' ms')}     axis {told('axis_deg', unit='°')}"
    )


def _draw_foot(axes: Axes, ecg: ECG, rows: list[list[Piece]]) -> None:
    shown = max(piece.start + piece.seconds for row in rows for piece in row)
    longer = ecg.duration > shown + 1 / ecg.fs
    cut = f"first {shown:g} of {ecg.duration:.1f} s" if longer else f"{ecg.duration:.1f} s"
    if len(rows[0]) > 1:
        cut += ", columns consecutive" if ecg.duration >= _SECONDS else ", columns all from 0 s"
    facts = f"{MM_PER_SECOND:g} mm/s     {MM_PER_MV:g} mm/mV     {ecg.fs:g} Hz     {cut}"
    if filters := ecg.metadata.get("filters"):
        facts += f"     filters: {filters}"
    _text(axes, 5, 3.5, facts, 8)
    _text(axes, _WIDTH - 5, 3.5, "research use only, not a medical device", 7, align="right", color=_FAINT)


def _text(axes: Axes, x: float, y: float, text: str, size: float, *, align: str = "left", **style: Any) -> None:
    # A box of paper behind the letters keeps them readable on the grid; "$" would start mathematics.
    box = {"facecolor": _PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    style = {"color": _INK, "verticalalignment": "baseline", "zorder": 4, "bbox": box, **style}
    axes.text(x, y, text.replace("$", r"\$"), fontsize=size, horizontalalignment=align, **style)


def _draw_row(axes: Axes, ecg: ECG, row: list[Piece], baseline: float, names: _Names) -> None:
    _draw_calibration(axes, baseline)
    for piece in row:
        _draw_trace(axes, ecg, piece, baseline, names)
        if piece.x > _LEFT:
            axes.vlines(piece.x, baseline - 4, baseline + 4, colors=_INK, linewidth=0.2 * _POINTS_PER_MM, zorder=3)


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


def _draw_trace(axes: Axes, ecg: ECG, piece: Piece, baseline: float, names: _Names) -> None:
    from matplotlib.patches import Rectangle

    missing = piece.lead in ecg.missing_leads
    # It begins at another time than its place on the sheet says.
    usual = (piece.x - _LEFT) / MM_PER_SECOND if ecg.duration >= _SECONDS else 0.0
    moved = abs(piece.start - usual) > 1 / ecg.fs
    names.wanted.append((f"{piece.lead} ({piece.start:.1f} s)" if moved else piece.lead, piece.x, baseline, missing))
    if missing:
        return
    values = ecg.signal[LEADS.index(piece.lead), piece.samples(ecg)] - _zero(ecg, piece.lead)
    time = np.arange(len(values)) / ecg.fs
    (line,) = axes.plot(
        piece.x + MM_PER_SECOND * time,
        baseline + MM_PER_MV * values,
        color=_INK,
        linewidth=0.3 * _POINTS_PER_MM,
        solid_joinstyle="round",
        zorder=2,
    )
    # A pacing spike may reach its neighbours' rows, as on a printer, but not cross the whole sheet.
    line.set_clip_path(Rectangle((0, baseline - _REACH), _WIDTH, 2 * _REACH, transform=axes.transData))


class _Names:
    """The names of the leads, which are set where no trace is."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.wanted: list[tuple[str, float, float, bool]] = []  # text, beginning of its trace, zero line, missing

    def draw(self) -> None:
        """Write each near the beginning of its trace, at the nearest place to the usual one that is free."""
        x, y = self._ink()
        right, up = np.meshgrid(np.arange(1.5, 45, 1.5), np.arange(-12.0, 20.0, 0.5))
        order = np.argsort((right + np.abs(up - _NAME_UP)).ravel(), kind="stable")
        places = np.stack([right.ravel(), up.ravel()], axis=1)[order]
        for text, begin, baseline, missing in self.wanted:
            width = 2.4 * len(text) + 1.0
            near = (x > begin) & (x < begin + 50 + width) & (np.abs(y - baseline) < 30)
            px, py = x[near] - begin, y[near] - baseline
            for dx, dy in places:
                inside = (px > dx - 0.7) & (px < dx + width) & (py > dy - 0.7) & (py < dy + _NAME_HEIGHT)
                if not inside.any():
                    break
            else:
                dx, dy = 1.5, _NAME_UP
            _text(self.axes, begin + dx, baseline + dy, text, 9, weight="bold")
            if missing:
                _text(self.axes, begin + 5, baseline - 1, "not recorded", 8, color=_FAINT)

    def _ink(self) -> tuple[np.ndarray, np.ndarray]:
        """Points on all lines, close enough to each other that none slips through a name."""
        xs, ys = [], []
        for line in self.axes.lines:
            x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
            at = np.linspace(0, len(x) - 1, max(len(x), int(40 * (x[-1] - x[0]))))
            xs.append(np.interp(at, np.arange(len(x)), x))
            ys.append(np.interp(at, np.arange(len(x)), y))
        return np.concatenate(xs), np.concatenate(ys)
