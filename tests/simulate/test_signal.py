"""Lead field, waves, rhythm, noise and patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import trapezoid

from deri.simulate import Noise, Patient, draw_tracing
from deri.simulate.beats import LEAD_IN, LEAD_OUT, Variability, sinus_times
from deri.simulate.leadfield import (
    DOWER,
    FROM_ELECTRODES,
    FROM_INDEPENDENT,
    frontal_axis,
    lead_matrix,
    rotate_frontal,
    rotation_to_axis,
)
from deri.simulate.noise import electrode_noise
from deri.simulate.waves import Waves, render

# Edenbrandt and Pahlm 1988, as tabulated in textbooks: rows X, Y, Z; columns V1 ... V6, I, II.
INVERSE_DOWER = np.array(
    [
        [-0.172, -0.074, 0.122, 0.231, 0.239, 0.194, 0.156, -0.010],
        [0.057, -0.019, -0.106, -0.022, 0.041, 0.048, -0.227, 0.887],
        [-0.229, -0.310, -0.246, -0.063, 0.055, 0.108, 0.022, 0.102],
    ]
)


def test_dower_matrix_has_the_published_inverse() -> None:
    ours = np.linalg.pinv(DOWER)[:, [2, 3, 4, 5, 6, 7, 0, 1]]
    np.testing.assert_allclose(ours, INVERSE_DOWER, atol=2e-3)


def test_limb_leads_follow_einthoven_and_goldberger() -> None:
    i, ii = 0.7, 1.1
    leads = FROM_INDEPENDENT @ np.array([i, ii, *range(6)])
    np.testing.assert_allclose(leads[:6], [0.7, 1.1, 0.4, -0.9, 0.15, 0.75])
    np.testing.assert_allclose(leads[6:], range(6))


def test_electrode_leads_agree_with_the_independent_ones() -> None:
    potentials = np.random.default_rng(0).normal(size=9)
    ra, la, ll = potentials[:3]
    independent = [la - ra, ll - ra, *(potentials[3:] - (ra + la + ll) / 3)]
    np.testing.assert_allclose(FROM_ELECTRODES @ potentials, FROM_INDEPENDENT @ independent, atol=1e-12)


def test_chest_gain_scales_only_the_chest_leads() -> None:
    gain = np.array([1, 2, 1, 1, 0.5, 1.0])
    np.testing.assert_allclose(lead_matrix(gain)[:6], lead_matrix()[:6])
    np.testing.assert_allclose(lead_matrix(gain)[6:], lead_matrix()[6:] * gain[:, None])


def test_frontal_axis_of_known_vectors() -> None:
    # Only lead I: 0 degrees. I = -aVF * 2/sqrt(3): -45 degrees.
    along_i = np.linalg.pinv(DOWER[:2]) @ [1.0, 0.5]  # II = I / 2 makes aVF 0
    assert frontal_axis(along_i) == pytest.approx(0, abs=1e-9)
    avf = -np.sqrt(3) / 2
    assert frontal_axis(np.linalg.pinv(DOWER[:2]) @ [1.0, avf + 0.5]) == pytest.approx(-45, abs=1e-9)


@given(st.floats(-180, 180), st.floats(0, 6.28), st.floats(-0.4, 0.4))
def test_rotation_reaches_its_axis(target: float, angle: float, depth: float) -> None:
    net = np.array([np.cos(angle), np.sin(angle), depth])
    turned = rotate_frontal(net, rotation_to_axis(net, target))
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(net))
    assert abs((frontal_axis(turned) - target + 180) % 360 - 180) < 1e-6


def test_render_sums_waves_as_a_dense_evaluation_does() -> None:
    rng = np.random.default_rng(1)
    waves = Waves(
        rng.uniform(-0.2, 2.2, 40), rng.uniform(0.005, 0.06, 40), rng.uniform(0.005, 0.06, 40), rng.normal(size=(40, 3))
    )
    times = np.arange(1000) / 500
    expected = np.zeros((3, 1000))
    for k in range(40):
        for sample, t in enumerate(times):
            width = waves.rise[k] if t < waves.centre[k] else waves.fall[k]
            expected[:, sample] += waves.vector[k] * np.exp(-((t - waves.centre[k]) ** 2) / (2 * width**2))
    # Cut at 3.6 widths, a wave of 1 mV loses 1.5 uV.
    np.testing.assert_allclose(render(waves, 1000, 500), expected, atol=0.02)
    np.testing.assert_allclose(waves.values(times), expected, atol=1e-12)
    np.testing.assert_allclose(
        waves.net(), trapezoid(Waves.join(waves).values(np.arange(-1, 4, 1e-3)), dx=1e-3), atol=1e-6
    )


def test_render_of_nothing() -> None:
    far = Waves(np.array([50.0]), np.array([0.01]), np.array([0.01]), np.ones((1, 3)))
    assert not render(far, 100, 500).any()


def test_measurements_say_what_the_signal_was_made_from() -> None:
    rng = np.random.default_rng(5)
    tracing = draw_tracing(["1AVB", "LAFB"], Patient.draw(rng), rng)
    beats = tracing.rhythm.qrs_times[(tracing.rhythm.qrs_times > 0) & (tracing.rhythm.qrs_times < 10)]
    assert tracing.measurements.rr == pytest.approx(1000 * np.diff(beats).mean())
    assert tracing.measurements.pr == pytest.approx(1000 * (tracing.rhythm.qrs_times - tracing.rhythm.p_times).mean())
    assert 200 < tracing.measurements.pr < 320
    assert -80 < tracing.measurements.qrs_axis < -40
    assert draw_tracing(["AFIB"], Patient.draw(rng), rng).measurements.p_axis is None


def test_studies_of_one_patient_resemble_one_another() -> None:
    """Mean beats of two studies of a patient are closer than those of two patients."""

    def shape(patient: Patient, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        tracing = draw_tracing(["SR"], patient.today(rng), rng)
        starts = (tracing.rhythm.qrs_times * 500).astype(int)
        return np.mean([tracing.signal[:, a : a + 200] for a in starts if 0 < a < 4700], axis=0)

    patients = [Patient.draw(np.random.default_rng(i)) for i in range(12)]
    shapes = np.array([[shape(patient, 100 * i + k) for k in range(2)] for i, patient in enumerate(patients)])
    same = [np.abs(a - b).mean() for a, b in shapes]
    other = [np.abs(shapes[i, 0] - shapes[j, 1]).mean() for i in range(12) for j in range(12) if i != j]
    assert np.median(same) < 0.5 * np.median(other)


@pytest.mark.parametrize(("wander", "muscle", "mains"), [(0.1, 0, 0), (0, 0.03, 0), (0, 0, 0.05)])
def test_noise_has_the_strength_and_band_asked_for(wander: float, muscle: float, mains: float) -> None:
    noise = Noise(wander=wander, muscle=muscle, mains=mains, mains_hz=50.0)
    pieces = [electrode_noise(noise, 5000, 500.0, np.random.default_rng(seed)) for seed in range(40)]
    power = np.mean([np.abs(np.fft.rfft(p, axis=1)) ** 2 for p in pieces], axis=(0, 1))
    frequency = np.fft.rfftfreq(5000, 1 / 500)
    rms = np.sqrt(np.mean([p.astype(float) ** 2 for p in pieces]))
    if wander:
        assert rms == pytest.approx(wander, rel=0.25)
        assert power[frequency <= 1].sum() > 0.95 * power.sum()
    if muscle:
        assert rms == pytest.approx(muscle, rel=0.15)
        assert power[(frequency > 20) & (frequency < 180)].sum() > 0.9 * power.sum()
        even, odd = (np.mean([p[:, k::2].astype(float) ** 2 for p in pieces]) for k in range(2))
        assert even == pytest.approx(odd, rel=0.03)
    if mains:
        assert frequency[np.argmax(power)] == 50
        assert 0.3 * mains < rms < 1.3 * mains


def test_noise_obeys_einthoven() -> None:
    noise = Noise(0.1, 0.02, 0.02, motion=0.5, motion_events=3)
    leads = FROM_ELECTRODES @ electrode_noise(noise, 5000, 500.0, np.random.default_rng(0))
    np.testing.assert_allclose(leads[2], leads[1] - leads[0], atol=1e-5)
    np.testing.assert_allclose(leads[3] + leads[4] + leads[5], 0, atol=1e-5)


def test_bursts_and_motion_come_and_go() -> None:
    rng = np.random.default_rng(0)
    steady = electrode_noise(Noise(0, 0.02, 0), 5000, 500.0, rng).reshape(9, 20, 250).std(axis=2)
    bursts = electrode_noise(Noise(0, 0.02, 0, bursts=True), 5000, 500.0, rng).reshape(9, 20, 250).std(axis=2)
    assert (bursts.max(axis=1) / bursts.min(axis=1)).min() > 1.8 > (steady.max(axis=1) / steady.min(axis=1)).max()
    moved = electrode_noise(Noise(0, 0, 0, motion=0.5, motion_events=1), 5000, 500.0, np.random.default_rng(3))
    assert (np.abs(moved).max(axis=1) > 0.2).sum() == 1


def test_most_recordings_are_clean() -> None:
    rng = np.random.default_rng(0)
    kinds = [Noise.draw(rng).quality for _ in range(500)]
    assert 0.5 < kinds.count("clean") / 500 < 0.7
    assert {"clean", "light", "wander", "muscle", "mains", "motion"} == set(kinds)


@pytest.mark.parametrize("respiration", [0.01, 0.5, 0.87, 0.9, 3.0])
def test_beats_fill_a_recording_however_much_the_sinus_node_would_vary(respiration: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        depths = Variability(respiration, 0.1, 0.01, most=0.11)
        times = sinus_times(rng, 0.9, Patient.draw(rng), 10.0, depths)
        assert times[0] <= -LEAD_IN + 0.9
        assert times[-1] >= 10.0 + LEAD_OUT - 1.35
        assert np.ptp(np.diff(times)) <= 0.11 + 1e-9
