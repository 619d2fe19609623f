"""The shape of a beat: dipole waves of P, QRS, ST, T and U for a patient and a set of findings.

Details differ from heart to heart: they are drawn from the patient's own seed, and again, with less and less
variation, until the beat shows its findings (`criteria`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deri.simulate.atria import ATRIAL_GAIN, ectopic_p, p_waves
from deri.simulate.criteria import qrs_shows, repolarisation_shows, sample_qrs
from deri.simulate.leadfield import lead_matrix
from deri.simulate.patient import Patient
from deri.simulate.repolarisation import Repolarisation, draw_repolarisation, qtc_of
from deri.simulate.ventricles import DIMENSIONS, PACED_VENTRICLE, Codes, axis_part, conducted_qrs, ectopic_qrs
from deri.simulate.waves import Array, Waves


@dataclass(frozen=True)
class Beat:
    """One kind of ventricular beat.

    ``qrs``: waves with the QRS beginning at time 0 s.
    """

    qrs: Waves
    duration: float  # s, of the QRS
    net: Array  # (3,) what the QRS axis is measured from, in mV s
    qtc: float  # s
    after: Repolarisation
    spike: Waves | None = None


@dataclass(frozen=True)
class Morphology:
    """All that is drawn of a recording's shape."""

    leads: Array  # (12, DIMENSIONS) from dipole and local sources to leads, canonical order
    atrial_leads: Array  # (12, 3) the same for the atria, which lie further from the chest wall
    p: Waves  # the sinus P, beginning at 0 s
    p_duration: float
    p_ectopic: Waves
    conducted: Beat
    ectopic: Beat | None  # None where the rhythm has no beats from the ventricle
    ventricular_escape: bool
    p_spike: Waves | None  # of an atrial pacemaker


_TERRITORY = {"ASMI": 1.3, "AMI": 2.6, "ASTEMI": 2.0, "LSTEMI": 4.6, "LMI": 5.0}
_ELECTRODES = np.arange(6)
_LEFT_FRONT = np.array([0.0, 0.0, 0.26, 0.28, 0.17, 0.0])
_TRIES = (1.0, 1.0, 0.85, 0.7, 0.5, 0.3, 0.12, 0.0)


def _leads(codes: Codes, patient: Patient, own: np.random.Generator, amount: float) -> Array:
    """The patient's leads of the ventricles, the electrodes out of place by ``amount`` of 1.

    Of three local sources the first lies beneath the chest wall where the findings have their territory, the second
    anywhere, the third before the left ventricle.
    """
    u, z = own.random(4), own.standard_normal(2)
    centre = next((place for code, place in _TERRITORY.items() if code in codes), 0.4 + 4.6 * u[0])
    local = np.zeros((8, 3))
    local[2:, 0] = np.exp(-0.5 * ((_ELECTRODES - centre) / (0.7 + 0.7 * u[1])) ** 2)
    local[2:, 1] = np.exp(-0.5 * ((_ELECTRODES - 5 * u[2]) / (0.5 + 0.6 * u[3])) ** 2)
    local[:2, 1] = 0.25 * z
    local[2:, 2] = _LEFT_FRONT
    return lead_matrix(_chest_gain(patient, amount), amount * patient.shift, amount * patient.lift, local)


def _chest_gain(patient: Patient, amount: float) -> Array:
    return 1 + (patient.chest_gain - 1) * (0.3 + 0.7 * amount)


def _voltage(q: Array, codes: Codes, patient: Patient, own: np.random.Generator) -> float:
    """The gain that brings the QRS voltage into its findings' range, else keeps it out of the others'.

    LVH by S V1 + R V5/V6 > 3.5 mV (Sokolow and Lyon 1949), in some by R aVL > 1.1 mV (AHA V).
    """
    u = own.random(2)
    high, low = q.max(axis=1).clip(0), q.min(axis=1).clip(None, 0)
    swing = high - low
    limb, chest = float(swing[:6].max()), float(swing[6:].max())
    total = max(float(-low[6] + max(high[10], high[11])), 0.1)
    gain = patient.gain
    if "LVOLT" in codes:  # < 0.5 mV in all limb leads and < 1 mV in all chest leads
        return (0.6 + 0.3 * u[0]) * min(0.5 / limb, 1.0 / chest)
    if {"LVH", "LVHST"} & codes:
        sokolow = (3.75 + 1.6 * u[0] ** 1.5) / total
        return max(sokolow, 1.2 / max(float(high[4]), 0.4)) if u[1] < 0.15 else sokolow
    gain = max(gain, (0.85 if "CLBBB" in codes else 0.66) / limb)
    if not {"CLBBB", "PACE", "DPACE", "CRBBB", "WPW", "RVH"} & codes:
        gain = min(gain, 3.3 / total, 1.04 / max(float(high[4]), 0.1))
    return gain


