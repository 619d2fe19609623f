"""Confidence intervals and paired tests that hold where positives are few.

A variance by patient, as DeLong's and Obuchowski's, and a bootstrap by patient go wrong in two ways where a class has
few positives:

- The variance is estimated from as many values as there are patients with a positive. Here an AUROC draws it towards
  what it is at chance, a macro average towards what all of its classes show, and quantiles are Student's.
- The variance depends on the AUROC itself, and is zero where the few positives happen to rank first. Here the interval
  holds the AUROCs for which the sample would not be surprising, as Wilson's does for a share.

``benchmarks/coverage.py`` measures how often the intervals hold the truth; docs/results/intervals.md has its tables.

Sources: DeLong, DeLong & Clarke-Pearson 1988; Obuchowski 1997 (variance of clustered records); Hanley & McNeil 1982 and
Newcombe 2006, Stat Med 25:559-573 (a variance that depends on the AUROC, solved as Wilson's interval); Satterthwaite
1946 (degrees of freedom of a sum of variances).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from deri.evaluation.contributions import Contributions, patient_numbers

METHOD = "variance by patient, Wilson-type with Student's quantiles"
"""How the intervals are made; ``ci_method`` of a result."""

MIN_PATIENTS = 2
"""Patients with a positive, and patients with a negative, below which an AUROC has no interval."""

MIN_PATIENTS_PAIRED = 3
"""Patients with a positive, and with a negative, below which a difference of AUROCs has no interval and no p."""

PRIOR_PATIENTS = 5.0
"""How many patients, and degrees of freedom, an expected variance counts as beside the sample's."""

PRIOR_PATIENTS_PAIRED = 1.0
"""The same of a difference, which is drawn less: how alike two models rank is not known before."""

Interval = tuple[float, float]

