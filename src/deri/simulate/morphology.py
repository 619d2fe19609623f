"""The shape of a beat: dipole waves of P, QRS, ST, T and U for a patient and a set of findings.

Tables of waves are written with time in ms from the peak of the main QRS wave and vectors in Frank's axes (x
left, y down, z back) in mV; a beat is then rotated to the patient's axis, stretched to a drawn QRS duration,
scaled, and moved so that its QRS begins at 0. Sources of the ranges stand in `findings`; vectors follow the
classical account of each pattern (Chou; AHA III-VI) and were fitted by eye and by the tests' measurements
through Dower's matrix.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deri.simulate.leadfield import DOWER, lead_matrix, rotate_frontal, rotate_horizontal, rotation_to_axis
from deri.simulate.patient import Patient, clamp
from deri.simulate.waves import Waves

Array = NDArray[np.float64]
Row = tuple[float, float, float, float, float, float]

_TAIL = 2.45  # widths at which a Gaussian has fallen to 5 % of its peak: where a wave is taken to begin and end
_FLOOR = 0.04  # of the peak of the dipole's magnitude: where the QRS is taken to begin and end

# Septum (right, front), apex and free wall of the left ventricle (left, down), posterior wall, base (back).
_NORMAL: list[Row] = [
    (-26, 6.5, 7, -0.16, -0.04, -0.20),
    (-12, 8, 8, 0.42, 0.32, -0.30),
    (0, 9, 9, 0.88, 0.72, 0.20),
    (14, 8.5, 9, 0.30, 0.10, 0.52),
    (26, 8, 8, -0.16, -0.14, 0.30),
]
# The right ventricle, excited late through the myocardium, points right and front (AHA III).
_CRBBB: list[Row] = [*_NORMAL[:3], (14, 9, 9, 0.22, 0.08, 0.42), (46, 14, 16, -0.58, -0.12, -0.62)]
_IRBBB: list[Row] = [*_NORMAL[:3], (14, 8.5, 9, 0.26, 0.10, 0.46), (36, 8, 9, -0.30, -0.06, -0.42)]
# Right to left through the septum, then slowly the free wall: no septal q, notched plateau to the left and
# back (AHA III).
_CLBBB: list[Row] = [
    (-34, 13, 13, 0.30, 0.16, 0.16),
    (-8, 15, 16, 0.72, 0.42, 0.62),
    (28, 16, 17, 0.66, 0.24, 0.74),
    (56, 14, 15, 0.26, -0.02, 0.42),
]
# Inferior-septal first (q in I, aVL; r in II, III, aVF), then up and left late (AHA III).
_LAFB: list[Row] = [
    (-26, 7, 7, -0.20, 0.22, -0.18),
    (-12, 8, 8, 0.46, 0.12, -0.26),
    (2, 10, 10, 0.86, -0.52, 0.22),
    (18, 9, 10, 0.28, -0.50, 0.48),
    (32, 8, 8, -0.08, -0.20, 0.26),
]
# Right and front outweigh the left ventricle (AHA V: R in V1, S in V5-V6, axis > 100 degrees).
_RVH: list[Row] = [
    (-26, 7, 7, 0.16, 0.02, -0.16),
    (-12, 8, 8, 0.30, 0.26, -0.36),
    (0, 10, 10, -0.26, 0.66, -0.78),
    (16, 9, 10, -0.50, 0.22, -0.20),
    (30, 8, 8, -0.30, -0.10, 0.10),
]
# Pre-excitation: a slow start, to the front where the pathway is left-sided (type A), to the left and back
# otherwise (type B).
_DELTA_A: list[Row] = [(-44, 12, 13, 0.18, 0.10, -0.22), (-25, 10, 10, 0.34, 0.18, -0.44)]
_DELTA_B: list[Row] = [(-44, 12, 13, 0.22, 0.12, 0.12), (-25, 10, 10, 0.46, 0.22, 0.16)]
# Apical right ventricular pacing: as left bundle branch block, but from the apex upwards.
_PACED: list[Row] = [
    (-34, 14, 14, 0.20, -0.26, 0.14),
    (-6, 17, 17, 0.62, -0.62, 0.52),
    (32, 17, 18, 0.52, -0.60, 0.66),
    (62, 14, 15, 0.10, -0.22, 0.36),
]
# Ventricular ectopy from the right ventricle (looks like LBBB, inferior axis) or the left (looks like RBBB,
# superior axis).
_ECTOPIC_RIGHT: list[Row] = [
    (-34, 15, 16, 0.34, 0.56, 0.36),
    (0, 19, 20, 0.72, 1.00, 0.86),
    (44, 17, 18, 0.22, 0.56, 0.62),
]
_ECTOPIC_LEFT: list[Row] = [
    (-34, 15, 16, -0.10, -0.46, -0.66),
    (0, 19, 20, -0.56, -0.82, -0.96),
    (44, 17, 18, -0.62, -0.36, -0.30),
]

_T_NORMAL = np.array([0.30, 0.22, -0.16])


@dataclass(frozen=True)
class Beat:
    """One kind of ventricular beat.

    ``qrs``: waves with the QRS beginning at time 0 s; ``t`` and ``st`` vectors (3,) in mV.
    """

    qrs: Waves
    duration: float  # s, of the QRS
    net: Array  # (3,) what the QRS axis is measured from, in mV s
    qtc: float  # s
    t: Array
    st: Array
    u: Array
    spike: Waves | None = None

    def repolarisation(self, qt: Array) -> Waves:
        """ST, T and U waves of beats with QT intervals ``qt`` (m,) in s, relative to the QRS onset, beat by beat.

        T ends at QT (where 5 % of its peak is left) and rises more slowly than it falls; two overlapping
        waves make the ST segment, so that it is level from about 20 to 80 ms after the J point.
        """
        room = qt - self.duration
        peak = qt - _TAIL * 0.085 * qt
        centre = np.stack(
            [self.duration + 0.13 * room, self.duration + 0.32 * room, peak, qt + 0.09 * np.sqrt(qt / 0.4)], axis=1
        )
        rise = np.stack([0.09 * room, 0.09 * room, 0.13 * qt, 0.07 * qt], axis=1)
        fall = np.stack([0.09 * room, 0.13 * room, 0.085 * qt, 0.07 * qt], axis=1)
        vector = np.stack([self.st * 0.85, self.st * 0.75, self.t, self.u])
        used = vector.any(axis=1)  # most beats have no U wave, and a wave of no height costs as much as any other
        vector = np.broadcast_to(vector[used], (len(qt), int(used.sum()), 3))
        return Waves(centre[:, used].ravel(), rise[:, used].ravel(), fall[:, used].ravel(), vector.reshape(-1, 3))


@dataclass(frozen=True)
class Morphology:
    """All that is drawn of a recording's shape."""

    leads: Array  # (12, 3) from dipole to leads, canonical order
    p: Waves  # the sinus P, beginning at 0 s
    p_duration: float
    p_ectopic: Waves
    conducted: Beat
    ectopic: Beat | None  # None where the rhythm has no beats from the ventricle
    ventricular_escape: bool


