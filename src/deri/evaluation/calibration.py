"""Calibration: do records that are given a probability of 0.8 have the finding in 80 % of cases?

Expected calibration error with equal-width bins (Naeini et al. 2015; Guo et al. 2017), for the probability of one
class: Σ (n_b / n) |mean probability − share of positives| over 15 bins [k/15, (k+1)/15), the last one closed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class ReliabilityBin:
    """One row of a reliability table: the records whose probability lies in [lower, upper)."""

    lower: float
    upper: float
    n: int
    predicted: float | None  # mean probability
    observed: float | None  # share of positives


@dataclass(frozen=True)
class Calibration:
    """Calibration of a task: mean over its classes, and all (record, class) pairs as one."""

    bins: int
    macro_ece: float | None
    pooled_ece: float | None
    reliability: tuple[ReliabilityBin, ...]


def reliability(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The reliability table of one class, ``bins`` rows.

    Args:
        positive: (n,) 0 or 1.
        probability: (n,) in [0, 1]; anything else is a ValueError.
        bins: of equal width.
    """
    positive = np.asarray(positive, np.float64)
    probability = np.asarray(probability, np.float64)
    if not (np.isfinite(probability) & (probability >= 0) & (probability <= 1)).all():
        raise ValueError("calibration needs probabilities in [0, 1]")
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    n = np.bincount(bin_of, minlength=bins)
    predicted = np.bincount(bin_of, probability, minlength=bins)
    observed = np.bincount(bin_of, positive, minlength=bins)
    return tuple(
        ReliabilityBin(
            k / bins,
            (k + 1) / bins,
            int(n[k]),
            float(predicted[k] / n[k]) if n[k] else None,
            float(observed[k] / n[k]) if n[k] else None,
        )
        for k in range(bins)
    )


def expected_calibration_error(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float | None:
    """Expected calibration error of one class; None without records. Arguments as for :func:`reliability`."""
    return _error(reliability(positive, probability, bins))


def calibrate(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Calibration:
    """Calibration of all classes: labels and probabilities are (n, classes)."""
    per_class = [expected_calibration_error(labels[:, c], probabilities[:, c], bins) for c in range(labels.shape[1])]
    known = [error for error in per_class if error is not None]
    table = reliability(labels.ravel(), probabilities.ravel(), bins)
    return Calibration(bins, float(np.mean(known)) if known else None, _error(table), table)


def _error(table: tuple[ReliabilityBin, ...]) -> float | None:
    n = sum(row.n for row in table)
    if not n:
        return None
    gaps = [
        row.n * abs(row.predicted - row.observed)
        for row in table
        if row.predicted is not None and row.observed is not None
    ]
    return float(sum(gaps) / n)
