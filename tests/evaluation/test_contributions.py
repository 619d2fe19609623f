from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.evaluation.contributions import auroc_contributions

# Albumin, total protein, K-G score (taken as 10 − score) and outcome of the 43 complete patients of DeLong, DeLong &
# Clarke-Pearson (1988), as printed in the SAS/STAT User's Guide, LOGISTIC, "Comparing ROC Curves".
OVARIAN = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0
4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1
3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1
2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""


def delong_of(positive: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUROCs of models (m, n) and DeLong's covariance of them, from the contributions of patients of one record."""
    found = [auroc_contributions(positive[:, None], one[:, None], np.arange(len(positive))) for one in scores]
    deviations = np.stack([one.deviations[..., 0] for one in found], axis=1)  # (sides, models, patients)
    n = found[0].patients[:, 0]
    covariance = sum(side @ side.T * k / (k - 1) for side, k in zip(deviations, n, strict=True))
    return np.array([one.values[0, 0] for one in found]), covariance


def test_deviations_give_the_published_example_of_delong() -> None:
    """Areas, standard errors and chi-square as SAS prints them for these data."""
    albumin, protein, score, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    areas, covariance = delong_of(outcome, np.stack([albumin, 10 - score, protein]))
    np.testing.assert_allclose(areas, [0.7366, 0.7258, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0927, 0.1028, 0.1000], atol=5e-5)
    contrast = np.array([[1, -1, 0], [0, -1, 1]])
    difference = contrast @ areas
    np.testing.assert_allclose(difference, [0.0108, -0.0780], atol=5e-5)
    chi_square = difference @ np.linalg.solve(contrast @ covariance @ contrast.T, difference)
    assert chi_square == pytest.approx(2.5340, abs=5e-5)


@settings(max_examples=40)
@given(st.integers(0, 9999), st.integers(2, 15), st.integers(2, 15), st.sampled_from([3, 1000]))
def test_deviations_are_those_of_all_pairs(seed: int, n_pos: int, n_neg: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([1, 0], [n_pos, n_neg]))
    s = rng.integers(0, levels, (2, len(y))).astype(float)
    x, z = s[:, y == 1], s[:, y == 0]
    wins = (x[:, :, None] > z[:, None, :]) + 0.5 * (x[:, :, None] == z[:, None, :])
    expected = np.cov(wins.mean(axis=2)) / n_pos + np.cov(wins.mean(axis=1)) / n_neg
    areas, covariance = delong_of(y, s)
    np.testing.assert_allclose(areas, wins.mean(axis=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)