_UNDEFINED = "no positives or no negatives"
_NO_CLASS = "no class is defined"
_ONE_RUN = "one run does not show how runs differ"
_BIASED = "too few findings: how much F1 is too small on average exceeds the interval"


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; ``ci`` is None, with the ``reason``, where none can be told."""

    value: float | None
    ci: Interval | None
    reason: str | None = None


@dataclass(frozen=True)
class Difference:
    """Model a less model b; ``ci`` and ``p`` are None, with the ``reason``, where nothing can be told."""

    a: float | None
    b: float | None
    value: float | None
    ci: Interval | None
    p: float | None
    reason: str | None = None


def as_list(ci: Interval | None) -> list[float] | None:
    """An interval as a JSON value."""
    return None if ci is None else list(ci)


def auroc_intervals(of: Contributions, level: float = 0.95) -> list[Estimate]:
    """The AUROC of every class, mean over runs, with its interval.

    The interval holds each A with |Â - A| ≤ t √(r A (1 - A)). r is the variance of Â over A (1 - A): the mean of what
    the sample shows, Obuchowski's variance, and of what it is at chance, weighted by the patients with a positive
    (with a negative) and :data:`PRIOR_PATIENTS`. It stays in [0, 1], and has a width where the positives rank first.
    None with fewer than :data:`MIN_PATIENTS` patients with a positive, or with a negative.
    """
    spread = of.mean * (1 - of.mean)
    known = spread > 0
    moments = _moments(of)
    share = np.where(known, _share(of, PRIOR_PATIENTS), 0)
    unbiased = np.where(known, _unbiased(spread, _kept(of)), 1)
    sides = share * moments.variance / unbiased + (1 - share) * of.ratio * of.size
    ratio = _with_covariance(sides, share.min(axis=0) * moments.covariance / unbiased)
    df = _satterthwaite(sides, moments.df + PRIOR_PATIENTS)
    found = []
    for c, value in enumerate(of.mean):
        if not np.isfinite(value):
            found.append(Estimate(None, None, _UNDEFINED))
        elif of.patients[:, c].min() < MIN_PATIENTS:
            found.append(Estimate(float(value), None, _too_few(MIN_PATIENTS)))
        else:
            found.append(Estimate(float(value), _wilson(float(value), float(ratio[c]), _quantile(level, float(df[c])))))
    return found


def macro_interval(
    of: Contributions, classes: Sequence[int] | None = None, *, level: float = 0.95, draw_runs: bool = False
) -> Estimate:
    """Mean of AUROC or F1 over classes (and runs), with its interval.

    Classes are correlated, so that contributions are added over classes before they are squared. Classes of few
    patients get the variance that all classes show. The interval is Wilson's of a share with that variance; that of F1
    is around the value plus what a ratio is too small on average. None where no class has :data:`MIN_PATIENTS`, and
    where that would leave the value outside.

    Args:
        of: the contributions to all classes.
        classes: columns that the mean is over; undefined ones are left out. All when not given.
        level: of the interval.
        draw_runs: the interval is to hold for other runs (seeds of training) too, not for these runs alone.
    """
    chosen = _defined(of.mean, classes)
    if not len(chosen):
        return Estimate(None, None, _NO_CLASS)
    of = of.columns(chosen)
    value = float(of.mean.mean())
    if of.patients.min(axis=0).max() < MIN_PATIENTS:
        return Estimate(value, None, f"every class: {_too_few(MIN_PATIENTS)}")
    spread = of.mean * (1 - of.mean)
    variance, df = _macro_variance(of, spread, prior=True)
    if draw_runs and len(of.values) < 2:
        return Estimate(value, None, _ONE_RUN)
    if draw_runs:
        variance, df = _with_runs(variance, df, of.values.mean(axis=1))
    scale = value * (1 - value)
    ratio = variance / scale if scale > 0 else of.ratio / float(of.counts[0].sum())
    ci = _wilson(min(value + _shortfall(of), 1.0), ratio, _quantile(level, df))
    return Estimate(value, ci) if ci[0] <= value <= ci[1] else Estimate(value, None, _BIASED)


def paired_differences(a: Contributions, b: Contributions, level: float = 0.95) -> list[Difference]:
    """AUROC of model a less that of model b on the same records, for every class: Student's interval and test.

    The variance is that of the differences of placements, by patient (DeLong's test, of clusters), with one patient's
    worth of what two models would have that rank positives as alike as they rank negatives. Interval and p are None
    with fewer than :data:`MIN_PATIENTS_PAIRED` patients with a positive, or with a negative, and where both models rank
    all records alike.
    """
    gap = _gap(a, b)
    moments = _moments(gap)
    share = _share(gap, PRIOR_PATIENTS_PAIRED)
    sides = share * moments.variance + (1 - share) * gap.ratio * gap.size * _spread_of_difference(a, b)
    variance = _with_covariance(sides, share.min(axis=0) * moments.covariance)
    df = _satterthwaite(sides, moments.df + PRIOR_PATIENTS_PAIRED)
    found = []
    for c, value in enumerate(gap.mean):
        if not np.isfinite(value):
            found.append(Difference(None, None, None, None, None, _UNDEFINED))
            continue
        few = gap.patients[:, c].min() < MIN_PATIENTS_PAIRED
        both = float(a.mean[c]), float(b.mean[c])
        reason = _too_few(MIN_PATIENTS_PAIRED) if few else None
        found.append(_tested(both, float(variance[c]), float(df[c]), level, reason))
    return found


def paired_macro_difference(
    a: Contributions,
    b: Contributions,
    classes: Sequence[int] | None = None,
    *,
    level: float = 0.95,
    draw_runs: bool = False,
) -> Difference:
    """Mean over classes of model a less that of model b on the same records: Student's interval and test.

    Arguments as of :func:`macro_interval`; both means are over the classes that are defined for both. With
    ``draw_runs``, run r of a is paired with run r of b (the same seed).
    """
    gap = _gap(a, b)
    chosen = _defined(gap.mean, classes)
    if not len(chosen):
        return Difference(None, None, None, None, None, _NO_CLASS)
    a, b, gap = (of.columns(chosen) for of in (a, b, gap))
    variance, df = _macro_variance(gap, (a.mean * (1 - a.mean) + b.mean * (1 - b.mean)) / 2, prior=False)
    reason = None
    if gap.patients.min(axis=0).max() < MIN_PATIENTS_PAIRED:
        reason = f"every class: {_too_few(MIN_PATIENTS_PAIRED)}"
    elif draw_runs and len(gap.values) < 2:
        reason = _ONE_RUN
    elif draw_runs:
        variance, df = _with_runs(variance, df, gap.values.mean(axis=1))
    both = float(a.mean.mean()), float(b.mean.mean())
    return _tested(both, variance, df, level, reason, _shortfall(a) - _shortfall(b))


def mean_interval(values: np.ndarray, subjects: np.ndarray, level: float = 0.95) -> Estimate:
    """The mean of records' values (n,), as BLEU or a paired difference of it, with Student's interval by patient.

    None with fewer than :data:`MIN_PATIENTS` patients.
    """
    values = np.asarray(values, np.float64)
    patient, n = patient_numbers(subjects)
    if not len(values):
        return Estimate(None, None, "no record")
    value = float(values.mean())
    if n < MIN_PATIENTS:
        return Estimate(value, None, f"fewer than {MIN_PATIENTS} patients")
    squares = np.bincount(patient, (values - value) / len(values)) ** 2
    total = float(squares.sum())
    if total <= 1e-24:
        return Estimate(value, (value, value))
    df = float(_df(np.array((squares**2).sum() / total**2), np.array(n)))
    half = _quantile(level, df) * (total * n / (n - 1)) ** 0.5
    return Estimate(value, (value - half, value + half))


@dataclass(frozen=True)
class _Moments:
    """What the deviations show, all of the sample: (sides, classes), the covariance of the sides (classes,)."""

    variance: np.ndarray
    df: np.ndarray
    covariance: np.ndarray


def _moments(of: Contributions) -> _Moments:
    patients = of.patients
    squares = of.deviations**2
    total = squares.sum(axis=1)
    peak = np.divide((squares**2).sum(axis=1), total**2, out=np.zeros_like(total), where=total > 0)
    covariance = (of.deviations.sum(axis=0) ** 2 - squares.sum(axis=0)).sum(axis=0)
    return _Moments(total * patients / np.maximum(patients - 1, 1), _df(peak, patients), covariance)


def _df(peak: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the variance of n values with Σ x⁴ / (Σ x²)² = ``peak``: n - 1 where x is normal, fewer
    where a few large values make the sum."""
    return np.clip(2 / np.maximum(peak - 1 / np.maximum(n, 1), 1e-9), 1, np.maximum(n - 1, 1))


def _macro_variance(of: Contributions, spread: np.ndarray, *, prior: bool) -> tuple[float, float]:
    """Variance of the mean over classes, and its degrees of freedom.

    The variance of a class is drawn towards what all classes show of it over A (1 - A), ``spread``; with ``prior``,
    ``of.ratio`` is one class of these. The covariances of classes come from the patients that they share.
    """
    moments = _moments(of)
    patients = of.patients
    share = _share(of, PRIOR_PATIENTS)
    expected = _expected_spread(of, spread)
    by_record = np.divide(moments.variance, of.size, out=np.zeros_like(moments.variance), where=of.size > 0)
    weight = float(expected.mean()) if prior else 0.0
    seen, among = of.ratio * weight + (share * by_record).sum(axis=1), weight + (share * expected).sum(axis=1)
    ratio = np.divide(seen, among, out=np.zeros_like(seen), where=among > 0)[:, None]
    sides = share * moments.variance + (1 - share) * ratio * of.size * expected
    own = _with_covariance(sides, share.min(axis=0) * moments.covariance).sum()
    scaled = of.deviations * np.sqrt(patients / np.maximum(patients - 1, 1))[:, None]
    # A single patient does not deviate from itself: for the covariances it deviates from the mean of the classes.
    offset = np.where(patients == 1, of.mean - of.mean.mean(), 0)[:, None] * (of.counts > 0)
    by_class = (scaled + offset).sum(axis=0)
    covariance = (by_class.sum(axis=1) ** 2).sum() - (by_class**2).sum()
    variance = max(own + covariance, own / 2) / len(spread) ** 2
    return float(variance), float(_satterthwaite(sides.ravel(), (moments.df + PRIOR_PATIENTS).ravel()))


def _share(of: Contributions, prior: float) -> np.ndarray:
    """The weight of a sample's own variance (sides, classes) beside an expected one."""
    seen = np.maximum(of.patients - 1, 0)
    return seen / (seen + prior)


def _kept(of: Contributions) -> np.ndarray:
    """What the estimate's A (1 - A) is of the true one (classes,): it is too small by the variance of A."""
    return 1 - of.ratio * of.size.sum(axis=0)


def _unbiased(spread: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return spread / np.maximum(kept, 0.3)


def _expected_spread(of: Contributions, spread: np.ndarray) -> np.ndarray:
    """A (1 - A) of every class (classes,), that of few patients drawn towards what all classes show."""
    kept = _kept(of)
    share = _share(of, PRIOR_PATIENTS).min(axis=0)
    return share * _unbiased(spread, kept) + (1 - share) * spread.sum() / max(kept.sum(), 0.3)


def _spread_of_difference(a: Contributions, b: Contributions) -> np.ndarray:
    """A (1 - A) of a difference (2, classes): two models rank positives as alike as they do negatives."""
    first, second = (np.sqrt(_unbiased(of.mean * (1 - of.mean), _kept(of))) for of in (a, b))
    together = (a.deviations * b.deviations).sum(axis=1)
    alone = np.sqrt((a.deviations**2).sum(axis=1) * (b.deviations**2).sum(axis=1))
    alike = np.divide(together, alone, out=np.zeros_like(alone), where=alone > 0).clip(0, 1)[::-1]
    return first**2 + second**2 - 2 * alike * first * second


def _shortfall(of: Contributions) -> float:
    return float((of.shortfall * _expected_spread(of, of.mean * (1 - of.mean))).mean())


def _gap(a: Contributions, b: Contributions) -> Contributions:
    """Model a less model b as contributions."""
    if a.counts.shape != b.counts.shape or (len(a.counts) == 2 and not np.array_equal(a.counts, b.counts)):
        raise ValueError("the two models were not scored on the same records and labels")
    if a.values.shape != b.values.shape:
        raise ValueError(f"{len(a.values)} runs of one model and {len(b.values)} of the other cannot be paired")
    counts, size = np.maximum(a.counts, b.counts), np.minimum(a.size, b.size)  # texts with a finding differ
    return Contributions(a.values - b.values, a.deviations - b.deviations, counts, size, a.ratio, a.shortfall)


def _defined(values: np.ndarray, classes: Sequence[int] | None) -> np.ndarray:
    chosen = np.arange(len(values)) if classes is None else np.asarray(classes, np.int64)
    return chosen[np.isfinite(values[chosen])]


def _with_covariance(sides: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    whole: np.ndarray = sides.sum(axis=0)
    return np.maximum(whole + covariance, whole / 4)


def _satterthwaite(parts: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Degrees of freedom of the sum over the first axis of independent variances; the fewest where all are zero."""
    squares = (parts**2 / df).sum(axis=0)
    fewest = np.array(np.broadcast_to(df, parts.shape).min(axis=0), np.float64)
    return np.divide(parts.sum(axis=0) ** 2, squares, out=fewest, where=squares > 0)


def _with_runs(variance: float, df: float, runs: np.ndarray) -> tuple[float, float]:
    """Variance and degrees of freedom of the mean of ``runs`` (runs,) when others could have been drawn as well."""
    parts = np.array([variance, runs.var(ddof=1) / len(runs)])
    return float(parts.sum()), float(_satterthwaite(parts, np.array([df, len(runs) - 1])))


def _quantile(level: float, df: float) -> float:
    return float(stdtrit(df, 0.5 + level / 2))


def _wilson(value: float, ratio: float, quantile: float) -> tuple[float, float]:
    """The x with (value - x)² ≤ quantile² ratio x (1 - x)."""
    g = quantile**2 * ratio
    middle, half = value + g / 2, (g * value * (1 - value) + g * g / 4) ** 0.5
    low, high = (middle - half) / (1 + g), (middle + half) / (1 + g)
    return max(0.0, min(low, value)), min(1.0, max(high, value))  # a limit at the value itself is rounded


def _tested(
    both: tuple[float, float],
    variance: float,
    df: float,
    level: float,
    reason: str | None,
    shortfall: float = 0.0,
) -> Difference:
    value = both[0] - both[1]
    if reason is None and variance <= 1e-15:  # rounding of a zero
        reason = "the difference does not vary"
    if reason is not None:
        return Difference(*both, value, None, None, reason)
    error, centre = variance**0.5, value + shortfall
    half = _quantile(level, df) * error
    if abs(shortfall) > half:
        return Difference(*both, value, None, None, _BIASED)
    ci = max(-1.0, centre - half), min(1.0, centre + half)
    return Difference(*both, value, ci, float(2 * stdtr(df, -abs(centre) / error)))


def _too_few(least: int) -> str:
    return f"fewer than {least} patients with a positive, or with a negative"
