"""ST segment, T and U waves for a patient and a set of findings. Vectors in Frank's axes (left, down, back), mV."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from deri.simulate.beats import Array
from deri.simulate.leadfield import rotate_frontal
from deri.simulate.patient import Patient
from deri.simulate.ventricles import DIMENSIONS, RIGHT_LATE
from deri.simulate.waves import TAIL, Waves

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


_SECONDARY = frozenset({"CLBBB", "PACE", "DPACE"})
# Findings that place the T wave; one that none of them has placed follows the rotation of the heart half way.
_OWN_T = _SECONDARY | frozenset(
    {
        "LAFB", "LPFB", "LVHST", "RVH", "IMI", "ASMI", "AMI", "LMI", "PMI", "ISC_", "STD_", "INVT", "ISTEMI", "ASTEMI",
        "LSTEMI", "PERIC", "ERP", "DIG", "HYPERK", "HYPOK",
    }
)  # fmt: skip
_ACUTE = frozenset({"ISTEMI", "ASTEMI", "LSTEMI"})


def draw_repolarisation(
    codes: Collection[str], patient: Patient, own: np.random.Generator, qrs: Waves, angle: float, amount: float,
    boost: float = 1.0,
) -> Repolarisation:  # fmt: skip
    """Draw ST, T and U for a ``qrs`` of final size, T ``boost`` times as large as usual.

    Secondary changes point away from the QRS area (AHA IV).
    """
    z = own.standard_normal(12).clip(-2.2, 2.2)
    u = own.random(6)
    net = qrs.net()[:3]
    size = float(np.linalg.norm(net))
    direction = net / size
    # T grows with the QRS, though less: an area of 0.04 mV s is typical.
    gain = boost * patient.t_gain * (0.55 + 0.45 * min(size / 0.036, 1.6))
    if "NORM" not in codes:  # a sick heart's T is lower
        gain *= 0.55 + 0.45 * u[2]
    if "LVH" in codes:
        gain *= 0.3 + 0.6 * u[5]
    t = _T_NORMAL * gain + 0.05 * amount * z[:3] * min(gain, 1.2)
    young = patient.sex == "male" and patient.age < 45
    st = 0.9 * np.array([0.034, 0.008, -0.066]) * gain * (1.3 if young else 0.85) * (0.15 + 1.8 * u[0])
    late, before, wave_u, j_wave = 1.25 * st, (0.03 + 0.13 * u[5]) * t, _ZERO, None
    rise, fall = 0.088 + 0.045 * u[1], 0.080 + 0.032 * u[2]
    severity = 0.75 + 0.9 * u[3] ** 1.5
    local = np.zeros(5)
    local[:3] = np.array([0.012, 0.018, 0.055]) * z[3:6] * amount * min(gain, 1.0)
    if _SECONDARY & set(codes):
        t, st = -0.42 * direction * min(gain, 1.3), -0.12 * direction * severity
        late = st * 1.2
    elif "CRBBB" in codes:
        t = np.array([t[0] + 0.06, t[1] + 0.02, 0.02 + 0.16 * u[4]])
        st = late = np.array([0.02, 0.0, 0.03])
    elif "WPW" in codes:
        t = 0.55 * t - 0.16 * direction
        st = late = -0.05 * direction
    elif "RVH" in codes:  # strain: T down in V1-V3
        t = np.array([0.20, -0.02, 0.24 + 0.1 * u[4]]) * min(gain, 1.2)
        st, late = np.array([0.02, -0.02, 0.05]), np.array([0.02, -0.03, 0.07])
    elif "LVHST" in codes:  # ST down and sloping, T down in I, aVL, V5-V6; the mirror image in V1-V2
        t = np.array([-0.34, -0.06, -0.30]) * severity
        st = np.array([-0.10, -0.03, -0.09]) * severity
        late = 1.3 * st
    if "IMI" in codes and u[4] < 0.5:
        t = np.array([t[0] + 0.05, -0.20, t[2]])
    if {"ASMI", "AMI"} & set(codes) and u[4] < 0.6 and "LVHST" not in codes:
        t = np.array([(0.8 if "ASMI" in codes else 0.1) * t[0], t[1], 0.24])
    if "LMI" in codes and u[4] < 0.5:
        t = np.array([-0.16, abs(t[1]), t[2]])
    if "PMI" in codes:
        t = np.array([t[0], t[1], -0.30 - 0.12 * u[4]])
    if "ISC_" in codes:
        t = np.array([-0.20, -0.12, 0.06]) * severity
        st = np.array([-0.115, -0.08, 0.02]) * severity
        late = (0.9 + 0.6 * u[5]) * st
    elif "STD_" in codes:
        t = 0.75 * t + np.array([0.06, 0.04, 0.0])
        st = np.array([-0.13, -0.08, 0.02]) * severity
        late = (0.75 + 0.6 * u[5]) * st
    elif "INVT" in codes:
        wide = u[5]  # from anterior only to all of the chest leads
        t = np.array([-0.06 - 0.2 * wide, abs(t[1]) * 0.3, 0.24]) * severity
        st = late = _ZERO
        rise, fall = 0.10, 0.08
        if u[4] < 0.3:
            before = -0.35 * t
    elif "NST_" in codes:
        t = _T_NORMAL * gain * (0.03 + 0.12 * u[4]) + np.array([0.014, 0.01, 0.02]) * z[:3]
        st = late = np.array([-0.03, -0.02, 0.0]) * u[5]
        local *= 0.3
    elif "ISTEMI" in codes:
        st = np.array([-0.05, 0.20, 0.06]) * severity
    elif "ASTEMI" in codes:
        st = np.array([0.08 + 0.06 * u[4], -0.06, -0.30]) * severity
    elif "LSTEMI" in codes:
        st = np.array([0.22, -0.10, 0.02 + 0.05 * u[4]]) * severity
    elif "PERIC" in codes:
        st = np.array([0.18, 0.12, -0.09]) * severity
        late = 0.9 * st
    elif "ERP" in codes:
        st = np.array([0.095, 0.09, -0.10]) * severity
        late = 1.15 * st
        t = _T_NORMAL * max(gain, 1.0) * np.array([1.1, 1.1, 1.3])
        j_wave = np.array([0.13, 0.12, -0.02, 0.0, 0.0, 0.0]) * severity
    elif "DIG" in codes:
        st = np.array([-0.06, -0.06, 0.02]) * severity
        late = 2.4 * st
        t = 0.45 * t + np.array([0.03, 0.03, 0.0])
    elif "HYPERK" in codes:
        t = np.array([0.36, 0.30, -0.5]) * (0.4 + 0.7 * severity) * 1.35
        rise, fall, st, late = 0.055, 0.050, 0.3 * st, 0.3 * st
    elif "HYPOK" in codes:
        t = _T_NORMAL * (0.12 + 0.15 * u[4])
        st = np.array([-0.045, -0.03, 0.02]) * severity
        late = st
        wave_u = np.array([0.12, 0.09, -0.12]) * severity
    if _ACUTE & set(codes):
        late = (1.05 + 0.7 * u[5]) * st  # convex
        t = t + 1.0 * st
        before = 0.5 * late  # the ST segment runs into T without a dip
        if u[4] < 0.2:  # already turning
            t = t - 2.6 * st
            before = 0.2 * late
    if {"LNGQT", "SHQT"} & set(codes):
        t = np.where(np.abs(t) < 0.1, t, 0.9 * t)
    if "SHQT" in codes:
        rise, fall = 0.10, 0.075
    if "LVOLT" in codes:
        t, st, late = 0.55 * t, 0.6 * st, 0.6 * late
    if not wave_u.any() and not {"LNGQT", "INVT", "ISC_"} & set(codes) and ("SBRAD" in codes or z[6] > 1.0):
        wave_u = (0.05 + 0.08 * u[5]) * t
    if RIGHT_LATE & set(codes) and "CRBBB" not in codes:
        t = t + np.array([0.0, 0.0, 0.05])

    if _OWN_T - _ACUTE & set(codes) and not ("INVT" in codes and u[4] < 0.3):
        before = _ZERO  # the foot of a normal T, which rises slowly out of the ST segment
    # Dower's matrix, made for the QRS, shows a normal T of the right size in the limb leads half as large again as
    # measured in V3-V5, which lie near the ventricle that beats first.
    near_t = -max(0.0, float(t @ _T_NORMAL) / float(_T_NORMAL @ _T_NORMAL)) if not _OWN_T & set(codes) else 0.0

    def full(vector: Array, near: float = 0.0, left: float = 0.0) -> Array:
        return np.array([*vector, near, 0.5 * amount * z[7] * abs(near), left])

    found = Repolarisation(
        full(st, local[0]), full(late, local[1]), full(t, local[2], near_t), full(before), full(wave_u), rise, fall,
        j_wave,
    )  # fmt: skip
    if not _OWN_T & set(codes):
        found = replace(
            found, t=rotate_frontal(found.t, 0.5 * angle), st=rotate_frontal(found.st, 0.5 * angle),
            st_late=rotate_frontal(found.st_late, 0.5 * angle),
        )  # fmt: skip
    return found


def qtc_of(codes: Collection[str], patient: Patient, own: np.random.Generator, duration: float) -> float:
    """QTc in s (Bazett). Long beyond 480 ms (AHA IV), short below 345 ms (ESC 2022); digitalis shortens it (Chou)."""
    spread = own.random()
    if "LNGQT" in codes:
        return 0.493 + 0.08 * spread**1.5
    if "SHQT" in codes:
        return 0.318 + 0.026 * spread
    if "DIG" in codes:
        return 0.355 + 0.03 * spread
    if "HYPERK" in codes:
        return 0.37 + 0.04 * spread
    return patient.qtc + max(0.0, duration - 0.1) * 0.6
