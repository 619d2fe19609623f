"""How well labels that were called agree with those that are there: counts, F1 and its draws, for texts of any kind."""

from __future__ import annotations

import numpy as np

from deri.evaluation.bootstrap import Bootstrap


def precision_recall_f1(truth: np.ndarray, called: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision (0 where nothing was called), recall and F1 (NaN where nothing was there nor called), (classes,) each.

    Args:
        truth: (n, classes) bool, what is there.
        called: (n, classes) bool, what was said.
    """
    hits, positives, calls = (matrix.sum(axis=0).astype(float) for matrix in (truth & called, truth, called))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(calls > 0, hits / calls, 0.0), hits / positives, _f1(hits, positives, calls)


def drawn_f1(bootstrap: Bootstrap, truth: np.ndarray, called: np.ndarray) -> np.ndarray:
    """F1 of every class in every draw: (draws, classes), NaN where a draw has it on neither side."""
    sums = bootstrap.sums(np.concatenate([truth & called, truth, called], axis=1).astype(float))
    return _f1(*np.split(sums, 3, axis=1))


def mean_of_known(drawn: np.ndarray) -> np.ndarray:
    """Means over classes of drawn figures (draws, classes), without those that a draw leaves undefined."""
    present = ~np.isnan(drawn)
    sums = np.where(present, drawn, 0).sum(axis=1)
    return np.divide(sums, present.sum(axis=1), out=np.full(len(sums), np.nan), where=present.any(axis=1))


def _f1(hits: np.ndarray, positives: np.ndarray, calls: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return 2 * hits / (positives + calls)
