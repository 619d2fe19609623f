"""Metrics of multi-label classification, with bootstrap intervals by patient.

AUROC is the Mann–Whitney statistic with ties counted half, which is the area under the ROC curve. A class without
positives or without negatives has none: null, never 0 or 0.5. Calibration is in :mod:`deri.evaluation.calibration`,
tests between two models in :mod:`deri.evaluation.compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deri.evaluation.calibration import Calibration, calibrate, expected_calibration_error

MIN_POS = 10
"""Fewer positives than this, and a class is marked: its AUROC moves by several points with a single record."""


@dataclass(frozen=True)
class ClassScores:
    """What is known of one class; ``None`` where it is not defined."""

    n_pos: int
    auroc: float | None
    ci: tuple[float, float] | None
    auprc: float | None
    f1: float | None
    accuracy: float | None
    threshold: float | None
    ece: float | None
    few_positives: bool


@dataclass(frozen=True)
class Scores:
    """Per class and averaged over the classes where a figure is defined.

    ``reliable`` figures leave out the classes with fewer than ``min_pos`` positives. ``runs`` has the macro AUROC of
    every run (seed); the other figures are means over runs.
    """

    classes: dict[str, ClassScores]
    macro_auroc: float | None
    macro_ci: tuple[float, float] | None
    macro_f1: float | None
    accuracy: float | None
    macro_auprc: float | None
    reliable_auroc: float | None
    reliable_ci: tuple[float, float] | None
    min_pos: int
    runs: tuple[float | None, ...]
    calibration: Calibration | None


def auroc(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """AUROC of one class under one or many record weightings.

    Args:
        positive: (n,) 0 or 1.
        score: (n,) finite, higher for positives.
        weights: (k, n) non-negative, e.g. how often a bootstrap drew each record; ones when not given.

    Returns:
        (k,) float64 (k = 1 without weights); NaN where positives or negatives have no weight.
    """
    w, pos, neg = _by_tie(positive, score, weights)
    if not pos.shape[1]:
        return np.full(len(w), np.nan)
    below = np.cumsum(neg, axis=1) - neg
    wins = (pos * (below + neg / 2)).sum(axis=1)
    pairs = pos.sum(axis=1) * neg.sum(axis=1)
    return np.divide(wins, pairs, out=np.full(len(w), np.nan), where=pairs > 0)


def aurocs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUROC of every column of labels and scores (n, classes): (classes,) float64, NaN where not defined."""
    from scipy.stats import rankdata

    _require_finite(scores)
    positive = np.asarray(labels, bool)
    n, n_pos = len(positive), positive.sum(axis=0).astype(np.float64)
    if not n:
        return np.full(positive.shape[1], np.nan)
    ranks = (rankdata(scores, axis=0) * positive).sum(axis=0)
    pairs = n_pos * (n - n_pos)
    return np.divide(ranks - n_pos * (n_pos + 1) / 2, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def average_precision(positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Area under the precision–recall curve as average precision: Σ (R_k − R_{k−1}) P_k, without interpolation.

    Arguments and shape as for :func:`auroc`. NaN where positives have no weight; 1 where all records are positive, as
    scikit-learn has it. A random score has the share of positives, not 0.5.
    """
    w, pos, neg = _by_tie(positive, score, weights)
    if not pos.shape[1]:
        return np.full(len(w), np.nan)
    pos, neg = pos[:, ::-1], neg[:, ::-1]
    hits = np.cumsum(pos, axis=1)
    called = hits + np.cumsum(neg, axis=1)
    precision = np.divide(hits, called, out=np.zeros_like(hits), where=called > 0)
    total = hits[:, -1]
    return np.divide((pos * precision).sum(axis=1), total, out=np.full(len(w), np.nan), where=total > 0)


def best_threshold(positive: np.ndarray, score: np.ndarray) -> float | None:
    """The score at and above which calling a record positive has the highest F1; None without positives."""
    positive = np.asarray(positive, bool)
    score = np.asarray(score, np.float64)
    _require_finite(score)
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
    thresholds: Sequence[float | None],
    draws: int = 1000,
    seed: int = 0,
    min_pos: int = MIN_POS,
    probabilities: bool = False,
) -> Scores:
    """All figures of a task from one set of scores (n, classes); see :func:`score_runs`."""
    return score_runs(
        classes,
        labels,
        np.asarray(scores)[None],
        subjects,
        thresholds=[thresholds],
        draws=draws,
        seed=seed,
        min_pos=min_pos,
        probabilities=probabilities,
    )


def score_runs(
    classes: list[str],
    labels: np.ndarray,
    scores: np.ndarray,
    subjects: np.ndarray,
    *,
    thresholds: Sequence[Sequence[float | None]],
    draws: int = 1000,
    seed: int = 0,
    min_pos: int = MIN_POS,
    probabilities: bool = False,
) -> Scores:
    """All figures of a task from one or several runs (seeds) on the same records: means over the runs.

    Args:
        classes: names.
        labels: (n, classes) 0 or 1.
        scores: (runs, n, classes), finite.
        subjects: (n,) patient of each record.
        thresholds: per run and class, chosen elsewhere; None gives no F1 and no accuracy.
        draws: bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.
        min_pos: classes with fewer positives are marked and left out of the ``reliable`` mean.
        probabilities: the scores are probabilities, so that calibration can be measured.

    Intervals are the 2.5 and 97.5 percentiles over draws of patients. In each draw the AUROC of every run is computed
    on the same drawn patients and averaged over runs, so that the interval belongs to the mean that is reported; how
    far the runs differ is in ``runs``. The interval of a macro average is over the same classes as the average itself,
    leaving out of a draw the classes that it makes undefined.
    """
    for c, name in enumerate(classes):
        _require_finite(scores[..., c], f"of class {name} ")
    weights = patient_weights(subjects, draws, seed) if draws and len(labels) else None
    result: dict[str, ClassScores] = {}
    drawn: dict[str, np.ndarray] = {}
    values = np.stack([aurocs(labels, run) for run in scores])
    for c, name in enumerate(classes):
        y, columns = labels[:, c], scores[..., c]
        n_pos = int(y.sum())
        value = _mean([_known(v) for v in values[:, c]])
        if value is not None and weights is not None:
            drawn[name] = np.mean([auroc(y, column, weights) for column in columns], axis=0)
        cuts = [per_class[c] for per_class in thresholds]
        called = [
            (None, None) if cut is None else f1_and_accuracy(y, column, cut)
            for cut, column in zip(cuts, columns, strict=True)
        ]
        result[name] = ClassScores(
            n_pos,
            value,
            _interval(drawn[name]) if name in drawn else None,
            _mean([_known(average_precision(y, column)[0]) for column in columns]),
            _mean([f1 for f1, _ in called]),
            _mean([accuracy for _, accuracy in called]),
            cuts[0] if len(cuts) == 1 else None,
            _mean([expected_calibration_error(y, column) for column in columns]) if probabilities else None,
            n_pos < min_pos,
        )
    reliable = {name: c for name, c in result.items() if not c.few_positives}
    return Scores(
        result,
        _mean([c.auroc for c in result.values()]),
        _macro_interval(list(drawn.values())),
        _mean([c.f1 for c in result.values()]),
        _mean([c.accuracy for c in result.values()]),
        _mean([c.auprc for c in result.values()]),
        _mean([c.auroc for c in reliable.values()]),
        _macro_interval([d for name, d in drawn.items() if name in reliable]),
        min_pos,
        tuple(_mean([_known(v) for v in run]) for run in values),
        calibrate(np.concatenate([labels] * len(scores)), np.concatenate(list(scores))) if probabilities else None,
    )


def _by_tie(
    positive: np.ndarray, score: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (k, n), and the weight of positives and of negatives at each distinct score, ascending: (k, distinct)."""
    score = np.asarray(score, np.float64)
    _require_finite(score)
    w = np.ones((1, len(score))) if weights is None else np.asarray(weights, np.float64)
    if not len(score):
        return w, np.zeros((len(w), 0)), np.zeros((len(w), 0))
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    is_positive = np.asarray(positive, bool)[order]
    w_ordered = w[:, order]
    pos = np.add.reduceat(w_ordered * is_positive, starts, axis=1)
    neg = np.add.reduceat(w_ordered * ~is_positive, starts, axis=1)
    return w, pos, neg


def _require_finite(scores: np.ndarray, of: str = "") -> None:
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise ValueError(f"{bad} of {np.size(scores)} scores {of}are not finite")


def _macro_interval(drawn: list[np.ndarray]) -> tuple[float, float] | None:
    if not drawn:
        return None
    stacked = np.stack(drawn)
    some = np.isfinite(stacked).any(axis=0)
    return _interval(np.nanmean(stacked[:, some], axis=0)) if some.any() else None


def _interval(values: np.ndarray) -> tuple[float, float] | None:
    values = values[np.isfinite(values)]
    return (float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))) if len(values) else None


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
