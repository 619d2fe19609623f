from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.evaluation.bootstrap import (
    Bootstrap,
    delong,
    delong_test,
    macro_mean,
    mean_over_drawn_runs,
    paired_bootstrap,
    patient_weights,
)

# Albumin, total protein, K-G score (taken as 10 − score) and outcome of the 43 complete patients of DeLong, DeLong &
# Clarke-Pearson (1988), as printed in the SAS/STAT User's Guide, LOGISTIC, "Comparing ROC Curves".
OVARIAN = """3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0
4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1
3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1
2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1"""


def test_delong_equals_its_published_example() -> None:
    """Areas, standard errors, contrasts and chi-square as SAS prints them for these data."""
    albumin, protein, score, outcome = np.array(OVARIAN.split(), float).reshape(-1, 4).T
    tests = np.stack([albumin, 10 - score, protein])
    areas, covariance = delong(outcome, tests)
    np.testing.assert_allclose(areas, [0.7366, 0.7258, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0927, 0.1028, 0.1000], atol=5e-5)
    first = delong_test(outcome, albumin, 10 - score)
    assert first.difference == pytest.approx(0.0108, abs=5e-5)
    assert first.ci == pytest.approx((-0.1761, 0.1976), abs=5e-5)
    assert first.p == pytest.approx(0.9102, abs=5e-5)
    second = delong_test(outcome, protein, 10 - score)
    assert second.difference == pytest.approx(-0.0780, abs=5e-5)
    assert second.ci == pytest.approx((-0.2830, 0.1271), abs=5e-5)
    assert second.p == pytest.approx(0.4561, abs=5e-5)
    contrast = np.array([[1, -1, 0], [0, -1, 1]])
    difference = contrast @ areas
    chi_square = difference @ np.linalg.solve(contrast @ covariance @ contrast.T, difference)
    assert chi_square == pytest.approx(2.5340, abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(2, 15), st.integers(2, 15), st.sampled_from([3, 1000]))
def test_fast_delong_equals_all_pairs(seed: int, n_pos: int, n_neg: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([1, 0], [n_pos, n_neg]))
    s = rng.integers(0, levels, (2, len(y))).astype(float)
    x, z = s[:, y == 1], s[:, y == 0]
    wins = (x[:, :, None] > z[:, None, :]) + 0.5 * (x[:, :, None] == z[:, None, :])
    expected = np.cov(wins.mean(axis=2)) / n_pos + np.cov(wins.mean(axis=1)) / n_neg
    areas, covariance = delong(y, s)
    np.testing.assert_allclose(areas, wins.mean(axis=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


def test_delong_where_nothing_can_be_said() -> None:
    y, s = np.array([1, 1, 0, 0, 1]), np.array([0.3, 0.8, 0.5, 0.1, 0.9])
    same = delong_test(y, s, 2 * s + 1)
    assert (same.difference, same.ci, same.p, same.z) == (0, None, None, None)
    one_positive = delong_test(np.array([1, 0, 0, 0]), np.arange(4.0), -np.arange(4.0))
    assert (one_positive.a, one_positive.b, one_positive.difference, one_positive.p) == (0, 1, -1, None)
    none = delong_test(np.zeros(4), np.arange(4.0), np.arange(4.0))
    assert (none.a, none.difference, none.p) == (None, None, None)
    with pytest.raises(ValueError, match="finite"):
        delong_test(y, s, np.array([0.1, np.nan, 0.2, 0.3, 0.4]))


def test_delong_rejects_at_its_level_when_models_are_equal() -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [60, 40])
    p = [delong_test(y, y + rng.normal(size=100), y + rng.normal(size=100)).p for _ in range(300)]
    assert 0.02 <= np.mean(np.array(p, float) < 0.05) <= 0.09


def test_paired_bootstrap_agrees_with_delong_on_independent_records() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1], [300, 150])
    shared = rng.normal(size=450)
    a, b = y + shared + 0.4 * rng.normal(size=450), 0.8 * y + shared + 0.4 * rng.normal(size=450)
    exact = delong_test(y, a, b)
    drawn = paired_bootstrap(["x"], y[:, None], a[:, None], b[:, None], np.arange(450), draws=2000)
    assert exact.ci is not None
    assert drawn.macro.difference == pytest.approx(exact.difference)
    assert drawn.macro.ci == pytest.approx(exact.ci, abs=0.006)
    assert drawn.macro.p is not None
    assert (drawn.macro.p < 0.05) == (exact.p is not None and exact.p < 0.05)


