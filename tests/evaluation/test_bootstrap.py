from __future__ import annotations

import numpy as np
import pytest

from deri.evaluation.bootstrap import drawn_sums, macro_mean, mean_over_drawn_runs, patient_weights


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
    np.testing.assert_allclose(drawn_sums(values, groups, 150, seed=4), drawn @ values, atol=1e-9)


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
