"""Which part of an ECG a score rests on, by occlusion: hide it, and see how far the score falls.

A part is hidden by replacing it with its own mean, lead by lead, so that no amplitude is invented. Nothing but scores
is needed, so that any model will do (Zeiler & Fergus 2014). What a map shows is what this model uses, which need not be
what a cardiologist would look at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.ecg import ECG, plot_ecg
from deri.ecg.leads import LEADS
from deri.ecg.plot import layout
from deri.evaluation.candidates import Candidate
from deri.evaluation.figures import save, single_label_rows
from deri.evaluation.task import Task
from deri.evaluation.zero_shot import class_weights
from deri.progress import SILENT, Progress
from deri.reports import prompts_for

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WINDOW_SECONDS = 0.2
STRIDE_SECONDS = 0.1
Score = Callable[[np.ndarray], np.ndarray]
"""From signals (b, 12, n) in mV to scores (b,)."""


@dataclass(frozen=True)
class Saliency:
    """How far the score falls when a part is hidden; negative where it rises."""

    score: float  # of the whole recording
    lead_time: np.ndarray  # (12, n): mean over the windows of that lead that cover the sample
    time: np.ndarray  # (n,): mean over the windows, hidden in all leads at once, that cover the sample
    lead: np.ndarray  # (12,): with the whole lead hidden


def occlude(
    score: Score,
    signal: np.ndarray,
    fs: float,
    *,
    window: float = WINDOW_SECONDS,
    stride: float = STRIDE_SECONDS,
    batch_size: int = 64,
) -> Saliency:
    """Occlusion saliency of one recording.

    Args:
        score: of a batch of recordings, higher for more of the class.
        signal: (12, n) mV.
        fs: Hz.
        window: length of what is hidden at once, seconds.
        stride: from one window to the next, seconds; the last window ends with the recording.
        batch_size: recordings scored at once.
    """
    n = signal.shape[1]
    width, step = max(1, min(n, round(window * fs))), max(1, round(stride * fs))
    starts = sorted({*range(0, n - width + 1, step), n - width})
    hidden: list[tuple[slice, slice]] = [(slice(lead, lead + 1), slice(0, n)) for lead in range(len(signal))]
    hidden += [(slice(None), slice(a, a + width)) for a in starts]
    hidden += [(slice(lead, lead + 1), slice(a, a + width)) for lead in range(len(signal)) for a in starts]
    whole = float(score(signal[None])[0])
    falls = np.empty(len(hidden))
    for first in range(0, len(hidden), batch_size):
        part = hidden[first : first + batch_size]
        batch = np.repeat(signal[None], len(part), axis=0)
        for one, hide in zip(batch, part, strict=True):
            one[hide] = one[hide].mean(axis=-1, keepdims=True)
        falls[first : first + len(part)] = whole - score(batch)
    leads, k = len(signal), len(starts)
    cover = np.zeros((k, n))
    for row, a in zip(cover, starts, strict=True):
        row[a : a + width] = 1
    cover /= np.maximum(cover.sum(axis=0), 1)
    return Saliency(
        whole, falls[leads + k :].reshape(leads, k) @ cover, falls[leads : leads + k] @ cover, falls[:leads]
    )


def draw_saliency(ecg: ECG, saliency: Saliency, *, title: str, name: str) -> Figure:
    """The map over the ECG on paper: behind each lead its own part; behind the rhythm strip that of all leads at once.

    Orange: the score rests on it; blue: it speaks against the class. The strongest colour is the greatest fall, for the
    leads and for the strip apart.

    Args:
        ecg: the recording; its length is that of the map.
        saliency: of :func:`occlude`.
        title: headline.
        name: of the class.
    """
    order = np.argsort(-saliency.lead)
    shares = ", ".join(f"{LEADS[i]} {saliency.lead[i]:.2g}" for i in order[:4])
    lines = [
        f"score of {name}: {saliency.score:.3f}; it falls, without a whole lead, by {shares}",
        f"behind a lead: greatest fall {saliency.lead_time.max():.2g} with {WINDOW_SECONDS:g} s of it hidden; behind "
        f"the strip: {saliency.time.max():.2g} with {WINDOW_SECONDS:g} s of all leads hidden (orange fall, blue rise)",
    ]
    figure = plot_ecg(ecg, title=title, annotations=lines)
    axes = figure.axes[0]
    rows = layout(ecg)
    shown = [(piece, len(row) == 1) for row in rows for piece in row if piece.lead not in ecg.missing_leads]
    # Everything else that is drawn as a line is a calibration pulse of six points.
    traces = [line for line in axes.lines if len(np.asarray(line.get_xdata())) > 6]
    if len(traces) != len(shown):
        raise RuntimeError(f"{len(traces)} traces on paper for {len(shown)} parts of leads")
    top = max(float(np.abs(saliency.lead_time).max()), 1e-12)
    top_time = max(float(np.abs(saliency.time).max()), 1e-12)
    for line, (piece, alone) in zip(traces, shown, strict=True):
        x = np.asarray(line.get_xdata(), float)
        y = float(np.median(np.asarray(line.get_ydata(), float)))
        falls = saliency.time / top_time if alone else saliency.lead_time[LEADS.index(piece.lead)] / top
        values = falls[piece.samples(ecg)]
        axes.imshow(
            _colours(values)[None],
            extent=(x[0], x[len(values) - 1], y - 11, y + 11),
            aspect="auto",
            interpolation="nearest",
            zorder=1,
        )
    axes.set_xlim(0, figure.get_figwidth() * 25.4)
    axes.set_ylim(0, figure.get_figheight() * 25.4)
    return figure


def _colours(values: np.ndarray) -> np.ndarray:
    """(n, 4) RGBA: orange above zero, blue below, more opaque the farther."""
    orange, blue = (0.90, 0.45, 0.05), (0.10, 0.40, 0.75)
    out = np.empty((len(values), 4))
    out[:, :3] = np.where(values[:, None] >= 0, orange, blue)
    out[:, 3] = 0.75 * np.clip(np.abs(values), 0, 1)
    return out


def saliency_figures(
    candidate: Candidate, task: Task, count: int, out: Path, split: str = "test", progress: Progress = SILENT
) -> list[dict[str, Any]]:
    """Maps of a model's zero-shot scores for ``count`` recordings of a task's split, written under ``out``/figures.

    The recordings are chosen before any score is seen: the first recording with one class alone of each class, largest
    class first, then the second of each, and so on.
    """
    model = candidate.model
    if model is None:
        raise ValueError("a map needs a model that scores texts")
    store = task.store
    rows, class_index, names = single_label_rows(task, split, largest=len(task.classes))
    nth = np.array([int((class_index[:i] == c).sum()) for i, c in enumerate(class_index)], np.int64)
    order = np.lexsort((class_index, nth))[:count]
    valid = store.index["valid_samples"].to_numpy(np.int64)
    found = []
    for position in order:
        row, name = int(rows[position]), names[class_index[position]]
        weight = class_weights(model, prompts_for(task.name, [name]))[0]
        kept, mask = int(valid[row]), store.lead_mask([row])

        def score(
            signals: np.ndarray, weight: np.ndarray = weight, kept: int = kept, mask: np.ndarray = mask
        ) -> np.ndarray:
            padded = np.pad(signals, ((0, 0), (0, 0), (0, store.samples - kept)))
            leads = mask.repeat(len(signals), axis=0)
            return model.embed_signals(padded, store.fs, np.full(len(signals), kept), leads) @ weight

        signal = store.signals(np.array([row]))[0, :, :kept]
        record = str(store.index["record_id"].iloc[row])
        progress.message(f"{candidate.name} · {task.label} · saliency of {name} in record {record}")
        saliency = occlude(score, signal, store.fs)
        title = f"{candidate.name}: what {name} rests on in record {record}"
        figure = draw_saliency(ECG(signal, store.fs, {}), saliency, title=title, name=name)
        stem = out / "figures" / f"saliency-{_slug(candidate.name)}-{_slug(record)}-{_slug(name)}"
        files = [str(path.relative_to(out)) for path in save(figure, stem, tight=False)]
        found.append(
            {
                "model": candidate.name,
                "task": task.label,
                "record_id": record,
                "class": name,
                "score": saliency.score,
                "lead": {lead: float(value) for lead, value in zip(LEADS, saliency.lead, strict=True)},
                "files": files,
            }
        )
    return found


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text).strip("-")
