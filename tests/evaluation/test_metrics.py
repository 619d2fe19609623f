from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from deri.evaluation.metrics import (
    auroc,
    aurocs,
    average_precision,
    best_threshold,
    f1_and_accuracy,
    patient_weights,
    score_classes,
    score_runs,
)

labelled = st.integers(0, 10_000).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(2, 60), st.sampled_from([2, 5, 1000]))
)


def draw(seed: int, n: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n), rng.integers(0, levels, n) / levels


@settings(max_examples=80, deadline=None)
@given(labelled)
def test_auroc_equals_sklearn_and_is_nan_where_undefined(case: tuple[int, int, int]) -> None:
    y, s = draw(*case)
    value = auroc(y, s)[0]
    if 0 < y.sum() < len(y):
        assert value == pytest.approx(roc_auc_score(y, s))
    else:
        assert np.isnan(value)


@settings(max_examples=60, deadline=None)
@given(labelled)
def test_average_precision_equals_sklearn_and_is_nan_without_positives(case: tuple[int, int, int]) -> None:
    y, s = draw(*case)
    value = average_precision(y, s)[0]
    if y.any():
        assert value == pytest.approx(average_precision_score(y, s))
    else:
        assert np.isnan(value)
    w = np.random.default_rng(case[0]).integers(0, 4, (2, len(y)))
    for weighted, counts in zip(average_precision(y, s, w), w, strict=True):
        repeated = np.repeat(y, counts)
        if repeated.any():
            assert weighted == pytest.approx(average_precision_score(repeated, np.repeat(s, counts)))
        else:
            assert np.isnan(weighted)


def test_many_columns_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(4)
    y, s = rng.integers(0, 2, (50, 6)), rng.integers(0, 7, (50, 6))
    y[:, 1], y[:, 4] = 0, 1
    expected = [auroc(y[:, c], s[:, c])[0] for c in range(6)]
    np.testing.assert_allclose(aurocs(y, s), expected, equal_nan=True)
    assert np.isnan(expected[1])
    assert np.isnan(expected[4])
    assert np.isnan(aurocs(np.zeros((0, 2)), np.zeros((0, 2)))).all()
    assert np.isnan(aurocs(np.ones((1, 1)), np.ones((1, 1)))).all()  # a batch of one


@settings(max_examples=40, deadline=None)
@given(labelled)
def test_weights_mean_repeated_records(case: tuple[int, int, int]) -> None:
    y, s = draw(*case)
    w = np.random.default_rng(case[0]).integers(0, 4, (3, len(y)))
    for value, counts in zip(auroc(y, s, w), w, strict=True):
        repeated = np.repeat(y, counts)
        if 0 < repeated.sum() < len(repeated):
            assert value == pytest.approx(roc_auc_score(repeated, np.repeat(s, counts)))
        else:
            assert np.isnan(value)


@settings(max_examples=60, deadline=None)
@given(labelled)
def test_best_threshold_reaches_the_best_f1_of_sklearn(case: tuple[int, int, int]) -> None:
    y, s = draw(*case)
    threshold = best_threshold(y, s)
    if not y.any():
        assert threshold is None
        return
    assert threshold is not None
    precision, recall, _ = precision_recall_curve(y, s)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    f1, accuracy = f1_and_accuracy(y, s, threshold)
    assert f1 == pytest.approx(best)
    assert f1 == pytest.approx(f1_score(y, s >= threshold))
    assert accuracy == pytest.approx(accuracy_score(y, s >= threshold))


def test_records_of_a_patient_are_drawn_together() -> None:
    subjects = np.array(["a", "b", "a", "c", "c", "c"])
    w = patient_weights(subjects, 50, seed=3)
    assert (w[:, 0] == w[:, 2]).all()
    assert (w[:, 3] == w[:, 5]).all()
    assert (w[:, 0] + w[:, 1] + w[:, 3] == 3).all()
    assert w.std() > 0


def test_undefined_classes_are_null_and_left_out_of_the_mean() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.2], [0.1, 0.2, 0.3], [0.8, 0.3, 0.4], [0.2, 0.1, 0.1]])
    result = score_classes(["a", "none", "all"], labels, scores, np.arange(4), thresholds=[0.5, 0.5, 0.0], draws=200)
    assert result.classes["a"].auroc == 1.0
    assert result.classes["a"].ci == (1.0, 1.0)
    assert (result.classes["none"].auroc, result.classes["none"].f1, result.classes["none"].n_pos) == (None, None, 0)
    assert (result.classes["all"].auroc, result.classes["all"].f1) == (None, 1.0)
    assert result.macro_auroc == 1.0
    assert result.macro_f1 == 1.0


