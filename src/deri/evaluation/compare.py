"""Is one model better than another on the same records? DeLong's test, and a bootstrap by patient.

DeLong takes records as independent. Where patients have several records, use :func:`paired_bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from deri.evaluation.metrics import auroc, patient_weights


@dataclass(frozen=True)
class PairedTest:
    """Model a against model b on the same records; ``difference`` is a − b. ``None`` where not defined."""

    a: float | None
    b: float | None
    difference: float | None
    ci: tuple[float, float] | None
    p: float | None
    z: float | None = None


@dataclass(frozen=True)
class Comparison:
    """A paired test of the macro AUROC and of every class."""

    macro: PairedTest
    classes: dict[str, PairedTest]


def delong(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of m models on the same records, and their covariance matrix.

    DeLong, DeLong & Clarke-Pearson 1988, by the ranks of Sun & Xu 2014: O(n log n) instead of all pairs.

    Args:
        positive: (n,) 0 or 1, at least 2 of each.
        scores: (m, n), finite.

    Returns:
        (m,) and (m, m), float64.
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive, bool)
    scores = np.atleast_2d(np.asarray(scores, np.float64))
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if min(n_pos, n_neg) < 2:
        raise ValueError(f"DeLong's variance needs 2 positives and 2 negatives, there are {n_pos} and {n_neg}")
    ranks = rankdata(scores, axis=1)
    # Placements: the share of the other kind that a record beats, ties half.
    of_pos = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n_neg
    of_neg = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_pos
    covariance = np.atleast_2d(np.cov(of_pos)) / n_pos + np.atleast_2d(np.cov(of_neg)) / n_neg
    return of_pos.mean(axis=1), covariance


def delong_test(positive: np.ndarray, a: np.ndarray, b: np.ndarray, *, level: float = 0.95) -> PairedTest:
    """DeLong's two-sided test that two models have the same AUROC on the same records.

    Without two positives and two negatives there is neither interval nor p. Neither is there where the difference does
    not vary at all, as between two scores of the same ranks.

    Args:
        positive: (n,) 0 or 1.
        a: (n,) scores of one model.
        b: (n,) scores of the other.
        level: of the interval.
    """
    positive = np.asarray(positive, bool)
    if min(positive.sum(), (~positive).sum()) < 2:
        both = [float(auroc(positive, s)[0]) for s in (a, b)]
        first, second = (value if np.isfinite(value) else None for value in both)
        difference = None if first is None or second is None else first - second
        return PairedTest(first, second, difference, None, None)
    values, covariance = delong(positive, np.stack([a, b]))
    difference = float(values[0] - values[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-15:  # rounding of a zero
        return PairedTest(float(values[0]), float(values[1]), difference, None, None)
    z = difference / variance**0.5
    half = NormalDist().inv_cdf(0.5 + level / 2) * variance**0.5
    p = 2 * NormalDist().cdf(-abs(z))
    return PairedTest(float(values[0]), float(values[1]), difference, (difference - half, difference + half), p, z)


def paired_bootstrap(
    classes: list[str],
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    subjects: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """AUROC of two models on the same records, per class and macro, with draws of patients that both share.

    The interval is the 2.5 and 97.5 percentiles of the difference; p is two-sided,
    min(1, 2 (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (draws + 1)).

    Args:
        classes: names.
        labels: (n, classes) 0 or 1.
        a: (n, classes) scores of one model.
        b: (n, classes) scores of the other, on the same records in the same order.
        subjects: (n,) patient of each record.
        draws: bootstrap samples.
        seed: of the bootstrap.
    """
    if not a.shape == b.shape == labels.shape:
        raise ValueError(f"labels {labels.shape} and scores {a.shape}, {b.shape} are not of the same records")
    weights = patient_weights(subjects, draws, seed)
    tests: dict[str, PairedTest] = {}
    pairs, drawn = [], []
    for c, name in enumerate(classes):
        y = labels[:, c]
        value = np.array([auroc(y, a[:, c])[0], auroc(y, b[:, c])[0]])
        if not np.isfinite(value).all():
            tests[name] = PairedTest(None, None, None, None, None)
            continue
        difference = auroc(y, a[:, c], weights) - auroc(y, b[:, c], weights)
        pairs.append(value)
        drawn.append(difference)
        tests[name] = _from_draws(value, difference)
    if not pairs:
        return Comparison(PairedTest(None, None, None, None, None), tests)
    stacked = np.stack(drawn)
    some = np.isfinite(stacked).any(axis=0)
    return Comparison(_from_draws(np.mean(pairs, axis=0), np.nanmean(stacked[:, some], axis=0)), tests)


def _from_draws(value: np.ndarray, difference: np.ndarray) -> PairedTest:
    difference = difference[np.isfinite(difference)]
    a, b = float(value[0]), float(value[1])
    if not len(difference):
        return PairedTest(a, b, a - b, None, None)
    low, high = np.percentile(difference, [2.5, 97.5])
    tail = 1 + min(int((difference <= 0).sum()), int((difference >= 0).sum()))
    return PairedTest(a, b, a - b, (float(low), float(high)), min(1.0, 2 * tail / (len(difference) + 1)))
