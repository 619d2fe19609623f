from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from deri.evaluation.metrics import accuracy, auroc, aurocs, average_precision, best_threshold
from deri.evaluation.metrics import f1_score as f1_at

labelled = st.integers(0, 10_000).flatmap(
    lambda seed: st.tuples(st.just(seed), st.integers(2, 60), st.sampled_from([2, 5, 1000]))
)


def draw(seed: int, n: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n), rng.integers(0, levels, n) / levels


@settings(max_examples=80)
@given(labelled)
def test_auroc_equals_sklearn_and_is_nan_where_undefined(case: tuple[int, int, int]) -> None:
    y, s = draw(*case)
    value = auroc(y, s)
    if 0 < y.sum() < len(y):
        assert value == pytest.approx(roc_auc_score(y, s))
    else:
        assert np.isnan(value)


@settings(max_examples=60)
@given(labelled)
def test_average_precision_equals_sklearn_and_is_nan_without_positives(case: tuple[int, int, int]) -> None:
    y, s = draw(*case)
    value = average_precision(y, s)
    if y.any():
        assert value == pytest.approx(average_precision_score(y, s))
    else:
        assert np.isnan(value)


def test_many_columns_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(4)
    y, s = rng.integers(0, 2, (50, 6)), rng.integers(0, 7, (50, 6))
    y[:, 1], y[:, 4] = 0, 1
    expected = [auroc(y[:, c], s[:, c]) for c in range(6)]
    np.testing.assert_allclose(aurocs(y, s), expected, equal_nan=True)
    assert np.isnan(expected[1])
    assert np.isnan(expected[4])
    assert np.isnan(aurocs(np.zeros((0, 2)), np.zeros((0, 2)))).all()
    assert np.isnan(aurocs(np.ones((1, 1)), np.ones((1, 1)))).all()  # a batch of one


@settings(max_examples=60)
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
    f1 = f1_at(y, s, threshold)
    assert f1 == pytest.approx(best)
    assert f1 == pytest.approx(f1_score(y, s >= threshold))
    assert accuracy(y, s, threshold) == pytest.approx(accuracy_score(y, s >= threshold))
