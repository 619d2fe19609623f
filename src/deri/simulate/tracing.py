"""One recording: beats, their shape, noise, and what a perfect electrocardiograph would measure on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deri.errors import DeriError
from deri.simulate.findings import complete
from deri.simulate.leadfield import frontal_axis
from deri.simulate.morphology import Beat, Morphology, draw_morphology
from deri.simulate.noise import Noise, lead_noise
from deri.simulate.patient import Patient
from deri.simulate.rhythm import CONDUCTED, Rhythm, draw_rhythm
from deri.simulate.waves import Waves, render

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Measurements:
    """True values of a recording: times in ms, axes in degrees; None where there is no such wave."""

    rr: float
    pr: float | None
    p_duration: float | None
    qrs: float
    qt: float
    p_axis: float | None
    qrs_axis: float
    t_axis: float


@dataclass(frozen=True)
class Tracing:
    """``signal``: float32 (12, n) in mV, canonical lead order."""

    signal: NDArray[np.float32]
    fs: float
    findings: tuple[str, ...]
    measurements: Measurements
    rhythm: Rhythm
    noise: Noise | None


def _beats(beat: Beat, times: Array, rr: Array, scale: Array) -> list[Waves]:
    """QRS, ST, T (and spikes) of one kind of beat with onsets ``times`` (m,) s after intervals ``rr`` (m,) s."""
    if not len(times):
        return []
    qt = beat.qtc * np.sqrt(rr)
    shape = beat.repolarisation(qt)
    per_beat = len(shape) // len(times)
    waves = [
        beat.qrs.at(times, scale),
        Waves(
            shape.centre + np.repeat(times, per_beat),
            shape.rise,
            shape.fall,
            shape.vector * np.repeat(scale, per_beat)[:, None],
        ),
    ]
    if beat.spike is not None:
        waves.append(beat.spike.at(times))
    return waves


def _atrial_waves(rhythm: Rhythm, samples: int, fs: float, rng: np.random.Generator) -> Array:
    """Dipole (3, samples) of fibrillation (largest in V1) or flutter (a sawtooth, falling slowly in II, III, aVF)."""
    time = np.arange(samples) / fs
    if rhythm.atrial == "flutter":
        # The inferior sawtooth falls slowly and returns fast. Four harmonics with Lanczos' factors keep the
        # corner and do not ring.
        cycle = 2 * np.pi * (rhythm.atrial_rate * time + rhythm.atrial_phase)
        harmonics = np.arange(1, 5)
        saw = (0.75 * np.sinc(harmonics / 5) / harmonics) @ np.sin(harmonics[:, None] * cycle)
        size = rng.uniform(0.13, 0.22)
        bump = np.cos(cycle)
        return size * (np.outer([-0.1, 0.85, 0.0], saw) + np.outer([0.0, 0.0, -0.35], bump))
    # Stridh and Sornmo (IEEE Trans Biomed Eng 2001;48:105-111): a sawtooth-like wave, frequency and amplitude
    # modulated.
    size = rng.uniform(0.035, 0.09)
    phase = rng.uniform(0, 2 * np.pi, 6)
    wobble = 0.6 * np.sin(2 * np.pi * 0.35 * time + phase[0]) + 0.35 * np.sin(2 * np.pi * 0.9 * time + phase[1])
    cycle = 2 * np.pi * rhythm.atrial_rate * time + wobble
    swell = 1 + 0.4 * np.sin(2 * np.pi * 0.2 * time + phase[2])
    right = swell * (np.sin(cycle) + 0.4 * np.sin(2 * cycle + phase[3]))
    left = np.sin(1.13 * cycle + phase[4]) * (1 + 0.3 * np.sin(2 * np.pi * 0.31 * time + phase[5]))
    return size * (np.outer([-0.1, 0.55, -0.85], right) + np.outer([0.15, 0.35, 0.15], left))


def _measure(rhythm: Rhythm, shape: Morphology, beat: Beat, seconds: float) -> Measurements:
    rr = rhythm.mean_rr(seconds)
    has_p = len(rhythm.p_times) > 0
    return Measurements(
        rr=1000 * rr,
        pr=1000 * rhythm.pr if rhythm.pr is not None and has_p else None,
        p_duration=1000 * shape.p_duration if has_p else None,
        qrs=1000 * beat.duration,
        qt=1000 * beat.qtc * float(np.sqrt(np.clip(rr, 0.36, 1.5))),
        p_axis=frontal_axis(shape.p.net()) if has_p else None,
        qrs_axis=frontal_axis(beat.net),
        t_axis=frontal_axis(beat.t),
    )


def draw_tracing(
    findings: Iterable[str],
    patient: Patient,
    rng: np.random.Generator,
    *,
    fs: float = 500.0,
    seconds: float = 10.0,
    noise: Noise | None = None,
) -> Tracing:
    """Draw a recording of ``patient`` with ``findings``; without ``noise`` it is free of any.

    Raises DeriError for unknown or contradictory findings, and for a recording too short to show a rhythm.
    """
    codes = complete(findings)
    if seconds < 5 or fs < 100:
        raise DeriError(f"A simulated recording needs >= 5 s at >= 100 Hz, not {seconds:g} s at {fs:g} Hz.")
    samples = round(seconds * fs)
    shape = draw_morphology(codes, patient, rng)
    rhythm = draw_rhythm(codes, patient, rng, seconds, ventricular_escape=shape.ventricular_escape)

    rr = rhythm.rr()
    # Repolarisation follows the rate slowly: QT hardly answers to a single early beat.
    rr_for_qt = (0.8 * rhythm.mean_rr(seconds) + 0.2 * rr).clip(0.36, 1.5)
    breath = 2 * np.pi * patient.respiration * rhythm.qrs_times
    scale = 1 + 0.03 * np.sin(breath + rng.uniform(0, 2 * np.pi))
    conducted = rhythm.qrs_kind == CONDUCTED
    waves = _beats(shape.conducted, rhythm.qrs_times[conducted], rr_for_qt[conducted], scale[conducted])
    if shape.ectopic is not None:
        waves += _beats(shape.ectopic, rhythm.qrs_times[~conducted], rr_for_qt[~conducted], scale[~conducted])
    waves += [shape.p.at(rhythm.p_times[~rhythm.p_ectopic]), shape.p_ectopic.at(rhythm.p_times[rhythm.p_ectopic])]
    dipole = render(Waves.join(*waves), samples, fs)
    if rhythm.atrial is not None:
        dipole += _atrial_waves(rhythm, samples, fs, rng)
    signal = shape.leads.astype(np.float32) @ dipole.astype(np.float32)
    if noise is not None:
        signal += lead_noise(noise, samples, fs, rng)
    beat = shape.ectopic if shape.ectopic is not None and shape.ventricular_escape else shape.conducted
    return Tracing(signal, fs, codes, _measure(rhythm, shape, beat, seconds), rhythm, noise)


def generate(
    findings: Iterable[str],
    rng: np.random.Generator,
    fs: float = 500.0,
    seconds: float = 10.0,
    *,
    patient: Patient | None = None,
    noise: bool | Noise = True,
) -> NDArray[np.float32]:
    """Generate one 12-lead ECG with ``findings``: codes of `FINDINGS`; SR is added where no rhythm is among them.

    Returns float32 (12, round(seconds * fs)) in mV, leads in canonical order I, II, III, aVR, aVL, aVF, V1
    ... V6. A patient is drawn unless given. ``noise``: True draws it, False leaves it out. Raises DeriError
    for unknown or contradictory findings.
    """
    drawn = Patient.draw(rng) if patient is None else patient
    kind = (Noise.draw(rng) if noise else None) if isinstance(noise, bool) else noise
    return draw_tracing(findings, drawn, rng, fs=fs, seconds=seconds, noise=kind).signal
