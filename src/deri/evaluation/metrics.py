"""Metrics of one class, and the table of those that a result holds.

AUROC is the Mann–Whitney statistic with ties counted half, which is the area under the ROC curve. A class without
positives or without negatives has none: null, never 0 or 0.5. Intervals and tests between two models are in
:mod:`deri.evaluation.intervals`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from deri.evaluation.calibration import expected_calibration_error
from deri.registry import Registry

Metric = Callable[..., "float | None"]
"""A metric asks for what it needs by the names of its parameters.

``positive`` (n,) bool; ``score`` (n,), higher for positives; ``probability`` (n,) in place of it, and the metric is
null where scores are no probabilities; ``threshold``, at or above which a record is called, and the metric is null
where none could be chosen. Returns None or NaN where it is not defined.
"""


def require_finite(scores: np.ndarray, of: str = "") -> None:
    """Raise a ValueError if any score is NaN or infinite; ``of`` names whose they are ("of class PVC ")."""
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise ValueError(f"{bad} of {np.size(scores)} scores {of}are not finite")


def auroc(positive: np.ndarray, score: np.ndarray) -> float:
    """AUROC of one class: positive (n,) 0 or 1, score (n,) finite and higher for positives; NaN without either kind."""
    return float(aurocs(np.asarray(positive)[:, None], np.asarray(score)[:, None])[0])


def aurocs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUROC of every column of labels and scores (n, classes): (classes,) float64, NaN where not defined."""
    from scipy.stats import rankdata

    require_finite(scores)
    positive = np.asarray(labels, bool)
    n, n_pos = len(positive), positive.sum(axis=0).astype(np.float64)
    if not n:
        return np.full(positive.shape[1], np.nan)
    ranks = (rankdata(scores, axis=0) * positive).sum(axis=0)
    wins, pairs = ranks - n_pos * (n_pos + 1) / 2, n_pos * (n - n_pos)
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    """Area under the precision–recall curve as average precision: Σ (R_k − R_{k−1}) P_k, without interpolation.

    Arguments as for :func:`auroc`. NaN without positives; 1 where all records are positive, as scikit-learn has it. A
    random score has the share of positives, not 0.5.
    """
    _, hits, called = called_from(positive, score)
    gained = np.diff(hits, prepend=0)
    return float((gained * (hits / called)).sum() / hits[-1]) if hits.any() else float("nan")


def best_threshold(positive: np.ndarray, score: np.ndarray) -> float | None:
    """The score at and above which calling a record positive has the highest F1; None without positives."""
    thresholds, hits, called = called_from(positive, score)
    return float(thresholds[int(np.argmax(2 * hits / (called + hits[-1])))]) if hits.any() else None


def best_thresholds(labels: np.ndarray, scores: np.ndarray) -> list[float | None]:
    """:func:`best_threshold` of every column of labels and scores (n, classes)."""
    return [best_threshold(labels[:, c], scores[:, c]) for c in range(labels.shape[1])]


def f1_score(positive: np.ndarray, score: np.ndarray, threshold: float) -> float | None:
    """F1 of ``score >= threshold``; None without positives."""
    require_finite(score)
    positive, called = np.asarray(positive, bool), np.asarray(score) >= threshold
    hits = int((called & positive).sum())
    return 2 * hits / int(called.sum() + positive.sum()) if positive.any() else None


def accuracy(positive: np.ndarray, score: np.ndarray, threshold: float) -> float | None:
    """Share of records that ``score >= threshold`` calls rightly; None without records."""
    require_finite(score)
    called = np.asarray(score) >= threshold
    return float((called == np.asarray(positive, bool)).mean()) if len(called) else None


METRICS: Registry[Metric] = Registry(
    "metric",
    "deri.metrics",
    {
        "auroc": auroc,
        "auprc": average_precision,
        "f1": f1_score,
        "accuracy": accuracy,
        "ece": lambda positive, probability: expected_calibration_error(positive, probability),
    },
)
"""The metrics of a class that a result file holds, in its order. The mean over classes of NAME is ``macro_NAME``."""


def measure(
    metric: Metric,
    positive: np.ndarray,
    score: np.ndarray,
    *,
    decided: np.ndarray,
    threshold: float | None,
    probabilities: bool,
) -> float | None:
    """The value of a metric, None where it is not defined.

    Args:
        metric: of ``METRICS``.
        positive: (n,) 0 or 1.
        score: (n,).
        decided: (n,) what the threshold applies to; the score, but for folds.
        threshold: None where none could be chosen.
        probabilities: whether the score is a probability.
    """
    asked = inspect.signature(metric).parameters
    if ("threshold" in asked and threshold is None) or ("probability" in asked and not probabilities):
        return None
    given: dict[str, Any] = {"positive": positive, "score": score, "probability": score}
    if "threshold" in asked:
        given |= {"score": decided, "threshold": threshold}
    value = metric(**{name: given[name] for name in asked if name in given})
    return None if value is None or not np.isfinite(value) else float(value)


def called_from(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every distinct score, highest first; how many positives, and how many records, are called at or above it."""
    score = np.asarray(score, np.float64)
    require_finite(score)
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.flatnonzero(np.diff(ordered, append=np.nan))  # of the records with one score; NaN is not 0
    return ordered[last], np.cumsum(np.asarray(positive, bool)[order])[last], last + 1
