from __future__ import annotations

import numpy as np

from deri.evaluation.bootstrap import Bootstrap, patient_weights


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
