"""One recording: beats, their shape, noise, and what a perfect electrocardiograph would measure on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deri.errors import DeriError
from deri.simulate.atria import atrial_waves
from deri.simulate.device import Device, record
from deri.simulate.findings import complete
from deri.simulate.leadfield import FROM_ELECTRODES, FROM_INDEPENDENT, frontal_axis
from deri.simulate.morphology import Beat, Morphology, draw_morphology
from deri.simulate.noise import Noise, electrode_noise
from deri.simulate.patient import Patient
from deri.simulate.rhythm import CONDUCTED, Rhythm, draw_rhythm
from deri.simulate.ventricles import DIMENSIONS
from deri.simulate.waves import Array, Waves, render


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
    device: Device | None = None


_INDEPENDENT = [0, 1, *range(6, 12)]
_FROM_INDEPENDENT = FROM_INDEPENDENT.astype(np.float32)
_FROM_ELECTRODES = FROM_ELECTRODES[_INDEPENDENT].astype(np.float32)


def _beats(beat: Beat, times: Array, rr: Array, scale: Array, t_scale: Array, spikes: bool) -> list[Waves]:
    """QRS, ST, T (and spikes) of one kind of beat with onsets ``times`` (m,) s after intervals ``rr`` (m,) s.

    ``scale`` (m, d) and ``t_scale`` (m,) are gains of the QRS and of what follows it.
    """
    if not len(times):
        return []
    shape = beat.after.waves(beat.qtc * np.sqrt(rr), beat.duration)
    per_beat = len(shape) // len(times)
    centre = shape.centre + np.repeat(times, per_beat)
    after = Waves(centre, shape.rise, shape.fall, shape.vector * np.repeat(t_scale, per_beat)[:, None])
    waves = [beat.qrs.at(times, scale), after]
    if beat.spike is not None and spikes:
        waves.append(beat.spike.at(times))
    return waves


def _measure(rhythm: Rhythm, shape: Morphology, beat: Beat, seconds: float) -> Measurements:
    rr = rhythm.mean_rr(seconds)
    has_p = len(rhythm.p_times) > 0
    own_p = has_p and not bool(rhythm.p_ectopic.all())
    return Measurements(
        rr=1000 * rr,
        pr=1000 * rhythm.pr if rhythm.pr is not None and has_p else None,
        p_duration=1000 * shape.p_duration if has_p else None,
        qrs=1000 * beat.duration,
        qt=1000 * beat.qtc * float(np.sqrt(np.clip(rr, 0.3, 1.6))),
        p_axis=frontal_axis((shape.p if own_p else shape.p_ectopic).net()[:3]) if has_p else None,
        qrs_axis=frontal_axis(beat.net),
        t_axis=frontal_axis(beat.after.t[:3]),
    )


def draw_tracing(
    findings: Iterable[str],
    patient: Patient,
    rng: np.random.Generator,
    *,
    fs: float = 500.0,
    seconds: float = 10.0,
    noise: Noise | None = None,
    device: Device | None = None,
) -> Tracing:
    """Draw a recording of ``patient`` with ``findings``; without ``noise`` and ``device`` it is free of any.

    Raises DeriError for unknown or contradictory findings, and for a recording too short to show a rhythm.
    """
    ordered = complete(findings)
    codes = frozenset(ordered)
    if seconds < 5 or fs < 100:
        raise DeriError(f"A simulated recording needs >= 5 s at >= 100 Hz, not {seconds:g} s at {fs:g} Hz.")
    samples = round(seconds * fs)
    shape = draw_morphology(codes, patient)
    rhythm = draw_rhythm(codes, patient, rng, seconds, ventricular_escape=shape.ventricular_escape)

    rr = rhythm.rr()
    # Repolarisation follows the rate slowly: QT hardly answers to a single early beat.
    rr_for_qt = (0.8 * rhythm.mean_rr(seconds) + 0.2 * rr).clip(0.3, 1.6)
    breath = 2 * np.pi * patient.respiration * rhythm.qrs_times
    # Breathing moves the heart, so that the components of the dipole swing each for itself; T differs from beat to beat
    # more than the QRS does.
    depth, phase = 0.035 * rng.exponential(1.0, DIMENSIONS).clip(0.1, 2.5), rng.uniform(0, 2 * np.pi, DIMENSIONS)
    scale = 1 + depth * np.sin(breath[:, None] + phase)
    t_scale = 1 + 0.03 * np.sin(breath + phase[0]) + rng.uniform(0.005, 0.05) * rng.standard_normal(len(rr)).clip(-2, 2)
    conducted, spikes = rhythm.qrs_kind == CONDUCTED, device is None or not device.despiked
    waves: list[Waves] = []
    for beat, mine in ((shape.conducted, conducted), (shape.ectopic, ~conducted)):
        if beat is not None:
            waves += _beats(beat, rhythm.qrs_times[mine], rr_for_qt[mine], scale[mine], t_scale[mine], spikes)
    if shape.p_spike is not None and spikes:
        waves.append(shape.p_spike.at(rhythm.p_spikes))
    ventricles = render(Waves.join(*waves), samples, fs)
    leads = shape.leads[_INDEPENDENT].astype(np.float32) @ ventricles.astype(np.float32)
    atria = atrial_waves(rhythm, samples, fs, rng) if rhythm.atrial is not None else None
    if len(rhythm.p_times):
        p = [shape.p.at(rhythm.p_times[~rhythm.p_ectopic]), shape.p_ectopic.at(rhythm.p_times[rhythm.p_ectopic])]
        atria = render(Waves.join(*p), samples, fs)
    if atria is not None:
        leads += shape.atrial_leads[_INDEPENDENT].astype(np.float32) @ atria.astype(np.float32)
    if noise is not None:
        leads += _FROM_ELECTRODES @ electrode_noise(noise, samples, fs, rng)
    if device is not None:
        leads = record(device, leads, fs)
    beat = shape.ectopic if shape.ectopic is not None and shape.ventricular_escape else shape.conducted
    signal = _FROM_INDEPENDENT @ leads
    return Tracing(signal, fs, ordered, _measure(rhythm, shape, beat, seconds), rhythm, noise, device)


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
    ... V6. A patient is drawn unless given. ``noise``: True draws it and a
    recorder, False leaves both out; a `Noise` comes without a recorder. Raises DeriError
    for unknown or contradictory findings.
    """
    drawn = Patient.draw(rng) if patient is None else patient
    kind = (Noise.draw(rng) if noise else None) if isinstance(noise, bool) else noise
    device = Device.draw(rng) if noise is True else None
    return draw_tracing(findings, drawn, rng, fs=fs, seconds=seconds, noise=kind, device=device).signal
