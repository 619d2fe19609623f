from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deri.evaluation.intervals import METHOD
from deri.evaluation.metrics import METRICS
from deri.evaluation.options import EvalOptions
from deri.evaluation.result import Result, evaluate


def scored(
    names: list[str],
    labels: np.ndarray,
    scores: np.ndarray,
    subjects: np.ndarray,
    thresholds: list[Any] | None = None,
    **more: Any,
) -> Result:
    """One run (n, classes) with its thresholds, or several."""
    options = {key: more.pop(key) for key in ("draws", "min_pos", "seed") if key in more}
    if scores.ndim == 2:
        scores, thresholds = scores[None], thresholds and [thresholds]
    return evaluate(
        scores, labels, subjects, EvalOptions(**{"seed": 0, **options}), classes=names, thresholds=thresholds, **more
    )


def test_undefined_classes_are_null_and_left_out_of_the_mean() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3], [0.8, 0.3, 0.4], [0.2, 0.1, 0.1]])
    result = scored(["a", "none", "all"], labels, scores, np.arange(4), thresholds=[0.5, 0.5, 0.0], draws=200)
    assert result.classes["a"].metrics["auroc"] == 1.0
    low, high = result.classes["a"].ci or (1.0, 0.0)
    assert (low < 0.6, high) == (True, 1.0)  # two of two: next to nothing is known
    assert (
        result.classes["none"].metrics["auroc"],
        result.classes["none"].metrics["f1"],
        result.classes["none"].n_pos,
    ) == (None, None, 0)
    assert (result.classes["all"].metrics["auroc"], result.classes["all"].metrics["f1"]) == (None, 1.0)
    assert result.means["auroc"] == 1.0
    assert result.means["f1"] == 1.0


def test_no_class_defined_at_all() -> None:
    result = scored(["a"], np.zeros((3, 1), int), np.zeros((3, 1)), np.arange(3))
    assert (result.means["auroc"], result.macro_ci, result.means["f1"], result.means["accuracy"]) == (
        None,
        None,
        None,
        None,
    )
    one = scored(["a"], np.ones((1, 1), int), np.zeros((1, 1)), np.arange(1), thresholds=[0.0])
    assert one.classes["a"].metrics["auroc"] is None


def test_classes_with_few_positives_are_marked_and_shown_apart() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((100, 3), int)
    labels[:30, 0], labels[:9, 1] = 1, 1
    scores = labels + rng.normal(size=labels.shape)
    result = scored(["many", "few", "none"], labels, scores, np.arange(100), draws=100)
    assert [c.few_positives for c in result.classes.values()] == [False, True, True]
    assert result.means["auroc"] == pytest.approx(roc_auc_score(labels[:, :2], scores[:, :2]))
    assert result.reliable_auroc == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]))
    np.testing.assert_allclose(result.reliable_ci, result.classes["many"].ci, atol=0.01)
    assert result.to_json()["ci_method"] == METHOD
    lenient = scored(["many", "few", "none"], labels, scores, np.arange(100), draws=0, min_pos=9)
    assert not lenient.classes["few"].few_positives
    assert lenient.reliable_auroc == lenient.means["auroc"]
    assert lenient.macro_ci is None
    none = scored(["a"], labels[:, 1:2], scores[:, 1:2], np.arange(100), draws=0)
    assert (none.reliable_auroc, none.reliable_ci) == (None, None)


def test_runs_are_averaged_figure_by_figure() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 2))
    scores = labels + rng.normal(size=(3, 80, 2)) * np.array([0.5, 1, 2])[:, None, None]
    cuts = [[0.5, 0.4], [0.3, 0.6], [0.1, 0.5]]
    names = ["a", "b"]
    together = scored(names, labels, scores, np.arange(80), thresholds=cuts, draws=200)
    alone = [
        scored(names, labels, s, np.arange(80), thresholds=t, draws=200) for s, t in zip(scores, cuts, strict=True)
    ]
    assert together.runs == tuple(one.means["auroc"] for one in alone)
    for name in ("auroc", "f1", "accuracy", "auprc"):
        assert together.means[name] == pytest.approx(np.mean([one.means[name] for one in alone]))
    assert together.classes["a"].threshold is None  # one for each run
    assert together.macro_ci is not None
    assert together.means["auroc"] is not None
    assert together.macro_ci[0] < together.means["auroc"] < together.macro_ci[1]
    # The mean over runs cannot be wider than the runs are on average (standard deviations are subadditive).
    widths = [one.macro_ci[1] - one.macro_ci[0] for one in alone if one.macro_ci]
    assert together.macro_ci[1] - together.macro_ci[0] < 1.1 * np.mean(widths)


