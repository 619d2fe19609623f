"""Confidence intervals and paired tests that hold where positives are few.

Every figure here is a mean of influence values of *patients*: a patient's records are summed before anything is
squared, so that dependent records count as what they are. Two things go wrong with such variances, and with the
bootstrap by patient, where a class has few positives, and both are mended here:

- The variance is estimated from as many values as there are patients with a positive. One AUROC shares the estimate with
  what placements have at chance (:data:`PRIOR_RATIO`), a macro average with what its other classes show; the quantiles
  are Student's.
- The variance depends on the AUROC itself and vanishes where a few positives happen to rank first. The interval asks
  which AUROCs the sample would not be surprising for, as Wilson's does for a share.

``benchmarks/coverage.py`` measures how often the intervals hold the truth; docs/results/intervals.md has its tables.

Sources: DeLong, DeLong & Clarke-Pearson 1988 (placements); Obuchowski 1997 (sums over clusters); Hanley & McNeil 1982
and Newcombe 2006, Stat Med 25:559-573 (a variance that depends on the AUROC, solved as Wilson's interval); Satterthwaite
1946 (degrees of freedom of a sum of variances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

METHOD = "placements by patient, Wilson-type, Student's t"
"""How the intervals of AUROCs are made; ``ci_method`` of a result."""

MIN_PATIENTS = 2
"""Patients with a positive, and patients with a negative, below which an AUROC has no interval."""

MIN_PATIENTS_PAIRED = 3
"""Patients with a positive, and with a negative, below which a difference of AUROCs has no interval and no p."""

PRIOR_RATIO = 1 / 3
"""Variance of a placement over A (1 - A), A the AUROC, before any data: its value at chance, where placements are
uniform. At an AUROC of 0.95 it is 0.26 for binormal scores and 0.49 for exponential ones."""

PRIOR_WEIGHT = 5.0
"""How many patients, and degrees of freedom, :data:`PRIOR_RATIO` counts as."""

UNDEFINED = "no positives or no negatives"
ONE_RUN = "one run does not show how runs differ"

RECORD_CORRELATION = 0.5
"""Of the placements of one patient's records, before any data."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; ``ci`` is None, with the ``reason``, where none can be told."""

    value: float | None
    ci: tuple[float, float] | None
    reason: str | None = None


@dataclass(frozen=True)
class Difference:
    """Model a less model b; ``ci`` and ``p`` are None, with the ``reason``, where nothing can be told."""

    a: float | None
    b: float | None
    value: float | None
    ci: tuple[float, float] | None
    p: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Placements:
    """What the intervals need of labels and scores: AUROCs, and the placements of every patient.

    The placement of a positive is the share of negatives that score lower, that of a negative the share of positives
    that score higher, ties half; either has the AUROC as its mean.

    Attributes:
        runs: (runs, classes) AUROC of every run, NaN where the class has no positive or no negative.
        deviations: (2, patients, classes): the deviations of placements from the AUROC, summed over the positives of a
            patient and divided by the number of positives in all, mean over runs; then the same of negatives.
        counts: (2, patients, classes) positives and negatives.
    """

    runs: np.ndarray
    deviations: np.ndarray
    counts: np.ndarray

    def columns(self, classes: np.ndarray) -> Placements:
        """Those of some classes."""
        return Placements(self.runs[:, classes], self.deviations[..., classes], self.counts[..., classes])

    @property
    def auroc(self) -> np.ndarray:
        """(classes,) mean over runs."""
        mean: np.ndarray = self.runs.mean(axis=0)
        return mean

    @property
    def patients(self) -> np.ndarray:
        """(2, classes) patients with a positive, and with a negative."""
        return np.count_nonzero(self.counts, axis=1)


