from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from deri.datasets import open_dataset
from deri.evaluation.benchmark import run_benchmark
from deri.evaluation.cells import score_probes
from deri.evaluation.cross_validation import task_parts
from deri.evaluation.probe import Split, TaskData, fit_probe
from deri.evaluation.systems import Options, System
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
    assert sorted(np.concatenate([part.place for part in parts]).tolist()) == list(range(60))
    for part in parts:
        groups = [set(split.subjects) for split in (part.train, part.val, part.test)]
        assert not groups[0] & groups[1]
        assert not groups[0] & groups[2]
        assert not groups[1] & groups[2]
        assert sum(len(split.labels) for split in (part.train, part.val, part.test)) == 60
        np.testing.assert_array_equal(part.test.features, data.test.features[part.place])


def test_scores_are_those_of_each_fold_s_probe() -> None:
    data = random_task(90, 1)
    system = System("m", "model", "d")
    content, scores = score_probes(system, data, 100.0, Options(folds=3, seeds=2, draws=0))
    expected = np.empty((90, 2))
    for part in task_parts(data, 3, seed=43):  # the second seed
        probability = fit_probe(part.train, part.val, part.test, seed=43).test
        share = part.train.labels.mean(axis=0)
        expected[part.place] = logit(probability) - logit(share)
    np.testing.assert_allclose(scores[1], expected, atol=1e-6)
    assert content["seeds"][1]["macro_auroc"] == pytest.approx(roc_auc_score(data.test.labels, expected), abs=1e-3)
    assert content["macro_f1"] is None
    assert content["calibration"] is None


@pytest.mark.parametrize("kind", ["model", "classical"])
def test_a_probe_that_learned_nothing_has_half(kind: Literal["model", "classical"]) -> None:
    data = random_task(90, 2)
    constant = whole(np.ones((90, 5), np.float32), data.test.labels, data.test.subjects)
    content, _ = score_probes(System("m", kind, "d"), constant, 100.0, Options(folds=5, draws=0))
    assert [c["auroc"] for c in content["classes"].values()] == [0.5, 0.5]


def test_a_class_that_some_fold_could_not_learn_is_null() -> None:
    data = random_task(60, 3)
    labels = np.concatenate([data.test.labels, np.zeros((60, 1), np.uint8)], axis=1)
    labels[7, 2] = 1  # alone: the fold that tests it has no positive to learn from
    content, _ = score_probes(
        System("m", "model", "d"),
        whole(data.test.features, labels, data.test.subjects),
        100.0,
        Options(folds=4, draws=9),
    )
    without, _ = score_probes(System("m", "model", "d"), data, 100.0, Options(folds=4, draws=9))
    assert content["classes"]["c2"]["auroc"] is content["classes"]["c2"]["ci"] is None
    assert content["classes"]["c2"]["n_pos"] == 1
    assert (content["n_classes"], content["n_classes_scored"]) == (3, 2)
    assert any("c2" in note for note in content["notes"])
    assert content["classes"]["c1"]["n_train_pos"] == without["classes"]["c1"]["n_train_pos"]


@pytest.mark.slow
def test_real_recordings(ecg_real: Path, tmp_path: Path) -> None:
    """Real labels: the classical row knows sinus tachycardia and bundle branch blocks, whose signs it measures."""
    prepare(open_dataset("folder", ecg_real, labels=ecg_real / "index.csv"), tmp_path / "store")
    tiny.model(pooling="mean", seed=4).save_pretrained(tmp_path / "model")
    results = run_benchmark(
        [f"tiny={tmp_path / 'model'}"], [tmp_path / "store"], tmp_path / "out",
        Options(fractions=(100.0,), folds=5, draws=200), figures=False, say=lambda _: None,
    )  # fmt: skip
    (cell,) = [c for c in results["cells"] if c["kind"] == "classical"]
    assert cell["split"] == "all"
    assert cell["n"] > 200
    for name in ("STACH", "CRBBB", "AFIB"):
        found = cell["classes"][name]
        assert found["auroc"] > 0.75, (name, found)
        assert found["ci"][0] > 0.55
