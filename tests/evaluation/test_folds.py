from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from sklearn.metrics import f1_score, roc_auc_score

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.evaluation import classical
from deri.evaluation.benchmark import Scope, run_benchmark
from deri.evaluation.metrics import best_threshold
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import Method, fit_probe, probe_task, score_probes
from deri.evaluation.task import Split, TaskData, patient_folds, task_parts
from deri.store import prepare
from support import tiny


def whole(features: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> TaskData:
    none = Split(features[:0], labels[:0], subjects[:0])
    names = [f"c{i}" for i in range(labels.shape[1])]
    return TaskData(names, none, none, Split(features, labels, subjects))


def random_task(n: int, seed: int) -> TaskData:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    labels = np.stack([x[:, 0] + rng.normal(size=n) > 0, rng.random(n) < 0.2], axis=1).astype(np.uint8)
    return whole(x, labels, rng.integers(0, n // 2, n).astype(str))


def test_every_record_is_tested_once_by_others() -> None:
    data = random_task(60, 0)
    parts = task_parts(data, 5, seed=3)
    assert sorted(np.concatenate([part.positions for part in parts]).tolist()) == list(range(60))
    for part in parts:
        groups = [set(split.subjects) for split in (part.train, part.val, part.test)]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]
        assert sum(len(split.labels) for split in (part.train, part.val, part.test)) == 60
        np.testing.assert_array_equal(part.test.features, data.test.features[part.positions])


def test_scores_are_those_of_each_fold_s_probe() -> None:
    data = random_task(90, 1)
    content, scores = score_probes(data, 100.0, EvalOptions(folds=3, seeds=2, draws=0))
    expected = np.empty((90, 2))
    for part in task_parts(data, 3, seed=43):  # the second seed
        probability = fit_probe(part.train, part.val, part.test, seed=43).test
        share = part.train.labels.mean(axis=0)
        expected[part.positions] = logit(probability) - logit(share)
    np.testing.assert_allclose(scores[1], expected, atol=1e-6)
    assert content["seeds"][1]["macro_auroc"] == pytest.approx(roc_auc_score(data.test.labels, expected), abs=1e-3)
    assert content["calibration"] is None
    called = np.zeros((90, 2))
    for part in task_parts(data, 3, seed=42):
        probe = fit_probe(part.train, part.val, part.test, seed=42)
        for c in range(2):
            called[part.positions, c] = probe.test[:, c] >= best_threshold(part.val.labels[:, c], probe.val[:, c])
    first, _ = score_probes(data, 100.0, EvalOptions(folds=3, draws=0))
    assert first["macro_f1"] == pytest.approx(np.mean([f1_score(data.test.labels[:, c], called[:, c]) for c in (0, 1)]))
    assert first["classes"]["c0"]["threshold"] is None


@pytest.mark.parametrize("method", ["corrected", "boosting"])
def test_a_probe_that_learned_nothing_has_half(method: Method) -> None:
    data = random_task(90, 2)
    constant = whole(np.ones((90, 5), np.float32), data.test.labels, data.test.subjects)
    content, _ = score_probes(constant, 100.0, EvalOptions(folds=5, draws=0), method)
    assert [c["auroc"] for c in content["classes"].values()] == [0.5, 0.5]


def test_a_class_that_some_fold_could_not_learn_is_null() -> None:
    data = random_task(60, 3)
    labels = np.concatenate([data.test.labels, np.zeros((60, 1), np.uint8)], axis=1)
    labels[7, 2] = 1  # alone: the fold that tests it has no positive to learn from
    content, _ = score_probes(
        whole(data.test.features, labels, data.test.subjects),
        100.0,
        EvalOptions(folds=4, draws=9),
    )
    without, _ = score_probes(data, 100.0, EvalOptions(folds=4, draws=9))
    assert content["classes"]["c2"]["auroc"] is content["classes"]["c2"]["ci"] is None
    assert content["classes"]["c2"]["n_pos"] == 1
    assert (content["n_classes"], content["n_classes_scored"]) == (3, 2)
    assert any("c2" in note for note in content["notes"])
    assert content["classes"]["c1"]["n_train_pos"] == without["classes"]["c1"]["n_train_pos"]


@settings(max_examples=40)
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
        self.tasks = {"labels": ["a", "b"]}
        self.index = pd.DataFrame({"subject_id": subjects})
        self._labels = labels

    def task_rows(self, task: str, split: str) -> np.ndarray:
        assert split == "all"
        return np.arange(len(self._labels))

    def labels(self, task: str, rows: np.ndarray) -> tuple[list[str], np.ndarray]:
        return ["a", "b"], self._labels[rows]


def probe(x: np.ndarray, subjects: np.ndarray, labels: np.ndarray, **options: Any) -> dict[str, Any]:
    store = FakeStore(subjects, labels)
    features: Any = SimpleNamespace(rows=lambda rows: x[rows], store=store, encoder=None, digest="d", content="x")
    return probe_task(features, "labels", EvalOptions(**{"folds": 5, "draws": 50, **options}), model_name="tiny")


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


def test_a_class_that_some_fold_cannot_learn_is_null_in_the_result() -> None:
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


@pytest.mark.slow
def test_real_recordings(ecg_real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real labels: the classical row knows sinus tachycardia and bundle branch blocks, whose signs it measures."""
    monkeypatch.setitem(classical.BOOSTING, "max_iter", 10)  # as much as these findings need
    prepare(open_dataset("folder", ecg_real, labels=ecg_real / "index.csv"), tmp_path / "store")
    tiny.model(pooling="mean", seed=4).save_pretrained(tmp_path / "model")
    results = run_benchmark(
        [f"tiny={tmp_path / 'model'}"], [tmp_path / "store"], tmp_path / "out",
        EvalOptions(fractions=(100.0,), folds=5, draws=200), Scope(figures=False),
    )  # fmt: skip
    (cell,) = [c for c in results["cells"] if c["kind"] == "classical"]
    assert cell["split"] == "all"
    assert cell["n"] > 200
    for name in ("STACH", "CRBBB", "AFIB"):
        found = cell["classes"][name]
        assert found["auroc"] > 0.75, (name, found)
        assert found["ci"][0] > 0.55
