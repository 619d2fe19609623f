"""Learn the map from a score to a likelihood ratio for each class of a task of a store (``deri calibrate``).

The log odds of a class rise with its score along a line with three kinks, halfway between the quartiles of the scores
of positives and those of negatives: logistic regression with four slopes, all above 0, so that recordings keep their
order. As Platt (1999) proposes, labels 1 and 0 count as (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2). Two penalties keep
classes of few positives near a straight line of the slope that all classes have in common: on changes of the logarithm
of the slope at a kink, and on its mean's distance from the common one. Both are Gaussian, with the standard deviations
``BEND`` and ``APART``; docs/results/calibration.md says how all this was chosen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deri.errors import DeriError
from deri.evaluation.features import Features
from deri.evaluation.zero_shot import class_weights, zero_shot_scores
from deri.models.calibration import Finding, StoreIdentity, TaskCalibration, log_odds, prevalence_of
from deri.reports import prompts_for

MIN_POSITIVES = 10
"""A class with fewer positives, or fewer negatives, gets no map."""
SEGMENTS, BEND, APART = 4, 1.0, 0.5

_SLOPES = (-7.0, 7.0)  # bounds of the logarithm of a slope


def calibrate_task(features: Features, task: str, split: str, *, prompts: str | Path | None = None) -> TaskCalibration:
    """Learn the maps of the classes of a task from the records of a split.

    Args:
        features: of a model that was not trained on these records, and the store.
        task: its name.
        split: whose records.
        prompts: a file of class texts instead of the shipped ones.

    Raises:
        DeriError: no such task, no records, or no class with enough positives and negatives.
    """
    store = features.store
    rows = store.task_rows(task, split)
    names, labels = store.labels(task, rows)
    n_pos = labels.sum(axis=0, dtype=np.int64)
    enough = np.flatnonzero(np.minimum(n_pos, len(rows) - n_pos) >= MIN_POSITIVES)
    if not len(enough):
        raise DeriError(
            f"task {task}: no class has {MIN_POSITIVES} positives and {MIN_POSITIVES} negatives among the {len(rows)} "
            f"records of split {split} of {store.path}; name another --split, or prepare more records"
        )
    texts = prompts_for(task, names, prompts)
    scores = zero_shot_scores(features, rows, class_weights(features.model, texts)).astype(np.float64)
    share = prevalence_of(labels)
    maps = fit_maps(scores[:, enough], labels[:, enough])
    classes = {
        names[c]: Finding(
            prompts=tuple(texts[names[c]]),
            scores=tuple(knots.tolist()),
            log_ratios=tuple((odds - log_odds(share[c])).tolist()),
            prevalence=float(share[c]),
            n_pos=int(n_pos[c]),
        )
        for c, (knots, odds) in zip(enough, maps, strict=True)
    }
    return TaskCalibration(
        store=StoreIdentity(dataset=store.meta["dataset"], fingerprint=store.fingerprint),
        split=split,
        n=len(rows),
        classes=classes,
        too_few={name: int(n) for name, n in zip(names, n_pos, strict=True) if name not in classes},
    )


def fit_maps(scores: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each class the kinks of its map, between the lowest and the highest score, and the log odds there, rising.

    Args:
        scores: (n, classes) float64.
        labels: (n, classes) 0 or 1, with positives and negatives of each class.
    """
    common = _common_slope(scores, labels)
    return [_fit(score, label.astype(np.float64), common) for score, label in zip(scores.T, labels.T, strict=True)]


def _common_slope(scores: np.ndarray, labels: np.ndarray) -> float:
    """The slope of logistic regressions that differ by class in their intercept alone, at least 1."""
    from scipy.optimize import minimize
    from scipy.special import expit

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        logits = w[0] * scores + w[1:]
        rest = expit(logits) - labels
        return float((np.logaddexp(0, logits) - labels * logits).sum()), np.r_[(scores * rest).sum(), rest.sum(axis=0)]

    start = np.r_[1.0, log_odds(labels.mean(axis=0))]
    return max(1.0, float(minimize(loss, start, jac=True, method="L-BFGS-B").x[0]))


def _targets(label: np.ndarray) -> np.ndarray:
    """Labels as Platt's probabilities: no odds beyond those that so many positives and negatives can show."""
    n_pos = label.sum()
    return np.where(label > 0, (n_pos + 1) / (n_pos + 2), 1 / (len(label) - n_pos + 2))


def _fit(score: np.ndarray, label: np.ndarray, common: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import minimize
    from scipy.special import expit

    parts = np.arange(1, SEGMENTS) / SEGMENTS
    middle = (np.quantile(score[label > 0], parts) + np.quantile(score[label == 0], parts)) / 2
    knots = np.unique(np.r_[score.min(), np.clip(middle, score.min(), score.max()), score.max()])
    if len(knots) < 2:  # the same score for all: any slope will do
        knots = knots[0] + np.array([0.0, 1e-6])
    lengths = np.clip(score[:, None] - knots[:-1], 0, np.diff(knots))  # (n, segments) of the way to each score
    k, target = lengths.shape[1], _targets(label)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        slopes = np.exp(w[:k])
        logits = lengths @ slopes + w[k]
        rest = expit(logits) - target
        bends, apart = np.diff(w[:k]), w[:k].mean() - np.log(common)
        penalty = (bends @ bends) / (2 * BEND**2) + apart**2 / (2 * APART**2)
        gradient = slopes * (lengths.T @ rest) + apart / (k * APART**2)
        gradient[1:] += bends / BEND**2
        gradient[:-1] -= bends / BEND**2
        return float((np.logaddexp(0, logits) - target * logits).sum() + penalty), np.r_[gradient, rest.sum()]

    begin = log_odds(label.mean()) - common * (score.mean() - knots[0])
    start = np.r_[np.full(k, np.log(common)), begin]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[_SLOPES] * k + [(None, None)]).x
    return knots, found[k] + np.r_[0.0, np.cumsum(np.exp(found[:k]) * np.diff(knots))]
