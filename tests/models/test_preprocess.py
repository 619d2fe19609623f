from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from deri.ecg import LEADS, MIMIC_LEADS
from deri.ecg.standardise import resample
from deri.models.preprocess import Preprocess, decimate
from deri.recipes import Signal


@pytest.mark.parametrize("factor", [2, 5])
@pytest.mark.parametrize("n", [40, 333, 5000, 5001])
def test_decimate_equals_the_polyphase_resampler(factor: int, n: int) -> None:
    x = np.random.default_rng(n).normal(size=(3, 12, n)).cumsum(axis=-1).astype(np.float32)
    np.testing.assert_allclose(decimate(x, factor), resample(x, Fraction(1, factor)), atol=2e-4)


def test_lead_order_of_mimic() -> None:
    x = np.arange(12, dtype=np.float32)[None, :, None] + np.sin(np.arange(5000, dtype=np.float32))
    out, valid = Preprocess(Signal(lead_order="mimic", normalise="minmax"))(x, 500.0)
    assert valid is None
    order = [LEADS[round(v)] for v in (out[0].mean(dim=1) * (11 + 2) - 1).tolist()]
    assert tuple(order) == MIMIC_LEADS
    assert float(out.min()) == 0
    assert float(out.max()) == 1


def test_crop_pad_and_valid_samples() -> None:
    x = np.random.default_rng(0).normal(size=(2, 12, 5000)).astype(np.float32)
    config = Signal(fs=100, samples=1000)
    ecg, valid = Preprocess(config)(x, 500.0, np.array([5000, 2503]))
    assert ecg.shape == (2, 12, 1000)
    assert ecg.dtype == torch.float32
    assert valid is not None
    assert valid.tolist() == [1000, 501]
    short, valid = Preprocess(Signal(samples=6000))(x, 500.0)
    assert short.shape == (2, 12, 6000)
    assert valid is not None
    assert valid.tolist() == [5000, 5000]
    cropped, _ = Preprocess(Signal(samples=1000))(x, 500.0)
    np.testing.assert_allclose(cropped.numpy(), x[..., :1000] - x[..., :1000].mean(axis=-1, keepdims=True), atol=1e-5)


def test_the_lead_mask_follows_the_lead_order() -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(2, 12, 1000)) + 5).astype(np.float32)
    mask = np.ones((2, 12), bool)
    mask[0, [LEADS.index("aVL"), LEADS.index("V2")]] = False
    x[~mask] = 0
    for order, names in (("canonical", LEADS), ("mimic", MIMIC_LEADS)):
        signal = Signal(lead_order=order, normalise="minmax", samples=1000)
        out, _ = Preprocess(signal)(x, 500.0, None, mask)
        assert not out[0, [names.index("aVL"), names.index("V2")]].any()
        assert float(out[0].max()) == 1
        # Without the mask the zeros would count as the smallest value, and every other one would lie far above it.
        assert float(out[0, names.index("V1")].mean()) < 0.7
        np.testing.assert_array_equal(out[1], Preprocess(signal)(x, 500.0)[0][1])


@pytest.mark.parametrize("mode", ["millivolt", "minmax"])
@pytest.mark.parametrize("fs", [100.0, 500.0])
def test_a_masked_lead_is_one_that_is_not_there(mode: str, fs: float) -> None:
    """Whatever the masked rows hold."""
    x = np.random.default_rng(2).normal(size=(2, 12, 1000)).astype(np.float32)
    mask = np.ones((2, 12), bool)
    mask[0, 3:] = False
    really = np.where(mask[..., None], x, np.float32(0))
    preprocess = Preprocess(Signal(fs=100, samples=200, normalise=mode))
    masked, expected = (preprocess(signals, fs, None, mask)[0].numpy() for signals in (x, really))
    np.testing.assert_array_equal(masked, expected)
    assert not masked[0, 3:].any()
    assert masked[1].any(axis=1).all()
