"""What stays the same from one study of a patient to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def clamp(value: float, low: float, high: float) -> float:
    """``value`` within [low, high]; `numpy.clip` costs twenty times as much for one number."""
    return float(min(max(value, low), high))


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
    chest_gain: Array  # (6,) of V1 ... V6: habitus, electrode placement
    qrs_width: float  # factor on the widths of QRS waves
    p_duration: float  # s
    pr: float  # s, when AV conduction is normal
    qtc: float  # s, Bazett, when repolarisation is normal
    rate: float  # beats/min of the sinus node at rest
    respiration: float  # Hz
    variant: (
        float  # in [0, 1): picks among forms of a finding (site of an ectopic focus, of a pathway), stable per patient
    )

    @classmethod
    def draw(cls, rng: np.random.Generator, *, mean_age: float = 58.0) -> Patient:
        """Draw a patient.

        Normal limits of intervals and axis: Rijnbeek et al., J Electrocardiol 2014;47:914-921 (13,354 healthy
        people): PR 120-200 ms, QRS 75-110 ms, axis turning left with age, QTc a little longer in women,
        voltages lower with age and weight.
        """
        sex = "female" if rng.random() < 0.48 else "male"
        age = clamp(round(rng.normal(mean_age, 15)), 18, 94)
        height = float(round(rng.normal(164 if sex == "female" else 177, 7)))
        bmi = clamp(rng.normal(27, 4.5), 17, 45)
        weight = float(round(bmi * (height / 100) ** 2))
        axis = clamp(rng.normal(52 - 0.45 * (age - 50) - 0.8 * (bmi - 27), 18), -15, 82)
        typical = 1.06 - 0.003 * (age - 50) - 0.012 * (bmi - 27) - (0.06 if sex == "female" else 0.0)
        gain = clamp(rng.normal(typical, 0.13), 0.7, 1.4)
        return cls(
            age=age,
            sex=sex,
            height=height,
            weight=weight,
            axis=axis,
            turn=clamp(rng.normal(0, 7), -15, 15),
            gain=gain,
            t_gain=clamp(rng.normal(1.08 if sex == "male" else 0.95, 0.15), 0.7, 1.4),
            p_gain=clamp(rng.normal(1, 0.15), 0.7, 1.35),
            chest_gain=np.clip(rng.normal(1, 0.08, 6), 0.8, 1.2),
            qrs_width=clamp(rng.normal(1.0 if sex == "male" else 0.96, 0.05), 0.86, 1.1),
            p_axis=clamp(rng.normal(56, 11), 25, 75),
            p_duration=clamp(rng.normal(0.098, 0.006), 0.084, 0.108),
            pr=clamp(rng.normal(0.155 + 0.0003 * (age - 50), 0.014), 0.126, 0.19),
            qtc=clamp(rng.normal(0.410 if sex == "male" else 0.418, 0.012), 0.375, 0.436),
            rate=clamp(rng.normal(72, 7), 63, 90),
            respiration=float(rng.uniform(0.18, 0.32)),
            variant=float(rng.random()),
        )

    def today(self, rng: np.random.Generator) -> Patient:
        """The same person at one study: a little different for posture, breathing and the electrodes' places."""
        drift = rng.standard_normal(6).clip(-2.5, 2.5)
        return replace(
            self,
            axis=self.axis + 3.5 * drift[0],
            turn=self.turn + 2.0 * drift[1],
            gain=self.gain * (1 + 0.03 * drift[2]),
            t_gain=self.t_gain * (1 + 0.05 * drift[3]),
            pr=self.pr + 0.003 * drift[4],
            qtc=self.qtc + 0.004 * drift[5],
            chest_gain=self.chest_gain * (1 + 0.04 * rng.standard_normal(6).clip(-2.5, 2.5)),
        )
