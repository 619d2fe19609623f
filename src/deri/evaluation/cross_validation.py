"""Cross-validation by patient, for data sets too small to be split once.

Every recording is scored by a probe that saw none of its patient's. The folds' scores are put together as log
likelihood ratios: the logit of the probability less that of the share of positives in training. Probabilities would
not do: a fold that happens to hold many positives has a training set with few, so that even a probe that has
learned nothing would rank its recordings too low (AUROC below 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deri.errors import DeriError
from deri.evaluation.probe import Split, TaskData

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Part:
    """What one probe is trained, chosen and tested on; ``place`` are the positions of its test records."""

    train: Split
    val: Split
    test: Split
    place: np.ndarray


def patient_folds(subjects: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold 0 … folds − 1 of each record, (n,): patients are shuffled and dealt out in turn, never divided."""
    patients, inverse = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    if len(patients) < folds:
        raise DeriError(f"--folds {folds}: the task has only {len(patients)} patients; use fewer folds")
    of_patient = np.empty(len(patients), np.int64)
    of_patient[np.random.default_rng(seed).permutation(len(patients))] = np.arange(len(patients)) % folds
    return of_patient[inverse]


def task_parts(data: TaskData, folds: int, seed: int) -> list[Part]:
    """The one part of a task with splits (``folds`` 0), or the parts of its folds, over the records of ``data.test``.

    Of a fold, the next one serves as validation and the others as training records.
    """
    if not folds:
        return [Part(data.train, data.val, data.test, np.arange(len(data.test.labels)))]
    fold = patient_folds(data.test.subjects, folds, seed)

    def part(inside: np.ndarray) -> Split:
        return Split(data.test.features[inside], data.test.labels[inside], data.test.subjects[inside])

    found = []
    for k in range(folds):
        test, val = fold == k, fold == (k + 1) % folds
        found.append(Part(part(~test & ~val), part(val), part(test), np.flatnonzero(test)))
    return found


def log_likelihood_ratio(probability: np.ndarray, train_labels: np.ndarray) -> np.ndarray:
    """Logit of probabilities (n, classes) less that of the share of positives in training.

    Where all or none were positive the share is (n_pos + ½) / (n + 1), as probes have it. Rounded to six decimals, so
    that what is 0 but for the tolerance of a fit is 0 in every fold.
    """
    n_pos, n = train_labels.sum(axis=0, dtype=np.float64), len(train_labels)
    prior = np.where((n_pos == 0) | (n_pos == n), (n_pos + 0.5) / (n + 1), n_pos / max(n, 1))
    p = np.clip(probability, _SMALLEST, 1 - _SMALLEST)
    return np.round(np.log(p / (1 - p)) - np.log(prior / (1 - prior)), 6)