def _conducted(codes: Codes, patient: Patient) -> tuple[Beat, Array, Array]:
    for attempt, amount in enumerate(_TRIES):  # the last is kept where none shows the findings
        own = np.random.default_rng([patient.seed, attempt])
        leads = _leads(codes, patient, own, amount)
        qrs, duration, angle = conducted_qrs(codes, patient, own, amount)
        q = sample_qrs(qrs, leads, duration)
        gain = _voltage(q, codes, patient, own)
        qrs, q = qrs.scaled(gain), q * gain
        if qrs_shows(codes, q):
            break
    atrial_leads = lead_matrix(
        _chest_gain(patient, amount) * ATRIAL_GAIN, amount * patient.shift, amount * patient.lift
    )
    for part, boost in ((1.0, 1.0), (1.0, 1.0), (0.7, 1.15), (0.4, 1.3), (0.2, 1.5), (0.0, 1.8)):
        after = draw_repolarisation(codes, patient, own, qrs, angle, part * amount, boost)
        if repolarisation_shows(codes, after, leads, q):
            break
    net = axis_part(qrs, codes).net()[:3]
    if after.j_wave is not None:
        qrs = Waves.join(qrs, Waves.single(duration - 0.004, 0.007, after.j_wave))
    spike = _spike(own) if PACED_VENTRICLE & codes else None
    return Beat(qrs, duration, net, qtc_of(codes, patient, own, duration), after, spike), leads, atrial_leads


def _spike(own: np.random.Generator) -> Waves:
    """A stimulus: bipolar leads give a small one, unipolar a large one."""
    height = 0.45 * 5.0 ** own.random()
    direction = np.array([0.45, -0.60, 0.35]) + 0.15 * own.standard_normal(3).clip(-2, 2)
    return Waves.single(-0.006, 0.0008, np.pad(height * direction, (0, DIMENSIONS - 3)))


def _ectopic(patient: Patient) -> Beat:
    """A beat from the ventricle, T against it (Chou)."""
    own = np.random.default_rng([patient.seed, 99])
    qrs, duration = ectopic_qrs(patient, own)
    net = qrs.net()[:3]
    nothing, direction = np.zeros(DIMENSIONS), np.pad(net / np.linalg.norm(net), (0, DIMENSIONS - 3))
    t = -(0.4 + 0.3 * own.random()) * direction
    after = Repolarisation(-0.13 * direction, -0.15 * direction, t, nothing, nothing)
    return Beat(qrs, duration, net, patient.qtc + 0.03, after)


_ESCAPES = frozenset({"SR", "STACH", "SBRAD", "SARRH", "3AVB", "1AVB"})


def draw_morphology(codes: Codes, patient: Patient) -> Morphology:
    """Draw the shape of all beats for the findings ``codes`` (complete, see `findings.complete`)."""
    beat, leads, atrial_leads = _conducted(codes, patient)
    own = np.random.default_rng([patient.seed, 98])
    p, p_duration = p_waves(codes, patient, own)
    # An escape from the ventricle would hide findings of the conducted beat: only where there are none.
    ventricular = "3AVB" in codes and patient.variant < 0.5 and codes <= _ESCAPES
    ectopic = _ectopic(patient) if ventricular or {"PVC", "BIGU", "TRIGU", "COUP"} & codes else None
    p_spike = _spike(own) if {"APACE", "DPACE"} & codes else None
    return Morphology(leads, atrial_leads, p, p_duration, ectopic_p(p, codes, own), beat, ectopic, ventricular, p_spike)
