from __future__ import annotations

import numpy as np

from deri.evaluation.bootstrap import Bootstrap


def test_records_of_a_patient_are_drawn_together() -> None:
    w = Bootstrap(np.array([0, 1, 0, 2, 2, 2]), 150, seed=3).sums(np.eye(6))
    assert w.shape == (150, 6)
    assert (w[:, 0] == w[:, 2]).all()
    assert (w[:, 3] == w[:, 5]).all()
    assert (w[:, 0] + w[:, 1] + w[:, 3] == 3).all()
    assert w.std() > 0


def test_sums_are_those_of_the_drawn_records() -> None:
    rng = np.random.default_rng(0)
    groups = np.r_[np.arange(9), rng.integers(0, 9, 11)]
    values = rng.normal(size=(20, 3))
    bootstrap = Bootstrap(groups, 150, seed=4)
    np.testing.assert_allclose(bootstrap.sums(values), bootstrap.sums(np.eye(20)) @ values, atol=1e-9)
    even = np.random.default_rng(4).multinomial(9, [1 / 9] * 9, size=150)  # all draws at once
    np.testing.assert_array_equal(bootstrap.sums(np.eye(20)), even[:, groups])
