"""Calibration: do records that are given a probability of 0.8 have the finding in 80 % of cases?

Expected calibration error with equal-width bins (Naeini et al. 2015; Guo et al. 2017), for the probability of one
class: Σ (n_b / n) |mean probability − share of positives| over 15 bins [k/15, (k+1)/15), the last one closed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BINS = 15


def reliability(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """The reliability table of one class: a row for each of ``bins`` of equal width.

    A row is of the records whose probability lies in [``lower``, ``upper``): ``n``, how many; ``predicted``, their mean
    probability, and ``observed``, the share of positives, None where there is none.

    Args:
        positive: (n,) 0 or 1.
        probability: (n,) in [0, 1]; anything else is a ValueError.
        bins: how many.
    """
    positive = np.asarray(positive, np.float64)
    probability = np.asarray(probability, np.float64)
    if not (np.isfinite(probability) & (probability >= 0) & (probability <= 1)).all():
        raise ValueError("calibration needs probabilities in [0, 1]")
    bin_of = np.minimum((probability * bins).astype(np.int64), bins - 1)
    n = np.bincount(bin_of, minlength=bins)
    sums = {"predicted": np.bincount(bin_of, probability, bins), "observed": np.bincount(bin_of, positive, bins)}
    return [
        {"lower": k / bins, "upper": (k + 1) / bins, "n": int(n[k])}
        | {name: float(of[k] / n[k]) if n[k] else None for name, of in sums.items()}
        for k in range(bins)
    ]


def expected_calibration_error(positive: np.ndarray, probability: np.ndarray, bins: int = BINS) -> float | None:
    """Expected calibration error of one class; None without records. Arguments as for :func:`reliability`."""
    return _error(reliability(positive, probability, bins))


def calibrate(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Calibration of a task, labels and probabilities (n, classes), as JSON values.

    ``macro_ece`` is the mean over classes; ``pooled_ece`` and ``reliability`` take all (record, class) pairs as one.
    """
    per_class = [expected_calibration_error(labels[:, c], probabilities[:, c], bins) for c in range(labels.shape[1])]
    known = [error for error in per_class if error is not None]
    table = reliability(labels.ravel(), probabilities.ravel(), bins)
    macro = float(np.mean(known)) if known else None
    return {"bins": bins, "macro_ece": macro, "pooled_ece": _error(table), "reliability": table}


def _error(table: list[dict[str, Any]]) -> float | None:
    filled = [row for row in table if row["n"]]
    gaps = [row["n"] * abs(row["predicted"] - row["observed"]) for row in filled]
    return float(sum(gaps) / sum(row["n"] for row in filled)) if filled else None
