"""When the atria and the ventricles are excited: beat times from findings."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from deri.simulate import atrial, ectopy
from deri.simulate.beats import CONDUCTED, ECTOPIC, Rhythm, Variability, coupled, sinus_times
from deri.simulate.patient import Patient, clamp
from deri.simulate.ventricles import Codes

__all__ = ["CONDUCTED", "ECTOPIC", "Rhythm", "draw_rhythm"]

_SINUS_RR: dict[str, Callable[[np.random.Generator, Patient], float]] = {
    "SR": lambda rng, patient: 60 / clamp(rng.normal(patient.rate, 5), 61, 98.5),
    "SBRAD": lambda rng, patient: 60 / clamp(59.2 - rng.gamma(1.6, 3.4), 36, 59.2),
    "STACH": lambda rng, patient: 60 / clamp(101.5 + rng.gamma(1.6, 9.5), 101.5, 165),
    "SARRH": lambda rng, patient: 60 / clamp(rng.normal(70, 6), 60, 84),
}
_PATTERNS = ("PVC", "BIGU", "TRIGU", "COUP")


def draw_rhythm(
    codes: Codes, patient: Patient, rng: np.random.Generator, seconds: float, *, ventricular_escape: bool
) -> Rhythm:
    """Beat times for the findings ``codes`` (complete, see `findings.complete`) over ``seconds``.

    ``ventricular_escape``: in complete AV block the escape comes from the ventricle, not the junction.
    """
    if "AFIB" in codes:
        return atrial.fibrillation(rng, seconds, codes)
    if "AFLT" in codes:
        return atrial.flutter(rng, seconds)
    if "SVTAC" in codes:
        return atrial.supraventricular(rng, seconds)
    if "AT" in codes:
        return atrial.atrial_tachycardia(rng, patient, seconds)
    if "JR" in codes:
        return atrial.junctional(rng, seconds)
    if {"PACE", "APACE", "DPACE"} & codes:
        return atrial.paced(rng, patient, seconds, codes)
    if "3AVB" in codes:
        return ectopy.complete_block(rng, patient, seconds, ventricular=ventricular_escape)
    name = next(code for code in _SINUS_RR if code in codes)
    rr = _SINUS_RR[name](rng, patient)
    if "2AVB" in codes:  # room for the longest PR
        rr = max(rr, 0.72)
    # Respiratory arrhythmia wanes with age; a swing beyond 0.12-0.16 s is called sinus arrhythmia.
    # Both it and the slower waves differ between people by a factor of ten (standard deviation of RR in ten seconds
    # 5-60 ms: Nunan et al., Pacing Clin Electrophysiol 2010;33:1407-1417, and O'Neal et al., 2016).
    calm = clamp(0.045 - 0.0005 * (patient.age - 30), 0.010, 0.045) * math.exp(0.7 * rng.standard_normal())
    arrhythmia = name == "SARRH"
    quiet = 0.4 if name == "STACH" else 1.0
    variability = Variability(
        respiration=float(rng.uniform(0.14, 0.24)) if arrhythmia else quiet * calm,
        slow=quiet * 0.011 * math.exp(0.7 * rng.standard_normal()),
        chance=0.004 if arrhythmia else quiet * 0.006 * math.exp(0.6 * rng.standard_normal()),
        most=np.inf if arrhythmia else 0.11,
    )
    p = sinus_times(rng, rr, patient, seconds, variability)
    pr = _pr(codes, patient, rng, name, rr)
    if "2AVB" in codes:
        return ectopy.wenckebach(rng, p)
    if "2AVB2" in codes:
        return ectopy.mobitz(rng, p, pr, seconds)
    if "PAC" in codes:
        return ectopy.premature_atrial(rng, p, pr, seconds)
    pattern = next((code for code in reversed(_PATTERNS) if code in codes), None)
    if pattern is not None:
        return ectopy.premature_ventricular(rng, p, pr, seconds, pattern=pattern)
    return coupled(p, pr)


def _pr(codes: Codes, patient: Patient, rng: np.random.Generator, name: str, rr: float) -> float:
    """PR in s: the patient's, a little shorter when fast; 205-340 ms in first degree block (ACC 2018)."""
    pr = patient.pr * (0.9 if name == "STACH" else 1.0)
    if "1AVB" in codes:
        pr = clamp(0.209 + rng.gamma(1.5, 0.022), 0.209, min(0.34, 0.5 * rr))
    elif "WPW" in codes:
        pr = clamp(patient.pr - 0.05, 0.096, 0.114)
    # The P wave ends before the QRS begins.
    return max(pr, 0.152 if "LAO/LAE" in codes else min(patient.p_duration, 0.092 if "WPW" in codes else 1.0) + 0.006)
