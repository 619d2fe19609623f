from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from deri.errors import DeriError
from deri.evaluation.cross_validation import patient_folds
from deri.evaluation.folds import probe_folds
from support import tiny


@settings(max_examples=40, deadline=None)
@given(n=st.integers(5, 80), patients=st.integers(5, 30), folds=st.integers(3, 5), seed=st.integers(0, 50))
def test_a_patient_is_in_one_fold_and_folds_are_even(n: int, patients: int, folds: int, seed: int) -> None:
    subjects = np.r_[np.arange(patients), np.random.default_rng(seed).integers(0, patients, n)]
    fold = patient_folds(subjects, folds, seed)
    of_patient = [set(fold[subjects == p].tolist()) for p in range(patients)]
    assert all(len(folds_of) == 1 for folds_of in of_patient)
    sizes = np.bincount([folds_of.pop() for folds_of in of_patient], minlength=folds)
    assert sizes.max() - sizes.min() <= 1


class FakeStore:
    """As much of a store as cross-validation asks for: ten patients' worth of one task with given labels."""

    def __init__(self, subjects: np.ndarray, labels: np.ndarray) -> None:
        self.path = "memory"
        self.provenance = {"dataset": "fake"}
        self.index = pd.DataFrame({"subject_id": subjects})
        self._labels = labels

    def task_rows(self, task: str, split: str) -> np.ndarray:
        assert split == "all"
        return np.arange(len(self._labels))

    def labels(self, task: str, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        return ["a", "b"], self._labels[rows]


def probe(x: np.ndarray, subjects: np.ndarray, labels: np.ndarray, **options: Any) -> dict[str, Any]:
    features: Any = SimpleNamespace(rows=lambda rows, show=None: x[rows])
    store: Any = FakeStore(subjects, labels)
    return probe_folds(tiny.model(), store, "labels", model_name="tiny", features=features, draws=50, **options)


def test_what_only_names_the_patient_does_not_predict_but_a_real_sign_does() -> None:
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(60), 4)
    of_patient = rng.integers(0, 2, (60, 2))
    labels = of_patient[subjects]
    identity = rng.normal(size=(60, 16))[subjects].astype(np.float32)
    result = probe(identity, subjects, labels)
    # Every record's patient occurs four times: probes that saw a patient would score near 1.
    assert 0.35 < result["macro_auroc"]["value"] < 0.65
    sign = labels + rng.normal(scale=0.3, size=labels.shape)
    result = probe(np.c_[identity, sign].astype(np.float32), subjects, labels)
    assert result["macro_auroc"]["value"] > 0.85
    assert result["macro_f1"] > 0.75
    assert result["classes"]["a"]["n_pos"] == labels[:, 0].sum()
    assert result["n_patients"] == 60
    low, high = result["macro_auroc"]["ci"]
    assert low <= result["macro_auroc"]["value"] <= high
    assert roc_auc_score(labels[:, 0], sign[:, 0]) > 0.95


def test_a_class_that_some_fold_cannot_learn_is_null() -> None:
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(0, 2, 40), np.arange(40) == 3], axis=1)
    result = probe(rng.normal(size=(40, 4)).astype(np.float32), np.arange(40), labels)
    assert list(result["classes"]) == ["a", "b"]
    assert (result["classes"]["b"]["auroc"], result["classes"]["b"]["n_pos"]) == (None, 1)
    assert result["classes"]["a"]["auroc"] is not None
    assert result["macro_auroc"]["value"] == result["classes"]["a"]["auroc"]


def test_too_few_patients_or_folds() -> None:
    x, labels = np.zeros((4, 2), np.float32), np.ones((4, 2), np.uint8)
    with pytest.raises(DeriError, match="only 4 patients"):
        probe(x, np.arange(4), labels)
    with pytest.raises(DeriError, match="at least 3"):
        probe(x, np.arange(4), labels, folds=2)