def test_calibration_only_of_probabilities() -> None:
    labels, scores = np.array([[1], [0], [0], [1]]), np.array([[0.9], [0.2], [0.1], [0.6]])
    cosines = scored(["a"], labels, scores, np.arange(4), thresholds=[0.5], draws=0)
    assert cosines.calibration is None
    assert cosines.classes["a"].metrics["ece"] is None
    result = scored(["a"], labels, scores, np.arange(4), thresholds=[0.5], draws=0, probabilities=True)
    assert result.classes["a"].metrics["ece"] == pytest.approx((0.1 + 0.2 + 0.1 + 0.4) / 4)
    assert result.calibration is not None
    assert result.calibration["macro_ece"] == result.calibration["pooled_ece"] == result.classes["a"].metrics["ece"]


def test_scores_that_are_not_finite_are_refused_by_name() -> None:
    scores = np.array([[0.1, np.nan], [0.2, 0.3]])
    with pytest.raises(ValueError, match="PVC"):
        scored(["SR", "PVC"], np.eye(2, dtype=int), scores, np.arange(2))


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """For two unit normals one apart the AUROC is Φ(1/√2) = 0.760."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        y = np.repeat([0, 1], 60)
        s = rng.normal(size=120) + y
        ci = scored(["a"], y[:, None], s[:, None], np.arange(120), draws=300, seed=trial).macro_ci
        assert ci is not None
        covered += ci[0] <= 0.760 <= ci[1]
    assert 53 <= covered <= 60


def test_a_class_of_one_positive_has_no_interval_and_a_note() -> None:
    labels = np.zeros((40, 2), int)
    labels[:1, 0], labels[:8, 1] = 1, 1
    scores = labels + np.random.default_rng(0).normal(size=labels.shape)
    result = scored(["one", "eight"], labels, scores, np.arange(40))
    assert result.classes["one"].metrics["auroc"] is not None
    assert result.classes["one"].ci is None
    assert result.classes["eight"].ci is not None
    assert result.macro_ci is not None
    assert "no interval (fewer than 2 patients with a positive or with a negative): one" in result.notes()


def test_a_metric_of_another_package_is_in_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METRICS, "_rows", dict(METRICS._rows))

    @METRICS.register("brier")
    def brier(positive: np.ndarray, probability: np.ndarray) -> float:
        return float(((probability - positive) ** 2).mean())

    @METRICS.register("sensitivity")
    def sensitivity(positive: np.ndarray, score: np.ndarray, threshold: float) -> float | None:
        return float((score[positive == 1] >= threshold).mean()) if positive.any() else None

    labels, scores = np.array([[1, 0], [0, 0], [1, 0]]), np.array([[0.9, 0.5], [0.2, 0.1], [0.4, 0.1]])
    result = scored(["a", "none"], labels, scores, np.arange(3), [0.5, 0.5], draws=0, probabilities=True).to_json()
    assert result["classes"]["a"]["brier"] == pytest.approx((0.01 + 0.04 + 0.36) / 3)
    assert result["macro_brier"] == result["classes"]["a"]["brier"]
    assert result["classes"]["a"]["sensitivity"] == result["macro_sensitivity"] == 0.5
    assert result["classes"]["none"]["sensitivity"] is None
    cosines = scored(["a", "none"], labels, scores, np.arange(3), draws=0).to_json()
    assert cosines["ci_method"] is None
    assert cosines["macro_brier"] is cosines["macro_sensitivity"] is None


def test_means_are_over_the_classes_of_the_macro_auroc() -> None:
    """A class without positives has an accuracy, and one without negatives an F1: neither enters a mean."""
    labels = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 1]])
    scores = np.array([[0.9, 0.1, 0.9, 0.2], [0.8, 0.1, 0.9, 0.3], [0.4, 0.1, 0.9, 0.1]])
    result = scored(["a", "none", "all", "no cut"], labels, scores, np.arange(3), [0.5, 0.5, 0.5, None], draws=0)
    content = result.to_json()
    assert content["classes"]["none"]["accuracy"] == content["classes"]["all"]["f1"] == 1
    assert content["macro_f1"] == content["classes"]["a"]["f1"] == 0.5
    assert content["accuracy"] == content["classes"]["a"]["accuracy"] == pytest.approx(1 / 3)
    assert content["n_classes_averaged"] == {"auprc": 2, "f1": 1, "accuracy": 1}


def test_unlearned_classes_have_counts_and_no_figures() -> None:
    labels, scores = np.array([[1, 1], [0, 0], [1, 0]]), np.array([[0.9, 0.5], [0.2, 0.1], [0.4, 0.1]])
    result = scored(["a", "b"], labels, scores, np.arange(3), [0.5, 0.5], draws=20, unlearned=["b"])
    content = result.to_json()
    assert content["classes"]["b"] == dict.fromkeys(content["classes"]["a"]) | {"n_pos": 1, "few_positives": True}
    assert content["macro_auroc"]["value"] == content["classes"]["a"]["auroc"] == 1
    assert (content["n_classes"], content["n_classes_scored"]) == (2, 1)
    assert any("no positives or no negatives to train on in some fold): b" in note for note in result.notes())
