"""What every patient contributes to a figure of a class: the ground of :mod:`deri.evaluation.intervals`.

AUROC: the placement of a positive is the share of negatives that score lower, that of a negative the share of
positives that score higher, ties half (DeLong, DeLong & Clarke-Pearson 1988). Either has the AUROC as its mean, and the
deviations from it are summed by patient (Obuchowski 1997), as the records of one patient depend on each other. F1 is a
ratio, and its deviations are those of its linearisation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

AUROC_RATIO = 1 / 3
"""Variance of a placement over A (1 - A), A the AUROC, before any data: its value at chance, where placements are
uniform. At an AUROC of 0.95 it is 0.26 for binormal and 0.49 for exponential scores."""

F1_RATIO = 1.0
"""The same of F1 and one text: (2 - F)² / 2 when texts are independent, which is 0.7 at F = 0.8 and 1.1 at 0.5."""

RECORD_CORRELATION = 0.5
"""Of the contributions of one patient's records, before any data."""

_F1_SLACK = 1 / 3  # k texts with a finding are worth k - 1/3 in F1: the linearisation halves the variance of one


@dataclass(frozen=True)
class Contributions:
    """Figures of classes and what patients contribute to them.

    AUROC has two sides, the positives and the negatives; F1 has one, the texts with a finding on either side.

    Attributes:
        values: (runs, classes) the figure of every run; NaN where it is not defined.
        deviations: (sides, patients, classes) what a patient's records take the figure away from the value that they
            would have on average, mean over runs; their sum is 0, the sum of their squares the variance of the figure.
        counts: (sides, patients, classes) records.
        size: (sides, classes) one over the number of independent records that those of a class are worth.
        ratio: variance of a contribution over A (1 - A), A the figure, before any data.
        shortfall: (classes,) how much too small the figure is on average, over A (1 - A): that of a ratio is.
    """

    values: np.ndarray
    deviations: np.ndarray
    counts: np.ndarray
    size: np.ndarray
    ratio: float
    shortfall: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(classes,) the figures, mean over runs."""
        return self.values.mean(axis=0)

    @property
    def patients(self) -> np.ndarray:
        """(sides, classes) how many patients contribute."""
        return np.count_nonzero(self.counts, axis=1)

    def columns(self, classes: np.ndarray) -> Contributions:
        """Those to some classes."""
        return replace(
            self,
            values=self.values[:, classes],
            deviations=self.deviations[..., classes],
            counts=self.counts[..., classes],
            size=self.size[..., classes],
            shortfall=self.shortfall[classes],
        )


def auroc_contributions(labels: np.ndarray, scores: np.ndarray, subjects: np.ndarray) -> Contributions:
    """AUROC of every class, and the placements of every patient.

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
    patient, n_patients = patient_numbers(subjects)
    n_classes = positive.shape[1]
    values = np.full((len(runs), n_classes), np.nan)
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
            placed = _share_below(high, low)
            values[r, c] = placed.mean()
            total[0] += placed - values[r, c]
            total[1] += 1 - _share_below(low, high) - values[r, c]
        for side, rows in enumerate(sides):
            mean = total[side] / (len(runs) * len(rows))
            deviations[side, :, c] = np.bincount(patient[rows], mean, minlength=n_patients)
    return Contributions(values, deviations, counts, _size(counts, 0), AUROC_RATIO, np.zeros(n_classes))


def f1_contributions(truth: np.ndarray, called: np.ndarray, subjects: np.ndarray) -> Contributions:
    """F1 of every finding, 2 hits / (truths + calls), and what every patient contributes to it.

    Args:
        truth: (n, findings) 0 or 1, of the references.
        called: (n, findings) 0 or 1, of the generated texts.
        subjects: (n,) patient of each text.
    """
    truth, called = np.asarray(truth, bool), np.asarray(called, bool)
    patient, n_patients = patient_numbers(subjects)
    there = truth.astype(np.int64) + called
    hits = 2.0 * (truth & called)
    total = there.sum(axis=0)
    f1 = np.divide(hits.sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)
    deviation = np.divide(hits - there * f1, total, out=np.zeros(there.shape), where=total > 0)
    deviations = np.zeros((1, n_patients, len(total)))
    counts = np.zeros((1, n_patients, len(total)), np.int64)
    np.add.at(deviations[0], patient, deviation)
    np.add.at(counts[0], patient, (truth | called).astype(np.int64))
    # E[2h / D] ≈ F - F (1 - F) / D to second order; D + 1, because 1 / D is larger on average than 1 / E[D].
    return Contributions(f1[None], deviations, counts, _size(counts, _F1_SLACK), F1_RATIO, 1 / (total + 1))


def patient_numbers(subjects: np.ndarray) -> tuple[np.ndarray, int]:
    """The patient of each record as a number from 0, and how many there are."""
    _, patient = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    return patient, int(patient.max()) + 1 if len(patient) else 0


def _size(counts: np.ndarray, slack: float) -> np.ndarray:
    records = counts.sum(axis=1)
    worth = (counts * (1 + (counts - 1) * RECORD_CORRELATION)).sum(axis=1)
    return np.divide(worth, records * (records - slack), out=np.zeros(records.shape), where=records > 0)


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of ``others`` below each value, ties half."""
    ordered = np.sort(others)
    ends = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return ends / (2 * len(others))