def extent(waves: Waves) -> tuple[float, float]:
    """First and last time (s) at which the dipole of ``waves`` exceeds 4 % of its peak magnitude."""
    times = np.arange((waves.centre - 3.6 * waves.rise).min(), (waves.centre + 3.6 * waves.fall).max(), 0.001)
    magnitude = np.linalg.norm(waves.values(times), axis=0)
    above = np.flatnonzero(magnitude >= _FLOOR * magnitude.max())
    return float(times[above[0]]), float(times[above[-1]])


@lru_cache(maxsize=64)
def _known(rows: tuple[Row, ...]) -> tuple[Waves, tuple[float, float]]:
    waves = Waves.table(rows)
    return waves, extent(waves)


def _stretched(rows: Sequence[Row], duration: float) -> Waves:
    """The QRS of a table, moved to begin at 0 and stretched in time to last ``duration`` s."""
    waves, (first, last) = _known(tuple(rows))
    factor = duration / (last - first)
    return Waves((waves.centre - first) * factor, waves.rise * factor, waves.fall * factor, waves.vector)


def _before_right_ventricle(qrs: Waves, codes: Collection[str]) -> Waves:
    """The waves that make the axis: in right bundle branch block those before the late right ventricle (AHA III)."""
    if not {"CRBBB", "IRBBB"} & set(codes) or {"CLBBB", "PACE", "RVH"} & set(codes):
        return qrs
    return Waves(qrs.centre[:-1], qrs.rise[:-1], qrs.fall[:-1], qrs.vector[:-1])


