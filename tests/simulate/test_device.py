"""Recorders: filters by the sine that comes out, limits and steps by the values, mistakes by Einthoven's law."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deri.simulate import Noise, Patient, draw_tracing
from deri.simulate.device import Device, record
from deri.simulate.noise import electrode_noise

FS = 500.0
TIME = np.arange(5000) / FS


def sine(hz: float) -> np.ndarray:
    return np.tile(np.sin(2 * np.pi * hz * TIME), (8, 1)).astype(np.float32)


def passed(device: Device, hz: float) -> float:
    """Share of a sine's amplitude that is left, away from the ends."""
    out = record(device, sine(hz), FS)[0, 1000:4000]
    return float(np.abs(out).max())


@pytest.mark.parametrize("sharp", [True, False])
def test_high_pass(sharp: bool) -> None:
    device = Device(high_pass=0.5, sharp=sharp)
    assert passed(device, 0.1) < 0.25
    assert passed(device, 10) == pytest.approx(1, abs=0.05)


def test_low_pass_and_notch() -> None:
    assert passed(Device(low_pass=40), 40) == pytest.approx(np.sqrt(0.5), abs=0.02)
    assert passed(Device(low_pass=40), 100) < 0.03
    assert passed(Device(low_pass=40), 10) > 0.99
    assert passed(Device(notch=50), 50) < 0.02
    assert passed(Device(notch=50), 40) > 0.97


def test_limit_and_resolution() -> None:
    out = record(Device(limit=0.5, resolution=0.01), sine(3), FS)
    assert np.abs(out).max() == pytest.approx(0.5)
    np.testing.assert_allclose(out / 0.01, np.round(out / 0.01), atol=1e-3)


def tracing(device: Device, code: str = "SR") -> np.ndarray:
    rng = np.random.default_rng(3)
    return draw_tracing([code], Patient.draw(rng), rng, device=device).signal


def test_mistakes_at_the_patient() -> None:
    right = tracing(Device())
    arms = tracing(Device(arms_swapped=True))
    for new, old, sign in ((0, 0, -1), (1, 2, 1), (2, 1, 1), (3, 4, 1), (4, 3, 1), (5, 5, 1)):
        np.testing.assert_allclose(arms[new], sign * right[old], atol=1e-5)
    np.testing.assert_array_equal(arms[6:], right[6:])
    chest = tracing(Device(chest_swapped=(1, 2)))
    np.testing.assert_array_equal(chest[[7, 8]], right[[8, 7]])
    assert not tracing(Device(flat=(4,)))[10].any()


def test_stimuli_can_be_taken_out() -> None:
    plain, without = tracing(Device(), "PACE"), tracing(Device(despiked=True), "PACE")
    difference = np.abs(plain - without).max(axis=0)
    assert difference.max() > 0.2
    assert (difference > 0.01).mean() < 0.03  # and nothing else changes


def test_draws_cover_the_kinds() -> None:
    rng = np.random.default_rng(0)
    drawn = [Device.draw(rng) for _ in range(3000)]
    for share, low, high in (
        (np.mean([d.despiked for d in drawn]), 0.26, 0.34),
        (np.mean([d.arms_swapped for d in drawn]), 0.001, 0.015),
        (np.mean([bool(d.flat) for d in drawn]), 0.003, 0.02),
        (np.mean([d.high_pass > 0.3 for d in drawn]), 0.2, 0.4),
        (np.mean([0 < d.low_pass < 50 for d in drawn]), 0.05, 0.15),
    ):
        assert low < share < high


def test_drifting_electrodes_are_slow_and_few() -> None:
    quiet = Noise(0, 0, 0)
    rng = np.random.default_rng(4)
    potential = electrode_noise(replace(quiet, drift=0.3), 5000, FS, rng)
    moved = np.ptp(potential, axis=1) > 0.01
    assert 1 <= moved.sum() <= 4
    assert np.abs(np.diff(potential, axis=1)).max() < 0.02
