from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.ecg.beats import find_beats
from deri.errors import DeriError
from deri.models.backbones import BACKBONES
from deri.models.beats import MedianBeat, _sorted
from deri.recipes import schema
from support import tiny

FS = 250.0


def recording(times: np.ndarray, *, seconds: float = 10.0, noise: float = 0.0) -> np.ndarray:
    """P, QRS and T as Gaussian waves at known times, of another size in each lead: (12, n) mV."""
    t = np.arange(round(FS * seconds)) / FS
    wave = lambda at, size, width: size * np.exp(-0.5 * ((t - at) / width) ** 2)  # noqa: E731
    beat = sum(wave(at, 1.0, 0.012) + wave(at - 0.16, 0.1, 0.02) + wave(at + 0.25, 0.3, 0.04) for at in times)
    signal = np.outer(np.linspace(-1.0, 2.0, 12), beat)
    return (signal + noise * np.random.default_rng(0).normal(size=signal.shape)).astype(np.float32)


@given(n=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_network_sorts(n: int, seed: int) -> None:
    values = torch.randn(n, 7, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(torch.stack(_sorted(list(values))), values.sort(dim=0).values)


@settings(max_examples=20)
@given(seed=st.integers(0, 999))
def test_beats_lie_where_the_measurements_find_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.6, 1.2, 12))
    signal = recording(times[times < 9.5], noise=0.01)
    found = MedianBeat(FS).positions(torch.from_numpy(signal)[None])[0]
    expected = find_beats(signal, FS)
    whole = expected[(expected >= round(0.35 * FS)) & (expected + round(0.45 * FS) <= signal.shape[1])]
    assert (found >= 0).sum() == len(whole)
    np.testing.assert_allclose(found[found >= 0].numpy(), whole, atol=4)
    # Noise hardly moves them against the true times, so that the median is not blurred.
    from_true = [float(at) / FS - times[np.abs(times - float(at) / FS).argmin()] for at in found[found >= 0]]
    assert np.ptp(from_true) <= 4 / FS


def test_the_median_beat_is_that_of_numpy_and_noise_goes_away() -> None:
    module = MedianBeat(FS)
    times = np.arange(0.7, 9.4, 0.8)
    noisy = recording(times, noise=0.05)
    middle = module(torch.from_numpy(noisy)[None])[0].numpy()
    at = module.positions(torch.from_numpy(noisy)[None])[0]
    cut = np.stack([noisy[:, p - module.first : p - module.first + module.samples] for p in at[at >= 0].numpy()])
    lower = np.sort(cut, axis=0)[(len(cut) - 1) // 2]
    np.testing.assert_array_equal(middle, lower)
    clean = module(torch.from_numpy(recording(times))[None])[0].numpy()
    assert np.abs(middle - clean).std() < 0.5 * np.abs(noisy - recording(times)).std()


def test_no_beats_and_too_short_inputs_give_zeros() -> None:
    module = MedianBeat(FS)
    assert not module(torch.zeros(2, 12, 2500)).any()
    assert module(torch.ones(1, 12, 100)).shape == (1, 12, module.samples)


def test_one_wide_beat_among_many_does_not_show_in_the_median() -> None:
    times = np.arange(0.7, 9.4, 0.8)
    plain = recording(times)
    odd = plain.copy()
    t = np.arange(2500) / FS
    odd += np.float32(2.0) * np.exp(-0.5 * ((t - times[4] - 0.3) / 0.05) ** 2).astype(np.float32)
    module = MedianBeat(FS)
    one, two = (module(torch.from_numpy(x)[None]).numpy() for x in (plain, odd))
    np.testing.assert_allclose(one, two, atol=0.05)


def test_tokens_of_the_beat_count_in_padded_recordings_and_a_gradient_reaches_the_input() -> None:
    overrides = ("model.backbone=beat_resnet18", "model.base_width=8", "model.token_stride=1")
    model = tiny.model(*overrides, "model.signal.fs=250", "model.signal.samples=2500").eval()
    leading = model.backbone.leading
    mask = model.token_mask(torch.tensor([2500, 480]), 2500)
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [leading + 27, leading + 5]
    ecg = torch.from_numpy(recording(np.arange(0.7, 9.4, 0.8)))[None].requires_grad_()
    assert model.ecg_tokens(ecg).shape[1] == model.n_tokens(2500) == leading + 27
    model.ecg_embedding(ecg).sum().backward()
    assert ecg.grad is not None
    assert ecg.grad.abs().sum() > 0


def test_the_depth_is_that_of_the_resnet() -> None:
    make = lambda name: BACKBONES[name](schema.Model(backbone=name, base_width=4))  # noqa: E731
    assert len(list(make("beat_resnet18").blocks)) == 8
    assert len(list(make("beat_resnet34").blocks)) == 16
    before, behind = make("beat_resnet18").ends()
    assert len(before) == 3
    assert len(behind) == 1


def test_a_stride_would_skip_tokens_of_the_beat() -> None:
    with pytest.raises(DeriError, match=r"set model\.token_stride=1"):
        tiny.model("model.backbone=beat_resnet18", "model.token_stride=2")