def peaks(waves: Waves, leads: Array) -> tuple[Array, Array]:
    """Largest and smallest value of ``waves`` in every lead, (12,) each in mV; at least and at most 0."""
    times = np.arange((waves.centre - 3 * waves.rise).min(), (waves.centre + 3 * waves.fall).max(), 0.002)
    signal = leads @ waves.values(times)
    return signal.max(axis=1).clip(0), signal.min(axis=1).clip(None, 0)


def _p_waves(codes: Collection[str], patient: Patient) -> tuple[Waves, float]:
    """Right atrium first (down, front), then left (left, back).

    LAE: >= 120 ms, deep end in V1; RAE: > 0.25 mV in II (AHA V).
    """
    right, left = np.array([0.045, 0.085, -0.035]), np.array([0.055, 0.055, 0.025])
    duration, apart, gain = patient.p_duration, 0.27, patient.p_gain
    if "LAO/LAE" in codes:
        right, left = np.array([0.05, 0.115, -0.03]), np.array([0.10, 0.115, 0.13])
        duration, apart, gain = 0.126 + 0.25 * (patient.p_duration - 0.084), 0.40, max(gain, 0.95)
    elif "RAO/RAE" in codes:
        right, left = np.array([0.05, 0.27, -0.06]), 0.7 * left
    if "WPW" in codes:  # room for it before the early ventricle
        duration = min(duration, 0.092)
    widths = np.full(2, duration * (1 - apart) / (2 * _TAIL))
    vector = np.stack([right, left])
    vector = rotate_frontal(vector, rotation_to_axis(vector.sum(axis=0), patient.p_axis))
    waves = Waves(duration * np.array([0.5 - apart / 2, 0.5 + apart / 2]), widths, widths, gain * vector)
    if "RAO/RAE" in codes:
        height = float((DOWER[1] @ waves.values(np.linspace(0, duration, 40))).max())
        waves = waves.scaled((0.27 + 0.08 * patient.variant) / height)
    return waves, duration


def _qrs_table(codes: Collection[str], patient: Patient) -> list[Row]:
    if "PACE" in codes:
        return _PACED
    if "CLBBB" in codes:
        return _CLBBB
    if "RVH" in codes:
        return _RVH
    table = list(_LAFB if "LAFB" in codes else _NORMAL)
    if "CRBBB" in codes or "IRBBB" in codes:
        late = _CRBBB if "CRBBB" in codes else _IRBBB
        table = [*table[:3], late[3] if "LAFB" not in codes else table[3], late[4]]
    if "WPW" in codes:
        table = [*(_DELTA_A if patient.variant < 0.5 else _DELTA_B), *table[1:]]
    return table


def _infarct(table: list[Row], codes: Collection[str], rng: np.random.Generator) -> list[Row]:
    """Dead myocardium no longer pulls the early vector its way: it points away (UDMI: Q waves by territory)."""
    if "IMI" in codes:
        depth = rng.uniform(0.9, 1.2)
        early: list[Row] = [(-27, 8, 9, -0.10, -0.44 * depth, -0.12), (-13, 9, 9, 0.36, -0.36 * depth, -0.26)]
        t, rise, fall, x, y, z = table[2]
        table = [*early, (t + 3, rise, fall, x, 0.86 * y, z), *table[3:]]
    if "ASMI" in codes:
        depth = rng.uniform(0.9, 1.2)
        early = [
            (-26, 8, 8, 0.02, 0.06 if "IMI" not in codes else -0.4, 0.34 * depth),
            (-12, 9, 9, 0.20, 0.26 if "IMI" not in codes else -0.3, 0.52 * depth),
        ]
        t, rise, fall, x, y, z = table[2]
        table = [*early, (t, rise, fall, x, y, z + 0.36), *table[3:]]
    return table


