"""The percentile bootstrap by patient: records of one patient are not independent, and are drawn together."""

from __future__ import annotations

import numpy as np

_CHUNK = 64  # draws at a time, which bounds memory to 64 counts per patient

Interval = tuple[float, float]


def patient_weights(subjects: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each record is in each bootstrap sample of patients: (draws, n) float32."""
    _, patient = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    n = int(patient.max()) + 1 if len(patient) else 0
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws) if n else np.zeros((draws, 0))
    return counts[:, patient].astype(np.float32)


def drawn_sums(values: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Column sums of ``values`` (n, k) in every bootstrap sample of groups: (draws, k) float64.

    Args:
        values: one row per record.
        groups: (n,) whose record it is, 0 … g − 1.
        draws: bootstrap samples.
        seed: the same seed draws the same groups.
    """
    n = int(groups.max()) + 1 if len(groups) else 0
    grouped = np.zeros((n, values.shape[1]))
    np.add.at(grouped, groups, values)
    rng = np.random.default_rng(seed)
    out = np.zeros((draws, values.shape[1]))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        out[start : start + size] = rng.multinomial(n, np.full(n, 1 / n), size=size) @ grouped
    return out


def mean_over_drawn_runs(values: np.ndarray, seed: int) -> np.ndarray:
    """Means over runs that are drawn together with the patients: ``values`` (runs, draws) → (draws,).

    The interval of the result covers what other patients and what other runs (seeds of training) would change.
    """
    runs, draws = values.shape
    picks = np.random.default_rng(seed).integers(0, runs, (draws, runs))
    return values[picks, np.arange(draws)[:, None]].mean(axis=1)


def macro_mean(drawn: np.ndarray) -> np.ndarray:
    """Mean over classes of drawn figures (classes, draws): (draws,).

    A class that a draw makes undefined is left out of it; a draw without any class is NaN.
    """
    out = np.full(drawn.shape[1], np.nan)
    some = np.isfinite(drawn).any(axis=0)
    out[some] = np.nanmean(drawn[:, some], axis=0)
    return out


def interval(drawn: np.ndarray) -> Interval | None:
    """The 2.5 and 97.5 percentiles of the draws in which the figure is defined; None where it is in none."""
    known = drawn[np.isfinite(drawn)]
    return (float(np.percentile(known, 2.5)), float(np.percentile(known, 97.5))) if len(known) else None