def test_paired_bootstrap_draws_patients_not_records() -> None:
    """Every record ten times under the same patient says no more than once."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 60)
    a, b = y + rng.normal(size=60), rng.normal(size=60)
    once = paired_bootstrap(["x"], y[:, None], a[:, None], b[:, None], np.arange(60), draws=500).macro
    ten = [np.repeat(x, 10)[:, None] for x in (y, a, b)]
    repeated = paired_bootstrap(["x"], *ten, np.repeat(np.arange(60), 10), draws=500).macro
    assert once.ci is not None
    assert repeated.ci is not None
    assert repeated.ci == pytest.approx(once.ci, abs=0.05)
    assert repeated.ci[1] - repeated.ci[0] > 0.8 * (once.ci[1] - once.ci[0])


def test_paired_bootstrap_leaves_undefined_classes_out() -> None:
    rng = np.random.default_rng(3)
    labels = np.stack([rng.integers(0, 2, 40), np.zeros(40, int)], axis=1)
    a, b = rng.normal(size=(2, 40, 2))
    result = paired_bootstrap(["x", "none"], labels, a, b, np.arange(40), draws=100)
    assert result.classes["none"].difference is None
    assert result.macro.difference == result.classes["x"].difference
    same = paired_bootstrap(["x", "none"], labels, a, a, np.arange(40), draws=100)
    assert (same.macro.difference, same.macro.p, same.macro.p_is_bound) == (0, 1.0, False)
    apart = paired_bootstrap(["x"], labels[:, :1], labels[:, :1], -labels[:, :1], np.arange(40), draws=99)
    assert (apart.macro.p, apart.macro.p_is_bound) == (0.02, True)
    with pytest.raises(ValueError, match="same records"):
        paired_bootstrap(["x", "none"], labels, a, b[:39], np.arange(40))


def test_records_of_a_patient_are_drawn_together() -> None:
    subjects = np.array(["a", "b", "a", "c", "c", "c"])
    w = patient_weights(subjects, 50, seed=3)
    assert (w[:, 0] == w[:, 2]).all()
    assert (w[:, 3] == w[:, 5]).all()
    assert (w[:, 0] + w[:, 1] + w[:, 3] == 3).all()
    assert w.std() > 0


def test_sums_are_those_of_the_drawn_records() -> None:
    rng = np.random.default_rng(0)
    groups = np.r_[np.arange(9), rng.integers(0, 9, 11)]
    values = rng.normal(size=(20, 3))
    drawn = patient_weights(groups, 150, seed=4)  # one digit each, so that their order as texts is theirs
    np.testing.assert_allclose(Bootstrap(groups, 150, seed=4).sums(values), drawn @ values, atol=1e-9)


def test_runs_are_drawn_with_the_patients() -> None:
    values = np.array([[0.0, 0.0, 5.0], [1.0, 1.0, 5.0]])
    drawn = mean_over_drawn_runs(np.tile(values, 200), seed=1)
    assert drawn.shape == (600,)
    assert set(drawn.tolist()) == {0.0, 0.5, 1.0, 5.0}
    assert (drawn[2::3] == 5).all()
    assert np.mean(drawn[::3]) == pytest.approx(0.5, abs=0.1)


def test_a_draw_leaves_undefined_classes_out_of_its_mean() -> None:
    drawn = np.array([[0.5, np.nan, np.nan], [0.7, 0.9, np.nan]])
    np.testing.assert_allclose(macro_mean(drawn), [0.6, 0.9, np.nan])
