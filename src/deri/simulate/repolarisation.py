"""ST segment, T and U waves for a patient and a set of findings. Vectors in Frank's axes (left, down, back), mV."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deri.simulate.leadfield import rotate_frontal
from deri.simulate.patient import Patient
from deri.simulate.ventricles import DIMENSIONS, PACED_VENTRICLE, RIGHT_LATE, Codes
from deri.simulate.waves import TAIL, Array, Waves

_T_NORMAL = np.array([0.39, 0.20, -0.29])
_ZERO: Array = np.zeros(3)


@dataclass(frozen=True)
class Repolarisation:
    """Vectors (DIMENSIONS,) in mV of early and late ST segment, T, a wave before T (its foot, or a biphasic T) and U.

    T ends at QT (where 5 % of its peak is left); ``rise`` and ``fall`` are shares of QT.
    """

    st: Array
    st_late: Array
    t: Array
    before_t: Array
    u: Array
    rise: float = 0.13
    fall: float = 0.085
    j_wave: Array | None = None  # (DIMENSIONS,) a notch at the end of the QRS

    def waves(self, qt: Array, duration: float) -> Waves:
        """The waves of beats with QT intervals ``qt`` (m,) in s, relative to the QRS onset, beat by beat.

        Two overlapping waves make the ST segment, so that it is level from about 20 to 80 ms after the J point.
        """
        room = (qt - duration).clip(0.05)
        fall = self.fall * qt
        peak = qt - TAIL * fall
        u_at = qt + 0.09 * np.sqrt(qt / 0.4)
        vector = np.stack([0.85 * self.st, 0.75 * self.st_late, self.t, self.before_t, self.u])
        used = np.flatnonzero(vector.any(axis=1))  # a wave of no height costs as much as any other
        centre = np.stack([duration + 0.13 * room, duration + 0.32 * room, peak, peak - 0.18 * qt, u_at], axis=1)
        rise = np.stack([0.09 * room, 0.09 * room, self.rise * qt, 0.09 * qt, 0.07 * qt], axis=1)
        after = np.stack([0.09 * room, 0.13 * room, fall, 0.07 * qt, 0.07 * qt], axis=1)
        full = np.broadcast_to(vector[used], (len(qt), len(used), DIMENSIONS))
        return Waves(
            centre[:, used].ravel(), rise[:, used].ravel(), after[:, used].ravel(), full.reshape(-1, DIMENSIONS)
        )


# Findings that place the T wave; one that none of them has placed follows the rotation of the heart half way.
_PLACE_T = frozenset(
    {
        "CLBBB", "PACE", "DPACE", "LAFB", "LPFB", "LVHST", "RVH", "IMI", "ASMI", "AMI", "LMI", "PMI", "ISC_", "STD_",
        "INVT", "ISTEMI", "ASTEMI", "LSTEMI", "PERIC", "ERP", "DIG", "HYPERK", "HYPOK",
    }
)  # fmt: skip
_ACUTE = frozenset({"ISTEMI", "ASTEMI", "LSTEMI"})


@dataclass
class _Draft:
    """ST, T and U as dipoles (3,) in mV, changed by one group of findings after the other."""

    codes: Codes
    z: Array  # (12,) normal and
    u: Array  # (6,) uniform numbers: what differs from heart to heart
    direction: Array  # (3,) of the QRS area, of length 1
    gain: float  # of T
    severity: float  # of ST-T findings
    t: Array
    st: Array
    late: Array
    before: Array
    local: Array  # of the first source near the chest wall: st, late, t
    wave_u: Array
    rise: float
    fall: float
    j_wave: Array | None = None


def draw_repolarisation(
    codes: Codes,
    patient: Patient,
    own: np.random.Generator,
    qrs: Waves,
    angle: float,
    amount: float,
    boost: float = 1.0,
) -> Repolarisation:
    """Draw ST, T and U for a ``qrs`` of final size that is turned by ``angle``, T ``boost`` times as large as usual."""
    draft = _normal(codes, patient, own, qrs, amount, boost)
    _change_secondarily(draft)
    _change_with_infarct(draft)
    _change_primarily(draft)
    if _ACUTE & codes:
        _raise_acutely(draft)
    _change_throughout(draft)
    if _PLACE_T - _ACUTE & codes and not ("INVT" in codes and draft.u[4] < 0.3):
        draft.before = _ZERO  # the foot of a normal T, which rises slowly out of the ST segment
    return _with_local_sources(draft, angle, amount)


def _normal(
    codes: Codes, patient: Patient, own: np.random.Generator, qrs: Waves, amount: float, boost: float
) -> _Draft:
    """What follows a normal QRS."""
    z = own.standard_normal(12).clip(-2.2, 2.2)
    u = own.random(6)
    net = qrs.net()[:3]
    size = float(np.linalg.norm(net))
    # T grows with the QRS, though less: an area of 0.04 mV s is typical.
    gain = boost * patient.t_gain * (0.55 + 0.45 * min(size / 0.036, 1.6))
    if "NORM" not in codes:  # a sick heart's T is lower
        gain *= 0.55 + 0.45 * u[2]
    if "LVH" in codes:
        gain *= 0.3 + 0.6 * u[5]
    t = _T_NORMAL * gain + 0.05 * amount * z[:3] * min(gain, 1.2)
    young = patient.sex == "male" and patient.age < 45
    st = 0.9 * np.array([0.034, 0.008, -0.066]) * gain * (1.3 if young else 0.85) * (0.15 + 1.8 * u[0])
    return _Draft(
        codes,
        z,
        u,
        direction=net / size,
        gain=gain,
        severity=0.75 + 0.9 * u[3] ** 1.5,
        t=t,
        st=st,
        late=1.25 * st,
        before=(0.03 + 0.13 * u[5]) * t,
        local=np.array([0.012, 0.018, 0.055]) * z[3:6] * amount * min(gain, 1.0),
        wave_u=_ZERO,
        rise=0.088 + 0.045 * u[1],
        fall=0.080 + 0.032 * u[2],
    )


def _change_secondarily(d: _Draft) -> None:
    """Changes that follow from another QRS: they point away from its area (AHA IV)."""
    codes, t, u = d.codes, d.t, d.u
    if (PACED_VENTRICLE | {"CLBBB"}) & codes:
        d.t, d.st = -0.42 * d.direction * min(d.gain, 1.3), -0.12 * d.direction * d.severity
        d.late = d.st * 1.2
    elif "CRBBB" in codes:
        d.t = np.array([t[0] + 0.06, t[1] + 0.02, 0.02 + 0.16 * u[4]])
        d.st = d.late = np.array([0.02, 0.0, 0.03])
    elif "WPW" in codes:
        d.t = 0.55 * t - 0.16 * d.direction
        d.st = d.late = -0.05 * d.direction
    elif "RVH" in codes:  # strain: T down in V1-V3
        d.t = np.array([0.20, -0.02, 0.24 + 0.1 * u[4]]) * min(d.gain, 1.2)
        d.st, d.late = np.array([0.02, -0.02, 0.05]), np.array([0.02, -0.03, 0.07])
    elif "LVHST" in codes:  # ST down and sloping, T down in I, aVL, V5-V6; the mirror image in V1-V2
        d.t = np.array([-0.34, -0.06, -0.30]) * d.severity
        d.st = np.array([-0.10, -0.03, -0.09]) * d.severity
        d.late = 1.3 * d.st


def _change_with_infarct(d: _Draft) -> None:
    """T of an old infarct, inverted in some over its territory."""
    codes, u = d.codes, d.u
    if "IMI" in codes and u[4] < 0.5:
        d.t = np.array([d.t[0] + 0.05, -0.20, d.t[2]])
    if {"ASMI", "AMI"} & codes and u[4] < 0.6 and "LVHST" not in codes:
        d.t = np.array([(0.8 if "ASMI" in codes else 0.1) * d.t[0], d.t[1], 0.24])
    if "LMI" in codes and u[4] < 0.5:
        d.t = np.array([-0.16, abs(d.t[1]), d.t[2]])
    if "PMI" in codes:
        d.t = np.array([d.t[0], d.t[1], -0.30 - 0.12 * u[4]])


def _change_primarily(d: _Draft) -> None:
    """Findings of ST and T themselves, of which there is at most one."""
    codes, t, u, severity = d.codes, d.t, d.u, d.severity
    if "ISC_" in codes:
        d.t = np.array([-0.20, -0.12, 0.06]) * severity
        d.st = np.array([-0.115, -0.08, 0.02]) * severity
        d.late = (0.9 + 0.6 * u[5]) * d.st
    elif "STD_" in codes:
        d.t = 0.75 * t + np.array([0.06, 0.04, 0.0])
        d.st = np.array([-0.13, -0.08, 0.02]) * severity
        d.late = (0.75 + 0.6 * u[5]) * d.st
    elif "INVT" in codes:
        wide = u[5]  # from anterior only to all of the chest leads
        d.t = np.array([-0.06 - 0.2 * wide, abs(t[1]) * 0.3, 0.24]) * severity
        d.st = d.late = _ZERO
        d.rise, d.fall = 0.10, 0.08
        if u[4] < 0.3:
            d.before = -0.35 * d.t
    elif "NST_" in codes:
        d.t = _T_NORMAL * d.gain * (0.03 + 0.12 * u[4]) + np.array([0.014, 0.01, 0.02]) * d.z[:3]
        d.st = d.late = np.array([-0.03, -0.02, 0.0]) * u[5]
        d.local *= 0.3
    elif "ISTEMI" in codes:
        d.st = np.array([-0.05, 0.20, 0.06]) * severity
    elif "ASTEMI" in codes:
        d.st = np.array([0.08 + 0.06 * u[4], -0.06, -0.30]) * severity
    elif "LSTEMI" in codes:
        d.st = np.array([0.22, -0.10, 0.02 + 0.05 * u[4]]) * severity
    elif "PERIC" in codes:
        d.st = np.array([0.18, 0.12, -0.09]) * severity
        d.late = 0.9 * d.st
    elif "ERP" in codes:
        d.st = np.array([0.095, 0.09, -0.10]) * severity
        d.late = 1.15 * d.st
        d.t = _T_NORMAL * max(d.gain, 1.0) * np.array([1.1, 1.1, 1.3])
        d.j_wave = np.array([0.13, 0.12, -0.02, 0.0, 0.0, 0.0]) * severity
    elif "DIG" in codes:
        d.st = np.array([-0.06, -0.06, 0.02]) * severity
        d.late = 2.4 * d.st
        d.t = 0.45 * t + np.array([0.03, 0.03, 0.0])
    elif "HYPERK" in codes:
        d.t = np.array([0.36, 0.30, -0.5]) * (0.4 + 0.7 * severity) * 1.35
        d.rise, d.fall, d.st, d.late = 0.055, 0.050, 0.3 * d.st, 0.3 * d.st
    elif "HYPOK" in codes:
        d.t = _T_NORMAL * (0.12 + 0.15 * u[4])
        d.st = d.late = np.array([-0.045, -0.03, 0.02]) * severity
        d.wave_u = np.array([0.12, 0.09, -0.12]) * severity


def _raise_acutely(d: _Draft) -> None:
    d.late = (1.05 + 0.7 * d.u[5]) * d.st  # convex
    d.t = d.t + 1.0 * d.st
    d.before = 0.5 * d.late  # the ST segment runs into T without a dip
    if d.u[4] < 0.2:  # already turning
        d.t = d.t - 2.6 * d.st
        d.before = 0.2 * d.late


def _change_throughout(d: _Draft) -> None:
    """QT and voltage change what all others left; U waves come with a slow heart, and by chance."""
    codes = d.codes
    if {"LNGQT", "SHQT"} & codes:
        d.t = np.where(np.abs(d.t) < 0.1, d.t, 0.9 * d.t)
    if "SHQT" in codes:
        d.rise, d.fall = 0.10, 0.075
    if "LVOLT" in codes:
        d.t, d.st, d.late = 0.55 * d.t, 0.6 * d.st, 0.6 * d.late
    if not d.wave_u.any() and not {"LNGQT", "INVT", "ISC_"} & codes and ("SBRAD" in codes or d.z[6] > 1.0):
        d.wave_u = (0.05 + 0.08 * d.u[5]) * d.t
    if RIGHT_LATE & codes and "CRBBB" not in codes:
        d.t = d.t + np.array([0.0, 0.0, 0.05])


def _with_local_sources(d: _Draft, angle: float, amount: float) -> Repolarisation:
    """Add the components of sources near the chest wall, and turn what no finding has placed."""
    free = not _PLACE_T & d.codes
    # Dower's matrix, made for the QRS, shows a normal T of the right size in the limb leads half as large again as
    # measured in V3-V5, which lie near the ventricle that beats first.
    left = -max(0.0, float(d.t @ _T_NORMAL) / float(_T_NORMAL @ _T_NORMAL)) if free else 0.0

    def full(vector: Array, near: float = 0.0, left: float = 0.0, *, turned: bool = False) -> Array:
        whole = np.array([*vector, near, 0.5 * amount * d.z[7] * abs(near), left])
        return rotate_frontal(whole, 0.5 * angle) if turned else whole

    return Repolarisation(
        full(d.st, d.local[0], turned=free),
        full(d.late, d.local[1], turned=free),
        full(d.t, d.local[2], left, turned=free),
        full(d.before),
        full(d.wave_u),
        d.rise,
        d.fall,
        d.j_wave,
    )


# QTc in s (Bazett): shortest, and how much longer it may be. Long is beyond 480 ms (AHA IV), short below 345 ms (ESC
# 2022); digitalis shortens it (Chou).
_QTC = {"LNGQT": (0.493, 0.08), "SHQT": (0.318, 0.026), "DIG": (0.355, 0.03), "HYPERK": (0.37, 0.04)}


def qtc_of(codes: Codes, patient: Patient, own: np.random.Generator, duration: float) -> float:
    """QTc in s (Bazett) for a QRS of ``duration`` s."""
    spread = own.random()
    for code, (shortest, more) in _QTC.items():
        if code in codes:
            return shortest + more * (spread**1.5 if code == "LNGQT" else spread)
    return patient.qtc + max(0.0, duration - 0.1) * 0.6
