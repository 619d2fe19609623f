from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.evaluation.calibration import calibrate, expected_calibration_error, reliability


def test_ece_by_hand() -> None:
    """Ten records, 5 bins of 0.2: |0.05 − 0| · 2/10 + |0.3 − 1/3| · 3/10 + |0.9 − 4/5| · 5/10 = 0.01 + 0.01 + 0.05."""
    p = np.array([0.0, 0.1, 0.25, 0.3, 0.35, 0.85, 0.85, 0.9, 0.9, 1.0])
    y = np.array([0, 0, 0, 1, 0, 1, 1, 0, 1, 1])
    assert expected_calibration_error(y, p, bins=5) == pytest.approx(0.07)
    table = reliability(y, p, bins=5)
    assert [row["n"] for row in table] == [2, 3, 0, 0, 5]
    assert table[1]["predicted"] == pytest.approx(0.3)
    assert table[1]["observed"] == pytest.approx(1 / 3)
    assert (table[2]["predicted"], table[2]["observed"]) == (None, None)
    assert (table[4]["lower"], table[4]["upper"]) == (0.8, 1.0)  # 1.0 itself belongs to the last bin


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(1, 80), st.integers(1, 20))
def test_ece_equals_a_loop_over_bins(seed: int, n: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.random(n), rng.integers(0, 2, n)
    expected = 0.0
    for k in range(bins):
        inside = (p >= k / bins) & (p < (k + 1) / bins)
        if inside.any():
            expected += inside.sum() / n * abs(p[inside].mean() - y[inside].mean())
    assert expected_calibration_error(y, p, bins) == pytest.approx(expected)


def test_extremes_of_calibration() -> None:
    y = np.array([0, 1, 1, 0])
    assert expected_calibration_error(y, y.astype(float)) == 0
    assert expected_calibration_error(y, 1.0 - y) == 1
    assert expected_calibration_error(np.zeros(0), np.zeros(0)) is None
    assert expected_calibration_error(np.array([1]), np.array([0.25])) == 0.75


@pytest.mark.parametrize("bad", [np.nan, -0.01, 1.01, np.inf])
def test_what_is_no_probability_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        expected_calibration_error(np.array([0, 1]), np.array([0.5, bad]))


def test_pooled_differs_from_macro() -> None:
    """Errors of two classes cancel in the pool and not in the mean over classes."""
    labels = np.array([[1, 0]] * 10)
    result = calibrate(labels, np.full((10, 2), 0.5))
    assert result["macro_ece"] == 0.5
    assert result["pooled_ece"] == 0
    assert sum(row["n"] for row in result["reliability"]) == 20