def _duration(codes: Collection[str], patient: Patient, rng: np.random.Generator) -> float:
    """QRS duration in s (AHA III; normal 75-110 ms)."""
    normal = 0.090 * patient.qrs_width
    if "PACE" in codes:
        return float(rng.uniform(0.145, 0.175))
    if "CLBBB" in codes:
        return 0.148 + 0.12 * (normal - 0.09) + float(rng.uniform(-0.012, 0.014))
    if "CRBBB" in codes:
        return 0.136 + 0.12 * (normal - 0.09) + float(rng.uniform(-0.01, 0.012))
    if "WPW" in codes:
        return float(rng.uniform(0.116, 0.136))
    if "IRBBB" in codes:
        return 0.110 + 0.2 * (normal - 0.09) + float(rng.uniform(-0.003, 0.003))
    return normal + (0.007 if "LAFB" in codes else 0) + (0.006 if {"LVH", "RVH", "IMI", "ASMI"} & set(codes) else 0)


def _axis(codes: Collection[str], patient: Patient, rng: np.random.Generator) -> float:
    if "LAFB" in codes:
        return float(rng.uniform(-72, -48))
    if "RVH" in codes:
        return float(rng.uniform(105, 135))
    if "PACE" in codes:
        return float(rng.uniform(-80, -55))
    if "CLBBB" in codes:
        return clamp(patient.axis - 40, -28, 45)
    if "IMI" in codes:  # inferior forces are lost
        return clamp(patient.axis - 25, -25, 20)
    return patient.axis


def _voltage(qrs: Waves, codes: Collection[str], patient: Patient, leads: Array, rng: np.random.Generator) -> float:
    """The gain that brings the QRS voltage into its findings' range, else keeps it out of the others'."""
    high, low = peaks(qrs, leads)
    swing = high - low
    limb, chest, total = swing[:6].max(), swing[6:].max(), float(-low[6] + max(high[10], high[11]))
    gain = patient.gain
    if "LVOLT" in codes:  # < 0.5 mV in all limb leads and < 1 mV in all chest leads
        return float(rng.uniform(0.62, 0.88) * min(0.5 / limb, 1.0 / chest))
    if "LVH" in codes:
        return float(rng.uniform(3.9, 5.2) / total)
    gain = max(gain, (0.85 if "CLBBB" in codes else 0.68) / limb)
    if not {"CLBBB", "PACE", "CRBBB", "WPW", "RVH"} & set(codes):
        gain = min(gain, 3.05 / total)
    return gain


def _repolarisation(
    codes: Collection[str], patient: Patient, rng: np.random.Generator, qrs_net: Array
) -> tuple[Array, Array]:
    """T and ST vectors in mV before rotation. Secondary changes point away from the QRS area (AHA IV)."""
    t = _T_NORMAL * patient.t_gain
    st = np.array([0.010, 0.012, -0.014]) * patient.t_gain
    direction = qrs_net / np.linalg.norm(qrs_net)
    if "CLBBB" in codes or "PACE" in codes:
        return -0.42 * direction * patient.t_gain, -0.12 * direction
    if "CRBBB" in codes:
        t = t + np.array([0.06, 0.02, 0.30])
        st = np.array([0.02, 0.0, 0.03])
    elif "WPW" in codes:
        t = 0.55 * t - 0.16 * direction
        st = -0.05 * direction
    elif "RVH" in codes:  # strain: T down in V1-V3
        t = np.array([0.20, -0.02, 0.30]) * patient.t_gain
        st = np.array([0.02, -0.02, 0.06])
    elif "LVH" in codes:
        if patient.variant < 0.65:  # strain: ST down, T down in I, aVL, V5-V6
            t = np.array([-0.32, -0.08, -0.34]) * patient.t_gain
            st = np.array([-0.13, -0.04, -0.10])
        else:
            t = t * 0.8
    if "IMI" in codes and patient.variant < 0.6:
        t = np.array([t[0] + 0.05, -0.20, t[2]])
    if "ASMI" in codes and patient.variant < 0.6 and "LVH" not in codes:
        t = np.array([0.8 * t[0], t[1], 0.26])
    severity = rng.uniform(0.9, 1.5)
    if "ISC_" in codes:
        t = np.array([-0.20, -0.12, 0.06]) * severity
        st = np.array([-0.135, -0.09, 0.02]) * severity
    elif "STD_" in codes:
        t = 0.75 * t
        st = np.array([-0.115, -0.075, 0.02]) * severity
    elif "INVT" in codes:
        t = np.array([-0.24, t[1] * 0.3, 0.26]) * severity
        st = np.zeros(3)
    if "LNGQT" in codes:
        t = 0.9 * t
    return t, st


