"""P waves, and what the atria do instead of them."""

from __future__ import annotations

import numpy as np

from deri.simulate.beats import Rhythm
from deri.simulate.leadfield import DOWER, rotate_frontal, rotation_to_axis
from deri.simulate.patient import Patient
from deri.simulate.ventricles import Codes
from deri.simulate.waves import Array, Waves

ATRIAL_GAIN: Array = np.array([0.85, 0.38, 0.30, 0.30, 0.36, 0.44])
"""Strength of the atria in V1 ... V6 beside what Dower's matrix gives: made for the ventricles, it puts the atria,
which lie behind them, too near V3-V6. Brings P in the chest leads to the size it has beside that in the limb leads."""


def p_waves(codes: Codes, patient: Patient, own: np.random.Generator) -> tuple[Waves, float]:
    """The sinus P, beginning at 0 s, and its duration in s.

    Right atrium first (down, front), then left (left, back). LAE: >= 120 ms, deep end in V1; RAE: > 0.25 mV in II
    (AHA V). Hyperkalaemia flattens it (Chou). Pericarditis depresses the PR segment: a long low wave against the P
    (ESC 2015).
    """
    z = own.standard_normal(8).clip(-2, 2)
    right = np.array([0.055 + 0.015 * z[0], 0.085 + 0.02 * z[1], -0.085 + 0.035 * z[2]])
    left = np.array([0.070 + 0.015 * z[3], 0.055 + 0.02 * z[4], 0.022 + 0.028 * z[5]])
    duration, apart, gain = patient.p_duration, 0.27 + 0.04 * z[6], patient.p_gain
    if "LAO/LAE" in codes:
        right = np.array([0.05, 0.105 + 0.015 * z[1], -0.03])
        left = np.array([0.10, 0.105 + 0.015 * z[4], 0.24 + 0.03 * z[5]])
        duration, apart, gain = 0.126 + 0.25 * (patient.p_duration - 0.076), 0.40 + 0.02 * z[6], max(gain, 0.95)
    elif "RAO/RAE" in codes:
        right, left = np.array([0.05, 0.27, -0.06]), 0.7 * left
    elif "HYPERK" in codes:
        gain = min(gain, 1.0) * 0.45
    if "LVOLT" in codes:
        gain *= 0.65
    if "WPW" in codes:  # room for it before the early ventricle
        duration = min(duration, 0.092)
    widths = np.full(2, duration * (1 - apart) / (2 * 2.3))
    vector = np.stack([right, left])
    vector = rotate_frontal(vector, rotation_to_axis(vector.sum(axis=0), patient.p_axis))
    vector = gain * vector
    if "RAO/RAE" in codes:
        times = np.linspace(0, duration, 40)
        waves = Waves(duration * np.array([0.5 - apart / 2, 0.5 + apart / 2]), widths, widths, vector)
        vector = vector * (0.275 + 0.1 * patient.variant) / float((DOWER[1] @ waves.values(times)).max())
    centres = duration * np.array([0.5 - apart / 2, 0.5 + apart / 2])
    if "PERIC" in codes:
        vector = np.concatenate([vector, -0.5 * vector.sum(axis=0)[None] / gain])
        centres, widths = np.append(centres, duration + 0.055), np.append(widths, 0.03)
    return Waves(centres, widths, widths, vector), duration


def ectopic_p(p: Waves, codes: Codes, own: np.random.Generator) -> Waves:
    """A P wave from elsewhere: a low focus or backward excitation runs upwards, a focus on the left to the right."""
    form = np.array([0.7, -0.8, 1.2])
    if not {"JR", "SVTAC"} & codes and own.random() < 0.4:
        form = np.array([-0.6, 0.75, -0.9]) if own.random() < 0.5 else np.array([0.2, 1.35, -0.8])
    shorter = 0.75 if "SVTAC" in codes or "JR" in codes else 0.9
    return Waves(shorter * p.centre, shorter * p.rise, shorter * p.fall, p.vector * form)


def atrial_waves(rhythm: Rhythm, samples: int, fs: float, rng: np.random.Generator) -> Array:
    """Dipole (3, samples) of fibrillation (largest in V1) or flutter (a sawtooth, falling slowly in II, III, aVF)."""
    time = np.arange(samples) / fs
    if rhythm.atrial == "flutter":
        # The inferior sawtooth falls slowly and returns fast. Four harmonics with Lanczos' factors keep the
        # corner and do not ring.
        cycle = 2 * np.pi * (rhythm.atrial_rate * time + rhythm.atrial_phase)
        harmonics = np.arange(1, 5)
        saw = (0.75 * np.sinc(harmonics / 5) / harmonics) @ np.sin(harmonics[:, None] * cycle)
        size = np.exp(rng.uniform(np.log(0.09), np.log(0.24)))
        bump = np.cos(cycle + rng.uniform(-0.7, 0.7))
        across = rng.uniform(-0.25, 0.1)
        return size * (np.outer([across, 0.85, 0.0], saw) + np.outer([0.0, 0.0, -rng.uniform(0.2, 0.5)], bump))
    # Stridh and Sornmo (IEEE Trans Biomed Eng 2001;48:105-111): a sawtooth-like wave, frequency and amplitude
    # modulated. From fine, hardly seen, to coarse.
    size = np.exp(rng.uniform(np.log(0.018), np.log(0.11)))
    phase = rng.uniform(0, 2 * np.pi, 6)
    wobble = 0.6 * np.sin(2 * np.pi * 0.35 * time + phase[0]) + 0.5 * np.sin(2 * np.pi * 0.9 * time + phase[1])
    cycle = 2 * np.pi * rhythm.atrial_rate * time + wobble + phase[4]
    swell = 1 + 0.45 * np.sin(2 * np.pi * rng.uniform(0.12, 0.5) * time + phase[2])
    right = swell * (np.sin(cycle) + rng.uniform(0.15, 0.5) * np.sin(2 * cycle + phase[3]))
    left = np.sin(1.13 * cycle + phase[4]) * (1 + 0.3 * np.sin(2 * np.pi * 0.31 * time + phase[5]))
    front = rng.uniform(0.55, 1.1)
    return size * (np.outer([-0.1, 0.55, -front], right) + np.outer([0.15, 0.4, 0.15], left))
