"""Maps learnt from scores and labels: a known truth is found again, and they rise whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from deri.errors import DeriError
from deri.evaluation.calibration import expected_calibration_error
from deri.evaluation.calibration_fit import calibrate_task, fit_maps
from deri.evaluation.features import Features
from deri.evaluation.zero_shot import class_weights, zero_shot_scores
from deri.models.calibration import log_odds
from deri.reports import prompts_for
from deri.store import Store
from support import stores, tiny


def test_a_known_map_is_found_again() -> None:
    """Log odds of 10 s − 3 for one class and of a bent line for another; errors of a few hundredths at n = 20,000."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(-0.2, 0.8, (20_000, 2))
    truth = np.stack([10 * scores[:, 0] - 3, 4 * scores[:, 1] - 2 + 20 * np.maximum(scores[:, 1] - 0.4, 0)], axis=1)
    labels = (rng.random(truth.shape) < expit(truth)).astype(np.uint8)
    for c, (knots, odds) in enumerate(fit_maps(scores, labels)):
        found = expit(np.interp(scores[:, c], knots, odds))
        assert np.abs(found - expit(truth[:, c])).mean() < 0.015
        error = expected_calibration_error(labels[:, c], found)
        assert error is not None
        assert error < 0.02


def test_few_positives_stay_near_the_common_slope() -> None:
    """Ten positives that lie apart from the negatives: alone they would give a slope without end."""
    rng = np.random.default_rng(1)
    scores = rng.normal(0.2, 0.1, (400, 5))
    labels = (rng.random(scores.shape) < expit(12 * scores - 4)).astype(np.uint8)
    scores[:10, 4] += 0.5 - scores[:, 4].min()
    labels[:, 4] = np.arange(400) < 10
    knots, odds = fit_maps(scores, labels)[4]
    assert 4 < (odds[-1] - odds[0]) / (knots[-1] - knots[0]) < 36
    assert odds[-1] < np.log(40)  # of 11 to 1, and a little more


@settings(max_examples=25)
@given(st.integers(0, 9999), st.sampled_from([0.0, 0.001, 0.3]))
def test_maps_rise(seed: int, spread: float) -> None:
    """Also where the labels fall with the score, and where all scores are equal."""
    rng = np.random.default_rng(seed)
    scores = 0.1 + spread * rng.normal(size=(60, 2))
    labels = np.stack([scores[:, 0] <= np.median(scores[:, 0]), rng.random(60) < 0.5], axis=1).astype(np.uint8)
    labels[:2] = [[0, 0], [1, 1]]
    for knots, odds in fit_maps(scores, labels):
        assert (np.diff(knots) > 0).all()
        assert (np.diff(odds) > 0).all()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return stores.simulated_store(tmp_path_factory.mktemp("s"), 120, seed=3)


def test_a_task_of_a_store(store: Store) -> None:
    model = tiny.model()
    features = Features(model, store)
    found = calibrate_task(features, "ptbxl-super", "all")
    names, labels = store.labels("ptbxl-super", store.task_rows("ptbxl-super", "all"))
    assert found.n == len(labels)
    enough = {name for name, n in zip(names, labels.sum(axis=0), strict=True) if 10 <= n <= len(labels) - 10}
    assert set(found.classes) == enough
    assert set(found.too_few) == set(names) - enough
    assert found.store.fingerprint == store.fingerprint
    # The mean probability at the prevalence of the records is that prevalence: the intercept is free.
    name = next(iter(found.classes))
    one = found.classes[name]
    weights = class_weights(model, prompts_for("ptbxl-super", [name]))
    scores = zero_shot_scores(features, store.task_rows("ptbxl-super", "all"), weights)[:, 0]
    share = labels[:, names.index(name)].mean()
    assert one.prevalence == pytest.approx(share)
    assert expit(one.log_ratio(scores) + log_odds(np.array(share))).mean() == pytest.approx(share, abs=1e-3)
    assert one.n_pos == labels[:, names.index(name)].sum()


def test_too_few_positives_are_told(store: Store) -> None:
    few = next(split for split in ("val", "test") if len(store.rows(split)))
    with pytest.raises(DeriError, match=rf"no class has 10 positives and 10 negatives among .* split {few}"):
        calibrate_task(Features(tiny.model(), store), "ptbxl-form", few)