def _qtc(codes: Collection[str], patient: Patient, rng: np.random.Generator, duration: float) -> float:
    if "LNGQT" in codes:
        return float(rng.uniform(0.490, 0.550))
    return patient.qtc + max(0.0, duration - 0.1) * 0.6


_OWN_T = frozenset({"CLBBB", "PACE", "LAFB", "LVH", "RVH", "IMI", "ASMI", "ISC_", "STD_", "INVT"})


def _conducted(codes: Collection[str], patient: Patient, rng: np.random.Generator, leads: Array) -> Beat:
    duration = _duration(codes, patient, rng)
    qrs = _stretched(_infarct(_qrs_table(codes, patient), codes, rng), duration)
    if "LVH" in codes:  # the larger left ventricle pulls left and back
        qrs = Waves(qrs.centre, qrs.rise, qrs.fall, qrs.vector + np.array([0.0, 0.0, 0.14]) * (qrs.vector[:, :1] > 0.3))
    if not {"RVH", "ASMI", "CLBBB", "PACE"} & set(codes):
        qrs = Waves(qrs.centre, qrs.rise, qrs.fall, rotate_horizontal(qrs.vector, patient.turn))
    angle = rotation_to_axis(_before_right_ventricle(qrs, codes).net(), _axis(codes, patient, rng))
    qrs = Waves(qrs.centre, qrs.rise, qrs.fall, rotate_frontal(qrs.vector, angle))
    t, st = _repolarisation(codes, patient, rng, qrs.net())
    if not _OWN_T & set(codes):  # a T wave that no finding has placed follows the rotation of the heart half way
        t, st = rotate_frontal(t, 0.5 * angle), rotate_frontal(st, 0.5 * angle)
    gain = _voltage(qrs, codes, patient, leads, rng)
    qrs = qrs.scaled(gain)
    t = t * (0.45 if "LVOLT" in codes else 0.8 + 0.2 * min(gain, 1.6))
    u = 0.10 * t if "SBRAD" in codes and not {"LNGQT", "INVT", "ISC_"} & set(codes) else np.zeros(3)
    spike = None
    if "PACE" in codes:
        height = rng.uniform(0.8, 2.0)
        spike = Waves.table([(-6, 0.8, 0.8, *(height * np.array([0.45, -0.60, 0.35])))])
    net = _before_right_ventricle(qrs, codes).net()
    return Beat(qrs, duration, net, _qtc(codes, patient, rng, duration), t, st, u, spike)


def _ectopic(patient: Patient, rng: np.random.Generator) -> Beat:
    """A beat from the ventricle: wide, large, T against it (Chou). The focus is the patient's."""
    table = _ECTOPIC_RIGHT if patient.variant < 0.55 else _ECTOPIC_LEFT
    duration = float(0.136 + 0.03 * patient.variant + rng.uniform(-0.004, 0.004))
    qrs = _stretched(table, duration).scaled(0.95 * patient.gain)
    net = qrs.net()
    direction = net / np.linalg.norm(net)
    return Beat(qrs, duration, net, patient.qtc + 0.03, -0.55 * direction, -0.14 * direction, np.zeros(3))


_NARROW_ESCAPE = frozenset(
    {"CRBBB", "CLBBB", "IRBBB", "LAFB", "LVH", "RVH", "IMI", "ASMI", "ISC_", "STD_", "INVT", "LNGQT", "LVOLT"}
)


def draw_morphology(codes: Collection[str], patient: Patient, rng: np.random.Generator) -> Morphology:
    """Draw the shape of all beats for the findings ``codes`` (complete, see `findings.complete`)."""
    leads = lead_matrix(patient.chest_gain)
    p, p_duration = _p_waves(codes, patient)
    # A low atrial focus: the P wave runs upwards, and is a little shorter.
    p_ectopic = Waves(0.9 * p.centre, 0.9 * p.rise, 0.9 * p.fall, p.vector * np.array([0.7, -0.8, 1.2]))
    ventricular = "3AVB" in codes and patient.variant < 0.5 and not _NARROW_ESCAPE & set(codes)
    ectopic = _ectopic(patient, rng) if ventricular or {"PVC", "BIGU"} & set(codes) else None
    return Morphology(leads, p, p_duration, p_ectopic, _conducted(codes, patient, rng, leads), ectopic, ventricular)
