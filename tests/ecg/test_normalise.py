from __future__ import annotations

import numpy as np
import pytest

from deri.ecg import normalise
from deri.errors import DeriError


@pytest.fixture
def batch() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=(5, 12, 300)) * rng.uniform(0.1, 8, (5, 12, 1)) + 3).astype(np.float32)


def test_millivolt_removes_the_mean_of_each_lead_and_clips(batch: np.ndarray) -> None:
    before = batch.copy()
    out = normalise(batch)
    expected = np.empty(batch.shape)
    for b in range(5):
        for lead in range(12):
            x = batch[b, lead].astype(float)
            expected[b, lead] = [min(10.0, max(-10.0, value - sum(x) / len(x))) for value in x]
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert np.abs(out).max() == 10  # the case does clip
    assert out.dtype == np.float32
    assert np.array_equal(batch, before)


def test_minmax_is_over_all_leads_of_each_record(batch: np.ndarray) -> None:
    out = normalise(batch, "minmax")
    for b in range(5):
        x = batch[b].astype(float)
        np.testing.assert_allclose(out[b], (x - x.min()) / (x.max() - x.min()), atol=1e-6)
        assert (out[b].min(), out[b].max()) == (0, 1)


@pytest.mark.parametrize("mode", ["millivolt", "minmax"])
def test_a_batch_equals_its_records(batch: np.ndarray, mode: str) -> None:
    out = normalise(batch.reshape(5, 1, 12, 300), mode)
    assert out.shape == (5, 1, 12, 300)
    for b in range(5):
        np.testing.assert_allclose(out[b, 0], normalise(batch[b], mode), atol=1e-6)


def test_flat_record_is_named(batch: np.ndarray) -> None:
    batch[3] = 0.25
    with pytest.raises(DeriError, match="record 3 of the batch"):
        normalise(batch, "minmax")
    with pytest.raises(DeriError, match="flat record:"):
        normalise(batch[3], "minmax")
    assert np.array_equal(normalise(batch[3]), np.zeros((12, 300), dtype=np.float32))


@pytest.mark.parametrize("mode", ["millivolt", "minmax"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(batch: np.ndarray, mode: str, value: float) -> None:
    batch[2, 4, 17] = value
    with pytest.raises(DeriError, match="not finite"):
        normalise(batch, mode)


def test_unknown_mode(batch: np.ndarray) -> None:
    with pytest.raises(DeriError, match="zscore"):
        normalise(batch, "zscore")


def test_missing_leads_take_no_part_in_minmax_and_stay_zero(batch: np.ndarray) -> None:
    mask = np.ones((5, 12), bool)
    mask[1, [0, 4]] = mask[3, 1:] = False
    zeroed = np.where(mask[..., None], batch, 0).astype(np.float32)
    out = normalise(zeroed, "minmax", mask)
    for b in range(5):
        there = batch[b, mask[b]].astype(float)
        np.testing.assert_allclose(out[b, mask[b]], (there - there.min()) / (there.max() - there.min()), atol=1e-5)
        assert not out[b, ~mask[b]].any()
    np.testing.assert_array_equal(out[[0, 2, 4]], normalise(batch, "minmax")[[0, 2, 4]])
    np.testing.assert_array_equal(normalise(batch, "minmax", np.ones((5, 12), bool)), normalise(batch, "minmax"))
    np.testing.assert_array_equal(normalise(zeroed, "millivolt", mask), normalise(zeroed))
    assert not normalise(zeroed)[~mask].any()
    np.testing.assert_array_equal(normalise(zeroed[3], "minmax", mask[3]), out[3])
    with pytest.raises(DeriError, match="flat record"):
        normalise(np.where(mask[..., None], np.float32(2), 0), "minmax", mask)


def test_millivolt_takes_the_mean_over_real_samples() -> None:
    """A short recording with an offset must not keep a step where its padding begins."""
    rng = np.random.default_rng(3)
    batch = rng.normal(size=(3, 12, 300)).astype(np.float32) + 2
    valid = np.array([300, 120, 7])
    for row, n in enumerate(valid):
        batch[row, :, n:] = 0
    out = normalise(batch, "millivolt", valid_samples=valid)
    for row, n in enumerate(valid):
        expected = batch[row, :, :n] - batch[row, :, :n].astype(float).mean(axis=1, keepdims=True)
        np.testing.assert_allclose(out[row, :, :n], expected, atol=1e-5)
        assert not out[row, :, n:].any()
    np.testing.assert_array_equal(out[0], normalise(batch[0]))
