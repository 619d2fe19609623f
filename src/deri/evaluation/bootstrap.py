"""Intervals and tests between two models: draws of patients, percentile intervals, paired differences, DeLong's test.

Records of one patient are not independent, so that patients are drawn and all their records with them. DeLong's test
takes records as independent: where patients have several, use :func:`paired_bootstrap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from deri.evaluation.metrics import auroc, require_finite

_CHUNK = 64  # draws at a time, which bounds memory to 64 counts per patient

Interval = tuple[float, float]


def patient_weights(subjects: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each record is in each bootstrap sample of patients: (draws, n) float32."""
    _, patient = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    n = int(patient.max()) + 1 if len(patient) else 0
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=draws) if n else np.zeros((draws, 0))
    return counts[:, patient].astype(np.float32)


class Bootstrap:
    """Draws of groups of records, the same at every call; none with fewer than two groups.

    Args:
        groups: (n,) whose record it is, 0 … k - 1.
        draws: how many.
        seed: the same seed draws the same groups.
    """

    def __init__(self, groups: np.ndarray, draws: int, seed: int) -> None:
        self.groups, self.seed = groups, seed
        self.n_groups = int(groups.max(initial=-1)) + 1
        self.draws = draws if self.n_groups > 1 else 0

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Column sums of ``values`` (n, columns) in every draw: (draws, columns) float64."""
        grouped = np.zeros((self.n_groups, values.shape[1]))
        np.add.at(grouped, self.groups, values)
        rng = np.random.default_rng(self.seed)
        even = np.full(self.n_groups, 1 / self.n_groups)
        out = np.zeros((self.draws, values.shape[1]))
        for start in range(0, self.draws, _CHUNK):
            size = min(_CHUNK, self.draws - start)
            out[start : start + size] = rng.multinomial(self.n_groups, even, size=size) @ grouped
        return out

    def means(self, values: np.ndarray) -> np.ndarray:
        """Means of ``values`` (n,) in every draw: (draws,)."""
        sums = self.sums(np.column_stack([values, np.ones(len(values))]))
        return sums[:, 0] / sums[:, 1]


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


CI_METHOD = "2.5 and 97.5 percentiles of bootstrap draws of patients"
"""How :func:`interval` makes them; result files say so under ``ci_method``."""


def interval(drawn: np.ndarray) -> Interval | None:
    """The 2.5 and 97.5 percentiles of the draws in which the figure is defined; None where it is in none."""
    known = drawn[np.isfinite(drawn)]
    return (float(np.percentile(known, 2.5)), float(np.percentile(known, 97.5))) if len(known) else None


@dataclass(frozen=True)
class PairedTest:
    """Model a against model b on the same records; ``difference`` is a − b. ``None`` where not defined.

    ``p_is_bound``: so few draws can give no smaller p; read it as "at most".
    """

    a: float | None
    b: float | None
    difference: float | None
    ci: Interval | None
    p: float | None
    z: float | None = None
    p_is_bound: bool = False


UNDEFINED = PairedTest(None, None, None, None, None)


@dataclass(frozen=True)
class Comparison:
    """A paired test of the macro AUROC and of every class."""

    macro: PairedTest
    classes: dict[str, PairedTest]


def paired_difference(a: float, b: float, drawn: np.ndarray) -> PairedTest:
    """The test of any figure of two models, from its difference a − b in draws that both share.

    The interval is that of :func:`interval`; p is two-sided, min(1, 2 (1 + min(#{d ≤ 0}, #{d ≥ 0})) / (draws + 1)).

    Args:
        a: the figure of one model on all records.
        b: that of the other.
        drawn: (draws,) differences, NaN where the figure is not defined.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return PairedTest(a, b, a - b, None, None)
    tail = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return PairedTest(a, b, a - b, interval(drawn), min(1.0, 2 * tail / (len(drawn) + 1)), p_is_bound=tail == 1)


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
    tests = dict.fromkeys(classes, UNDEFINED)
    values, drawn = [], []
    for c, name in enumerate(classes):
        pair = [float(auroc(labels[:, c], scores[:, c])[0]) for scores in (a, b)]
        if np.isfinite(pair).all():
            values.append(pair)
            drawn.append(auroc(labels[:, c], a[:, c], weights) - auroc(labels[:, c], b[:, c], weights))
            tests[name] = paired_difference(pair[0], pair[1], drawn[-1])
    if not values:
        return Comparison(UNDEFINED, tests)
    macro = np.mean(values, axis=0)
    return Comparison(paired_difference(float(macro[0]), float(macro[1]), macro_mean(np.stack(drawn))), tests)


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
    require_finite(scores)
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
        first, second = (float(auroc(positive, score)[0]) for score in (a, b))
        return PairedTest(first, second, first - second, None, None) if np.isfinite(first) else UNDEFINED
    values, covariance = delong(positive, np.stack([a, b]))
    difference = float(values[0] - values[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-15:  # rounding of a zero
        return PairedTest(float(values[0]), float(values[1]), difference, None, None)
    z = difference / variance**0.5
    half = NormalDist().inv_cdf(0.5 + level / 2) * variance**0.5
    p = 2 * NormalDist().cdf(-abs(z))
    return PairedTest(float(values[0]), float(values[1]), difference, (difference - half, difference + half), p, z)