def placements(labels: np.ndarray, scores: np.ndarray, subjects: np.ndarray) -> Placements:
    """The placements of every class, summed by patient.

    Args:
        labels: (n, classes) 0 or 1.
        scores: (n, classes), or (runs, n, classes): several runs on the same records. Finite.
        subjects: (n,) patient of each record.
    """
    positive = np.asarray(labels, bool)
    runs = np.asarray(scores, np.float64)
    runs = runs[None] if runs.ndim == 2 else runs
    if runs.shape[1:] != positive.shape or len(subjects) != len(positive):
        raise ValueError(f"labels {positive.shape}, scores {runs.shape} and {len(subjects)} subjects do not match")
    if not np.isfinite(runs).all():
        raise ValueError(f"{int((~np.isfinite(runs)).sum())} scores are not finite")
    _, patient = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    n_patients = int(patient.max()) + 1 if len(patient) else 0
    n_classes = positive.shape[1]
    auroc = np.full((len(runs), n_classes), np.nan)
    deviations = np.zeros((2, n_patients, n_classes))
    counts = np.zeros((2, n_patients, n_classes), np.int64)
    for c in range(n_classes):
        sides = [np.flatnonzero(positive[:, c]), np.flatnonzero(~positive[:, c])]
        for side, rows in enumerate(sides):
            counts[side, :, c] = np.bincount(patient[rows], minlength=n_patients)
        if not all(map(len, sides)):
            continue
        total = [np.zeros(len(rows)) for rows in sides]
        for r, run in enumerate(runs):
            high, low = (run[rows, c] for rows in sides)
            beaten = _share_below(high, low)
            auroc[r, c] = beaten.mean()
            total[0] += beaten - auroc[r, c]
            total[1] += 1 - _share_below(low, high) - auroc[r, c]
        for side, rows in enumerate(sides):
            mean = total[side] / (len(runs) * len(rows))
            deviations[side, :, c] = np.bincount(patient[rows], mean, minlength=n_patients)
    return Placements(auroc, deviations, counts)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of ``others`` below each value, ties half."""
    ordered = np.sort(others)
    ends = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    share: np.ndarray = ends / (2 * len(others))
    return share


def auroc_interval(positive: np.ndarray, score: np.ndarray, subjects: np.ndarray, level: float = 0.95) -> Estimate:
    """AUROC of one class and its interval: arguments (n,); see :func:`auroc_intervals`."""
    return auroc_intervals(placements(np.asarray(positive)[:, None], np.asarray(score)[:, None], subjects), level)[0]


def auroc_intervals(of: Placements, level: float = 0.95) -> list[Estimate]:
    """The AUROC of every class, mean over runs, with its interval.

    The interval holds each A with |Â - A| ≤ t √(r A (1 - A)). r is the variance of Â over A (1 - A): the mean of what
    the sample shows, Obuchowski's variance of clustered placements, and of :data:`PRIOR_RATIO`, weighted by the patients with
    a positive (with a negative) and :data:`PRIOR_WEIGHT`. It is never wider than [0, 1], and not of width 0 where
    positives rank first. None with fewer than :data:`MIN_PATIENTS` patients with a positive, or with a negative.
    """
    ratio, df = _ratios(of, _spread(of.auroc), PRIOR_RATIO)
    return [
        Estimate(None, None, UNDEFINED)
        if not np.isfinite(value)
        else Estimate(float(value), None, _too_few("the class has", MIN_PATIENTS))
        if of.patients[:, c].min() < MIN_PATIENTS
        else Estimate(float(value), _wilson(float(value), float(ratio[c]), _quantile(level, float(df[c]))))
        for c, value in enumerate(of.auroc)
    ]


def macro_interval(
    of: Placements, classes: Sequence[int] | None = None, *, level: float = 0.95, draw_runs: bool = False
) -> Estimate:
    """Mean AUROC over classes (and runs), with its interval.

    Classes are correlated, so that placements are added over classes within a patient before they are squared. What
    the classes with few positives lack in variance is added: their ratio of variance to A (1 - A) is drawn towards
    that of all classes of the mean. None where no class has :data:`MIN_PATIENTS` patients with a positive.

    Args:
        of: the placements of all classes.
        classes: columns that the mean is over; those without an AUROC are left out. All when not given.
        level: of the interval.
        draw_runs: the interval is to hold for other runs (seeds of training) too, not for these runs alone.
    """
    chosen = _defined(of.auroc, classes)
    if not len(chosen):
        return Estimate(None, None, "no class has an AUROC")
    of = of.columns(chosen)
    value = float(of.auroc.mean())
    if of.patients.min(axis=0).max() < MIN_PATIENTS:
        return Estimate(value, None, _too_few("every class has", MIN_PATIENTS))
    spread = _spread(of.auroc)
    variance, df = _macro_variance(of, spread, PRIOR_RATIO)
    if draw_runs:
        if len(of.runs) < 2:
            return Estimate(value, None, ONE_RUN)
        variance, df = _with_runs(variance, df, of.runs.mean(axis=1))
    scale = value * (1 - value)
    ratio = variance / scale if scale > 0 else PRIOR_RATIO / float(of.patients[0].sum())
    return Estimate(value, _wilson(value, ratio, _quantile(level, df)))


def paired_differences(a: Placements, b: Placements, level: float = 0.95) -> list[Difference]:
    """AUROC of model a less that of model b on the same records, for every class: Student's interval and test.

    The variance is that of the differences of placements, summed by patient (DeLong's, of clusters); its degrees of
    freedom are those of few and of unequal values. Interval and p are None with fewer than :data:`MIN_PATIENTS_PAIRED`
    patients with a positive, or with a negative, and where both models rank all records alike.
    """
    gap = _gap(a, b)
    variance, df, _, cross = _sides(gap)
    total = _floored(variance, cross)
    freedom = _satterthwaite(variance, df)
    return [
        Difference(None, None, None, None, None, UNDEFINED)
        if not np.isfinite(gap.auroc[c])
        else _tested(
            (float(a.auroc[c]), float(b.auroc[c])),
            float(total[c]),
            float(freedom[c]),
            level,
            _too_few("the class has", MIN_PATIENTS_PAIRED) if gap.patients[:, c].min() < MIN_PATIENTS_PAIRED else None,
        )
        for c in range(len(total))
    ]


def paired_macro_difference(
    a: Placements,
    b: Placements,
    classes: Sequence[int] | None = None,
    *,
    level: float = 0.95,
    draw_runs: bool = False,
) -> Difference:
    """Mean AUROC over classes of model a less that of model b on the same records: Student's interval and test.

    Arguments as of :func:`macro_interval`. With ``draw_runs`` run r of a is paired with run r of b (the same seed).
    """
    gap = _gap(a, b)
    chosen = _defined(gap.auroc, classes)
    if not len(chosen):
        return Difference(None, None, None, None, None, "no class has an AUROC")
    gap = gap.columns(chosen)
    values = float(a.auroc[chosen].mean()), float(b.auroc[chosen].mean())
    few = gap.patients.min(axis=0).max() < MIN_PATIENTS_PAIRED
    reason = _too_few("every class has", MIN_PATIENTS_PAIRED) if few else None
    variance, df = _macro_variance(gap, (_spread(a.auroc) + _spread(b.auroc))[chosen] / 2, None)
    if draw_runs and len(gap.runs) < 2:
        reason = reason or ONE_RUN
    elif draw_runs:
        variance, df = _with_runs(variance, df, gap.runs.mean(axis=1))
    return _tested(values, variance, df, level, reason)


def _gap(a: Placements, b: Placements) -> Placements:
    """Model a less model b as one set of placements."""
    if not np.array_equal(a.counts, b.counts):
        raise ValueError("the two models were not scored on the same records and labels")
    if a.runs.shape != b.runs.shape:
        raise ValueError(f"{len(a.runs)} runs of one model and {len(b.runs)} of the other cannot be paired")
    return Placements(a.runs - b.runs, a.deviations - b.deviations, a.counts)


def _defined(auroc: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    chosen = np.arange(len(auroc)) if classes is None else np.asarray(classes, np.int64)
    return chosen[np.isfinite(auroc[chosen])]


def _spread(auroc: np.ndarray) -> np.ndarray:
    spread: np.ndarray = auroc * (1 - auroc)
    return spread


def _sides(of: Placements) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of positives and of negatives (2, classes): the variance of the AUROC that is theirs, its degrees of freedom,
    and one over the number of independent records that they are worth; and the covariance of the two (classes,)."""
    patients = of.patients
    squares = of.deviations**2
    total = squares.sum(axis=1)
    variance = total * patients / np.maximum(patients - 1, 1)
    peaked = np.divide((squares**2).sum(axis=1), total**2, out=np.zeros_like(total), where=total > 0)
    df = _fourth_moment_df(peaked, patients)
    records = of.counts.sum(axis=1)
    worth = (of.counts * (1 + (of.counts - 1) * RECORD_CORRELATION)).sum(axis=1)
    size = np.divide(worth, records**2, out=np.zeros_like(total), where=records > 0)
    return variance, df, size, 2 * of.deviations.prod(axis=0).sum(axis=0)


def _fourth_moment_df(peaked: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the variance of n values with Σ x⁴ / (Σ x²)² = ``peaked``: n - 1 where x is normal, fewer
    where a few large values make the sum."""
    excess = np.maximum(peaked - 1 / np.maximum(n, 1), 1e-9)
    df: np.ndarray = np.clip(2 / excess, 1, np.maximum(n - 1, 1))
    return df


def _ratios(of: Placements, spread: np.ndarray, prior: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Variance of every AUROC over A (1 - A), and its degrees of freedom: sample and ``prior`` as one."""
    variance, df, size, cross = _sides(of)
    seen = of.patients - 1
    share = seen / (seen + PRIOR_WEIGHT)
    known = spread > 0
    unbiased = np.where(known, _debiased(spread, size), 1)
    ratio = prior * size * np.where(known, 1 - share, 1) + np.where(known, share * variance / unbiased, 0)
    both = np.where(known, share.min(axis=0) * cross / unbiased, 0)
    return _floored(ratio, both), _satterthwaite(ratio, df + PRIOR_WEIGHT)


def _debiased(spread: np.ndarray, size: np.ndarray) -> np.ndarray:
    """A (1 - A) of the true AUROC: that of the estimate is too small by its variance."""
    return spread / np.maximum(1 - PRIOR_RATIO * size.sum(axis=0), 0.3)


def _floored(parts: np.ndarray, cross: np.ndarray) -> np.ndarray:
    whole: np.ndarray = parts.sum(axis=0)
    return np.maximum(whole + cross, whole / 4)


def _satterthwaite(parts: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the sum over the first axis of independent variances."""
    squares = (parts**2 / df).sum(axis=0)
    return np.divide(parts.sum(axis=0) ** 2, squares, out=np.ones_like(squares), where=squares > 0)


def _macro_variance(of: Placements, spread: np.ndarray, prior: float | None) -> tuple[float, float]:
    """Variance of the mean over classes, and its degrees of freedom.

    The variances of the classes are drawn towards what all of them show, as those of few patients are no estimates; to
    them come the covariances, from the patients that two classes share.
    """
    variance, df, size, cross = _sides(of)
    patients = of.patients
    share = (patients - 1) / (patients - 1 + PRIOR_WEIGHT)
    unbiased = _debiased(spread, size)
    typical = float(unbiased.mean())
    expected = share * unbiased + (1 - share) * typical  # A (1 - A) of every class
    per_record = np.divide(variance, size, out=np.zeros_like(variance), where=size > 0)
    known = (0.0 if prior is None else typical) + (share * unbiased).sum(axis=1)
    seen = (0.0 if prior is None else prior * typical) + (share * per_record).sum(axis=1)
    ratio = np.divide(seen, known, out=np.zeros_like(seen), where=known > 0)[:, None]
    sides = share * variance + (1 - share) * ratio * size * expected
    own = _floored(sides, share.min(axis=0) * cross)
    scaled = of.deviations * np.sqrt(patients / np.maximum(patients - 1, 1))[:, None]
    # A single patient does not deviate from its own mean; its covariances are those of its deviation from the others'.
    offset = np.where(patients == 1, of.auroc - of.auroc.mean(), 0)[:, None] * (of.counts > 0)
    by_class = (scaled + offset).sum(axis=0)
    covariance = (by_class.sum(axis=1) ** 2).sum() - (by_class**2).sum()
    total = max(own.sum() + covariance, own.sum() / 2)
    return float(total / len(spread) ** 2), float(_satterthwaite(sides.ravel(), (df + PRIOR_WEIGHT).ravel()))


def _with_runs(variance: float, df: float, runs: np.ndarray) -> tuple[float, float]:
    """Variance and degrees of freedom of the mean of ``runs`` when other runs could have been drawn as well."""
    parts = np.array([variance, runs.var(ddof=1) / len(runs)])
    return float(parts.sum()), float(_satterthwaite(parts, np.array([df, len(runs) - 1])))


def _quantile(level: float, df: float) -> float:
    return float(stats.t.ppf(0.5 + level / 2, df))


def _wilson(value: float, ratio: float, quantile: float) -> tuple[float, float]:
    """The x with (value - x)² ≤ quantile² ratio x (1 - x)."""
    g = quantile**2 * ratio
    middle, half = value + g / 2, (g * value * (1 - value) + g * g / 4) ** 0.5
    return max(0.0, (middle - half) / (1 + g)), min(1.0, (middle + half) / (1 + g))


def _tested(
    values: tuple[float, float], variance: float, df: float, level: float, reason: str | None = None
) -> Difference:
    a, b = values
    if reason is None and variance <= 1e-15:  # rounding of a zero
        reason = "the difference does not vary"
    if reason is not None:
        return Difference(a, b, a - b, None, None, reason)
    error = variance**0.5
    half = _quantile(level, df) * error
    ci = max(-1.0, a - b - half), min(1.0, a - b + half)
    return Difference(a, b, a - b, ci, float(2 * stats.t.sf(abs(a - b) / error, df)))


def _too_few(what: str, least: int) -> str:
    return f"{what} fewer than {least} patients with a positive or with a negative"