def test_no_class_defined_at_all() -> None:
    result = score_classes(["a"], np.zeros((3, 1), int), np.zeros((3, 1)), np.arange(3), thresholds=[None])
    assert (result.macro_auroc, result.macro_ci, result.macro_f1, result.accuracy) == (None, None, None, None)
    one = score_classes(["a"], np.ones((1, 1), int), np.zeros((1, 1)), np.arange(1), thresholds=[0.0])
    assert one.classes["a"].auroc is None


def test_classes_with_few_positives_are_marked_and_shown_apart() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((100, 3), int)
    labels[:30, 0], labels[:9, 1] = 1, 1
    scores = labels + rng.normal(size=labels.shape)
    result = score_classes(["many", "few", "none"], labels, scores, np.arange(100), thresholds=[None] * 3, draws=100)
    assert [c.few_positives for c in result.classes.values()] == [False, True, True]
    assert result.macro_auroc == pytest.approx(roc_auc_score(labels[:, :2], scores[:, :2]))
    assert result.reliable_auroc == pytest.approx(roc_auc_score(labels[:, 0], scores[:, 0]))
    assert result.reliable_ci == result.classes["many"].ci
    lenient = score_classes(
        ["many", "few", "none"], labels, scores, np.arange(100), thresholds=[None] * 3, draws=0, min_pos=9
    )
    assert not lenient.classes["few"].few_positives
    assert lenient.reliable_auroc == lenient.macro_auroc
    assert lenient.macro_ci is None
    none = score_classes(["a"], labels[:, 1:2], scores[:, 1:2], np.arange(100), thresholds=[None], draws=0)
    assert (none.reliable_auroc, none.reliable_ci) == (None, None)


def test_runs_are_averaged_figure_by_figure() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (80, 2))
    scores = labels + rng.normal(size=(3, 80, 2)) * np.array([0.5, 1, 2])[:, None, None]
    cuts = [[0.5, 0.4], [0.3, 0.6], [0.1, 0.5]]
    names = ["a", "b"]
    together = score_runs(names, labels, scores, np.arange(80), thresholds=cuts, draws=200)
    alone = [
        score_classes(names, labels, s, np.arange(80), thresholds=t, draws=200)
        for s, t in zip(scores, cuts, strict=True)
    ]
    assert together.runs == tuple(one.macro_auroc for one in alone)
    for key in ("macro_auroc", "macro_f1", "accuracy", "macro_auprc"):
        assert getattr(together, key) == pytest.approx(np.mean([getattr(one, key) for one in alone]))
    assert together.classes["a"].threshold is None  # one for each run
    assert together.macro_ci is not None
    assert together.macro_auroc is not None
    assert together.macro_ci[0] < together.macro_auroc < together.macro_ci[1]
    # The mean over runs cannot be wider than the runs are on average (standard deviations are subadditive).
    widths = [one.macro_ci[1] - one.macro_ci[0] for one in alone if one.macro_ci]
    assert together.macro_ci[1] - together.macro_ci[0] < 1.1 * np.mean(widths)


def test_calibration_only_of_probabilities() -> None:
    labels, scores = np.array([[1], [0], [0], [1]]), np.array([[0.9], [0.2], [0.1], [0.6]])
    cosines = score_classes(["a"], labels, scores, np.arange(4), thresholds=[0.5], draws=0)
    assert cosines.calibration is None
    assert cosines.classes["a"].ece is None
    result = score_classes(["a"], labels, scores, np.arange(4), thresholds=[0.5], draws=0, probabilities=True)
    assert result.classes["a"].ece == pytest.approx((0.1 + 0.2 + 0.1 + 0.4) / 4)
    assert result.calibration is not None
    assert result.calibration.macro_ece == result.calibration.pooled_ece == result.classes["a"].ece


def test_scores_that_are_not_finite_are_refused_by_name() -> None:
    scores = np.array([[0.1, np.nan], [0.2, 0.3]])
    with pytest.raises(ValueError, match="PVC"):
        score_classes(["SR", "PVC"], np.eye(2, dtype=int), scores, np.arange(2), thresholds=[None, None])


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """For two unit normals one apart the AUROC is Φ(1/√2) = 0.760."""
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        y = np.repeat([0, 1], 60)
        s = rng.normal(size=120) + y
        ci = score_classes(
            ["a"], y[:, None], s[:, None], np.arange(120), thresholds=[None], draws=300, seed=trial
        ).macro_ci
        assert ci is not None
        covered += ci[0] <= 0.760 <= ci[1]
    assert 50 <= covered <= 60
