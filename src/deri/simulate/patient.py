"""What stays the same from one study of a patient to the next."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from deri.simulate.waves import Array


def clamp(value: float, low: float, high: float) -> float:
    """``value`` within [low, high]; `numpy.clip` costs twenty times as much for one number."""
    return float(min(max(value, low), high))


# Dower's matrix shows V1 a little too large and V2 too small beside measured amplitudes.
_CHEST: Array = np.array([0.78, 1.2, 1.1, 1.05, 1.05, 1.05])


@dataclass(frozen=True)
class Patient:
    """Factors of one person, drawn once, so that several studies of a patient resemble one another."""

    age: float  # years
    sex: str  # "male" | "female"
    height: float  # cm
    weight: float  # kg
    axis: float  # degrees, frontal QRS axis when no finding shifts it
    turn: float  # degrees, rotation of the heart about its long axis: early or late transition in V1-V6
    gain: float  # of all waves; 1 is typical
    t_gain: float  # of the T wave beside the QRS
    p_gain: float
    p_axis: float  # degrees
    chest_gain: Array  # (6,) of V1 ... V6: habitus
    shift: float  # of the chest electrodes along their row, in electrode distances; positive to the left
    lift: float  # of the chest electrodes, positive upwards: share of a lead's strength that points down
    qrs_width: float  # factor on the widths of QRS waves
    p_duration: float  # s
    pr: float  # s, when AV conduction is normal
    qtc: float  # s, Bazett, when repolarisation is normal
    rate: float  # beats/min of the sinus node at rest
    respiration: float  # Hz
    variant: (
        float  # in [0, 1): picks among forms of a finding (site of an ectopic focus, of a pathway), stable per patient
    )
    seed: int  # of the details of this heart's waves

    @classmethod
    def draw(cls, rng: np.random.Generator, *, mean_age: float = 58.0) -> Patient:
        """Draw a patient.

        Normal limits of intervals, axis and amplitudes: Rijnbeek et al., J Electrocardiol 2014;47:914-921
        (13,354 healthy people): PR 120-200 ms, QRS 75-110 ms, axis turning left with age, QTc a little longer in
        women, voltages lower with age and weight; between people they vary by half to double.
        """
        sex = "female" if rng.random() < 0.48 else "male"
        age = clamp(round(rng.normal(mean_age, 15)), 18, 94)
        height = float(round(rng.normal(164 if sex == "female" else 177, 7)))
        bmi = clamp(rng.normal(27, 4.5), 17, 45)
        weight = float(round(bmi * (height / 100) ** 2))
        axis = clamp(rng.normal(45 - 0.45 * (age - 50) - 0.8 * (bmi - 27), 24), -24, 86)
        typical = 1.18 - 0.003 * (age - 50) - 0.012 * (bmi - 27) - (0.06 if sex == "female" else 0.0)
        z = rng.standard_normal(12)
        return cls(
            age=age,
            sex=sex,
            height=height,
            weight=weight,
            axis=axis,
            turn=clamp(13 * z[0], -28, 28),
            gain=clamp(typical * math.exp(0.23 * z[1]), 0.5, 1.7),
            t_gain=clamp((1.0 if sex == "male" else 0.85) * math.exp(0.36 * z[2] - 0.009 * (age - 50)), 0.45, 2.2),
            p_gain=clamp(1.28 * math.exp(0.3 * z[3]), 0.6, 2.0),
            p_axis=clamp(50 + 18 * z[4], 5, 80),
            chest_gain=_CHEST
            * np.exp(0.16 * rng.standard_normal(6)).clip(0.6, 1.6)
            * clamp(math.exp(0.12 * z[5]), 0.7, 1.4),
            shift=clamp(0.35 * z[6], -0.8, 0.8),
            lift=clamp(0.12 * z[7], -0.3, 0.3),
            qrs_width=clamp((1.0 if sex == "male" else 0.95) + 0.075 * z[8], 0.80, 1.15),
            p_duration=clamp(0.110 + 0.009 * z[9], 0.084, 0.1165),
            pr=clamp(0.154 + 0.0003 * (age - 50) + 0.02 * z[10], 0.118, 0.198),
            qtc=clamp((0.405 if sex == "male" else 0.415) + 0.018 * z[11], 0.362, 0.445),
            rate=clamp(rng.normal(70, 11), 61, 97),
            respiration=float(rng.uniform(0.15, 0.38)),
            variant=float(rng.random()),
            seed=int(rng.integers(1 << 31)),
        )

    def today(self, rng: np.random.Generator) -> Patient:
        """The same person at one study: a little different for posture, breathing and the electrodes' places."""
        drift = rng.standard_normal(8).clip(-2.5, 2.5)
        return replace(
            self,
            axis=self.axis + 4.0 * drift[0],
            turn=self.turn + 2.5 * drift[1],
            gain=self.gain * (1 + 0.04 * drift[2]),
            t_gain=self.t_gain * (1 + 0.07 * drift[3]),
            pr=clamp(self.pr + 0.004 * drift[4], 0.116, 0.199),
            qtc=clamp(self.qtc + 0.006 * drift[5], 0.36, 0.448),
            shift=self.shift + 0.08 * drift[6],
            lift=self.lift + 0.03 * drift[7],
            chest_gain=self.chest_gain * (1 + 0.05 * rng.standard_normal(6).clip(-2.5, 2.5)),
        )
