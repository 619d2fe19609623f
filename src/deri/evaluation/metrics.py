"""Metrics of multi-label classification, with bootstrap intervals by patient.

AUROC is the Mann–Whitney statistic with ties counted half, which is the area under the ROC curve. A class without
positives or without negatives has none: null, never 0 or 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScores:
    """What is known of one class; ``None`` where it is not defined."""

    n_pos: int
    auroc: float | None
    ci: tuple[float, float] | None
    f1: float | None
    accuracy: float | None
    threshold: float | None


@dataclass(frozen=True)
class Scores:
    """Per class and averaged over the classes where a figure is defined."""

    classes: dict[str, ClassScores]
    macro_auroc: float | None
    macro_ci: tuple[float, float] | None
    macro_f1: float | None
    accuracy: float | None


def auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """AUROC of one class under one or many record weightings.

    Args:
        positive: (n,) 0 or 1.
        score: (n,) finite, higher for positives.
        weights: (k, n) non-negative, e.g. how often a bootstrap drew each record; ones when not given.

    Returns:
        (k,) float64 (k = 1 without weights); NaN where positives or negatives have no weight.
    """
    score = np.asarray(score, np.float64)
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} of {len(score)} scores are not finite")
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, int)
    w = np.ones((1, len(score))) if weights is None else np.asarray(weights, np.float64)
    if not len(score):
        return np.full(len(w), np.nan)
    w = w[:, order]
    is_positive = np.asarray(positive, bool)[order]
    pos = np.add.reduceat(w * is_positive, starts, axis=1)
    neg = np.add.reduceat(w * ~is_positive, starts, axis=1)
    below = np.cumsum(neg, axis=1) - neg
    wins = (pos * (below + neg / 2)).sum(axis=1)
    pairs = pos.sum(axis=1) * neg.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(w), np.nan), where=pairs > 0)


def best_threshold(positive: np.ndarray, score: np.ndarray) -> float | None:
    """The score at and above which calling a record positive has the highest F1; None without positives."""
    positive = np.asarray(positive, bool)
    score = np.asarray(score, np.float64)
    if not positive.any():
        return None
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(positive[order])
    called = np.arange(1, len(score) + 1)
    last_of_tie = np.r_[score[order][1:] != score[order][:-1], True]
    f1 = np.where(last_of_tie, 2 * hits / (called + positive.sum()), -1)
    return float(score[order][int(np.argmax(f1))])


def f1_and_accuracy(positive: np.ndarray, score: np.ndarray, threshold: float) -> tuple[float | None, float | None]:
    """F1 and accuracy of ``score >= threshold``; F1 is None without positives, both without records."""
    positive = np.asarray(positive, bool)
    if not len(positive):
        return None, None
    called = np.asarray(score) >= threshold
    hits = int((called & positive).sum())
    f1 = 2 * hits / int(called.sum() + positive.sum()) if positive.any() else None
    return f1, float((called == positive).mean())


def patient_weights(subjects: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each record is in each bootstrap sample of *patients*: (draws, n) float32.

    Records of one patient are drawn together, because they are not independent.
    """
    _, patient = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    n = int(patient.max()) + 1 if len(patient) else 0
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws) if n else np.zeros((draws, 0))
    return counts[:, patient].astype(np.float32)


def score_classes(
    classes: list[str],
    labels: np.ndarray,
    scores: np.ndarray,
    subjects: np.ndarray,
    *,
    thresholds: list[float | None],
    draws: int = 1000,
    seed: int = 0,
) -> Scores:
    """All figures of a task.

    Args:
        classes: names.
        labels: (n, classes) 0 or 1.
        scores: (n, classes), finite.
        subjects: (n,) patient of each record.
        thresholds: per class, chosen elsewhere; None gives no F1 and no accuracy.
        draws: bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.

    Intervals are the 2.5 and 97.5 percentiles. The interval of the macro average is over the same classes as the
    average itself, leaving out of a draw the classes that it makes undefined.
    """
    if not np.isfinite(scores).all():
        bad = [name for name, column in zip(classes, scores.T, strict=True) if not np.isfinite(column).all()]
        raise ValueError(f"scores are not finite for {', '.join(bad[:5])}")
    weights = patient_weights(subjects, draws, seed) if draws and len(labels) else None
    result: dict[str, ClassScores] = {}
    drawn = []
    for c, name in enumerate(classes):
        value = auroc(labels[:, c], scores[:, c])[0]
        known = bool(np.isfinite(value))
        interval = None
        if known and weights is not None:
            boot = auroc(labels[:, c], scores[:, c], weights)
            drawn.append(boot)
            interval = _interval(boot)
        threshold = thresholds[c]
        f1, accuracy = (None, None) if threshold is None else f1_and_accuracy(labels[:, c], scores[:, c], threshold)
        n_pos = int(labels[:, c].sum())
        result[name] = ClassScores(n_pos, float(value) if known else None, interval, f1, accuracy, threshold)
    macro_interval = None
    if drawn:
        stacked = np.stack(drawn)
        some = np.isfinite(stacked).any(axis=0)
        macro_interval = _interval(np.nanmean(stacked[:, some], axis=0)) if some.any() else None
    return Scores(
        result,
        _mean([c.auroc for c in result.values()]),
        macro_interval,
        _mean([c.f1 for c in result.values()]),
        _mean([c.accuracy for c in result.values()]),
    )


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    values = values[np.isfinite(values)]
    return (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))) if len(values) else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
