"""The QRS complex: tables of waves by pattern, varied from heart to heart, and brought to axis, duration and voltage.

Tables of waves are written with time in ms from the peak of the main QRS wave and vectors in Frank's axes (x
left, y down, z back) in mV. Vectors follow the classical account of each pattern (Chou; AHA III-VI) and were
fitted by eye and by the tests' measurements through Dower's matrix.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

import numpy as np

from deri.simulate.beats import Array
from deri.simulate.leadfield import rotate_frontal, rotate_horizontal, rotation_to_axis
from deri.simulate.patient import Patient, clamp
from deri.simulate.waves import Waves

Row = tuple[float, float, float, float, float, float]

DIMENSIONS = 6
"""Of a vector: the dipole and three sources near the chest wall (`morphology`)."""
_FLOOR = 0.04  # of the peak of the dipole's magnitude: where the QRS is taken to begin and end

# Septum (right, front), apex and free wall of the left ventricle (left, down), posterior wall, base (back).
_NORMAL: list[Row] = [
    (-25, 6.5, 6.5, -0.14, -0.04, -0.17),
    (-9, 6, 6, 0.46, 0.32, -0.42),
    (0, 6.2, 6.2, 1.10, 0.80, 0.37),
    (10, 6.2, 6.5, 0.34, 0.29, 0.86),
    (25, 8, 9, -0.14, 0.06, 0.40),
]
# The right ventricle, excited late through the myocardium, points right and front (AHA III).
_CRBBB: list[Row] = [
    *_NORMAL[:3],
    (13, 8, 8, 0.18, 0.14, 0.50),
    (41, 12, 13, -0.34, -0.04, -0.56),
    (65, 12, 15, -0.26, -0.05, -0.26),
]
_IRBBB: list[Row] = [*_NORMAL[:3], (14, 8.5, 9, 0.26, 0.10, 0.46), (36, 8, 9, -0.30, -0.06, -0.42)]
# Right to left through the septum, then slowly the free wall: no septal q, notched plateau to the left and
# back (AHA III).
_CLBBB: list[Row] = [
    (-34, 13, 13, 0.26, 0.14, 0.20),
    (-8, 15, 16, 0.70, 0.42, 0.86),
    (26, 16, 17, 0.66, 0.24, 1.02),
    (56, 14, 15, 0.26, -0.02, 0.46),
]
_ILBBB: list[Row] = [
    (-26, 8, 8, 0.16, 0.06, 0.02),
    (-12, 9, 9, 0.46, 0.30, 0.10),
    (2, 10, 10, 0.84, 0.62, 0.42),
    (17, 9, 10, 0.40, 0.10, 0.52),
    (30, 8, 8, 0.02, -0.06, 0.26),
]
# Slow everywhere and in no order of a bundle branch: notches within (AHA III).
_IVCD: list[Row] = [
    (-30, 7, 8, -0.12, -0.02, -0.18),
    (-14, 9, 10, 0.44, 0.32, -0.20),
    (3, 10, 11, 0.70, 0.56, 0.26),
    (22, 10, 11, 0.42, 0.30, 0.48),
    (42, 10, 11, -0.10, -0.16, 0.34),
]
# Inferior-septal first (q in I, aVL; r in II, III, aVF), then up and left late (AHA III).
_LAFB: list[Row] = [
    (-26, 7, 7, -0.20, 0.22, -0.18),
    (-12, 8, 8, 0.46, 0.12, -0.26),
    (2, 10, 10, 0.86, -0.52, 0.22),
    (18, 9, 10, 0.28, -0.50, 0.48),
    (32, 8, 8, -0.08, -0.20, 0.26),
]
# The mirror image: up and left first (r in I, aVL; q in III), then down and right (AHA III).
_LPFB: list[Row] = [
    (-26, 7, 7, 0.24, -0.24, -0.16),
    (-12, 8, 8, 0.30, 0.10, -0.30),
    (2, 10, 10, 0.10, 0.98, 0.14),
    (18, 9, 10, -0.36, 0.56, 0.44),
    (32, 8, 8, -0.26, 0.14, 0.26),
]
# A heart that hangs steeply: the main vector points down and a little to the right.
_STEEP: list[Row] = [
    (-26, 6.5, 7, -0.06, 0.02, -0.20),
    (-12, 8, 8, 0.26, 0.34, -0.30),
    (0, 9, 9, 0.16, 0.98, 0.24),
    (14, 8.5, 9, -0.06, 0.24, 0.52),
    (26, 8, 8, -0.10, -0.02, 0.30),
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
_DELTA_A: list[Row] = [(-44, 12, 13, 0.18, 0.10, -0.22), (-24, 11, 11, 0.44, 0.24, -0.50)]
_DELTA_B: list[Row] = [(-44, 12, 13, 0.22, 0.12, 0.12), (-24, 11, 11, 0.60, 0.28, 0.20)]
# Apical right ventricular pacing: as left bundle branch block, but from the apex upwards.
_PACED: list[Row] = [
    (-34, 14, 14, 0.20, -0.26, 0.14),
    (-6, 17, 17, 0.62, -0.62, 0.52),
    (32, 17, 18, 0.52, -0.60, 0.66),
    (62, 14, 15, 0.10, -0.22, 0.36),
]

RIGHT_LATE = frozenset({"CRBBB", "IRBBB"})
_PACED_CODES = frozenset({"PACE", "DPACE"})
_LEFT = frozenset({"CLBBB", "PACE", "DPACE"})
_INFARCTS = frozenset({"IMI", "ASMI", "AMI", "LMI", "PMI"})


def extent(waves: Waves) -> tuple[float, float]:
    """First and last time (s) at which the dipole of ``waves`` exceeds 4 % of its peak magnitude."""
    times = np.arange((waves.centre - 3.6 * waves.rise).min(), (waves.centre + 3.6 * waves.fall).max(), 0.002)
    power = (waves.values(times) ** 2).sum(axis=0)
    above = np.flatnonzero(power >= _FLOOR**2 * power.max())
    return float(times[above[0]]), float(times[above[-1]])


@lru_cache(maxsize=64)
def _known(rows: tuple[Row, ...]) -> Waves:
    return Waves.table(rows)


def _table(codes: Collection[str], patient: Patient, own: np.random.Generator) -> list[Row]:
    if _PACED_CODES & set(codes):
        return _PACED
    if "CLBBB" in codes:
        return _CLBBB
    if "RVH" in codes:
        return _RVH
    if "ILBBB" in codes or "IVCD" in codes:
        return list(_ILBBB if "ILBBB" in codes else _IVCD)
    table = list(_LAFB if "LAFB" in codes else _LPFB if "LPFB" in codes else _STEEP if "RAD" in codes else _NORMAL)
    if RIGHT_LATE & set(codes):
        late = _CRBBB if "CRBBB" in codes else _IRBBB
        size = (0.65 if "CRBBB" in codes else 0.5) * 2.3 ** own.random()  # R' and S are of any size
        end = [(t, rise, fall, size * x, size * y, size * z) for t, rise, fall, x, y, z in late[4:]]
        table = [*table[:3], late[3] if not {"LAFB", "LPFB"} & set(codes) else table[3], *end]
    if "WPW" in codes:
        table = [*(_DELTA_A if patient.variant < 0.5 else _DELTA_B), *table[1:]]
    return table


def _infarct(table: list[Row], codes: Collection[str], own: np.random.Generator) -> list[Row]:
    """Dead myocardium no longer pulls the early vector its way: it points away (UDMI: Q waves by territory)."""
    depth = own.uniform(0.95, 1.5)
    if "IMI" in codes:
        early: list[Row] = [(-27, 8, 9, -0.10, -0.44 * depth, -0.12), (-13, 9, 9, 0.36, -0.36 * depth, -0.26)]
        t, rise, fall, x, y, z = table[2]
        table = [*early, (t + 3, rise, fall, x, 0.86 * y, z), *table[3:]]
    if "ASMI" in codes:
        early = [
            (-26, 8, 8, 0.02, 0.06 if "IMI" not in codes else -0.4, 0.34 * depth),
            (-12, 9, 9, 0.20, 0.26 if "IMI" not in codes else -0.3, 0.52 * depth),
        ]
        t, rise, fall, x, y, z = table[2]
        table = [*early, (t, rise, fall, x, y, z + 0.36), *table[3:]]
    if "LMI" in codes:
        early = [(-27, 8, 9, -0.52 * depth, 0.04, -0.18), (-12, 9, 9, -0.54 * depth, 0.16, -0.20)]
        t, rise, fall, x, y, z = table[2]
        late = [(t + 8, rise, fall, x, y, z) for t, rise, fall, x, y, z in table[3:]]
        table = [*early, (t + 9, rise, fall, 0.72 * x, y, z), *late]
    if "PMI" in codes:  # nothing pulls back: the middle and end of the QRS point to the front
        table = [
            (t, rise, fall, x, y, z - (0.62 if k >= 2 else 0.16) * depth)
            for k, (t, rise, fall, x, y, z) in enumerate(table)
        ]
    return table


def duration_of(codes: Collection[str], patient: Patient, own: np.random.Generator) -> float:
    """QRS duration in s (AHA III; normal 70-112 ms)."""
    normal = 0.091 * patient.qrs_width
    spread = own.random()
    if _PACED_CODES & set(codes):
        return 0.138 + 0.046 * spread
    if "CLBBB" in codes:
        return 0.128 + 0.046 * spread + 0.12 * (normal - 0.09)
    if "CRBBB" in codes:
        return 0.124 + 0.032 * spread + 0.12 * (normal - 0.09)
    if "IVCD" in codes:
        return 0.116 + 0.030 * spread
    if "WPW" in codes:
        return 0.119 + 0.024 * spread
    if "IRBBB" in codes:
        return 0.102 + 0.012 * spread
    if "ILBBB" in codes:
        return 0.110 + 0.007 * spread
    grown = {"LVH", "LVHST", "RVH", "HYPERK"} | _INFARCTS
    return normal + (0.007 if {"LAFB", "LPFB"} & set(codes) else 0) + (0.006 if grown & set(codes) else 0)


def axis_of(codes: Collection[str], patient: Patient, own: np.random.Generator) -> float:
    """The frontal QRS axis in degrees that the findings ask for, else the patient's."""
    spread = own.random()
    if "LAFB" in codes:
        return -74 + 28 * spread
    if "LPFB" in codes:
        return 98 + 34 * spread
    if "RVH" in codes:
        return 102 + 38 * spread
    if "LAD" in codes:
        return -58 + 26 * spread
    if "RAD" in codes:
        return 94 + 40 * spread
    if _PACED_CODES & set(codes):
        return -88 + 55 * spread if patient.variant < 0.8 else 20 + 70 * spread
    if "CLBBB" in codes:
        return clamp(patient.axis - 65 + 50 * spread, -40, 65)
    if {"LVH", "LVHST"} & set(codes):
        return clamp(patient.axis - 25 * spread, -29, 88)
    if "IMI" in codes:  # inferior forces are lost
        return clamp(patient.axis - 25, -27, 20)
    if "LMI" in codes:
        return clamp(patient.axis + 25, 30, 88)
    return patient.axis


def _varied(rows: Sequence[Row], own: np.random.Generator, amount: float) -> Waves:
    """No two hearts are alike: each wave is a little earlier or later, longer or shorter, turned, larger or smaller.

    The components of sources near the chest wall are all variation. One heart in three has a notch.
    """
    known = _known(tuple(rows))
    k = len(known)
    z = own.standard_normal((k, 9)).clip(-2.2, 2.2) * amount
    size = np.sqrt((known.vector**2).sum(axis=1)).max()
    vector = np.zeros((k, DIMENSIONS))
    vector[:, :3] = known.vector * (1 + 0.16 * z[:, :1]) + 0.085 * size * z[:, 1:4]
    vector[:, 3] = 0.12 * size * z[:, 4]
    vector[:, 4] = 0.16 * size * z[:, 8]
    gap = 0.0022 * z[:, 5]
    waves = Waves(known.centre + gap, known.rise * (1 + 0.1 * z[:, 6]), known.fall * (1 + 0.1 * z[:, 7]), vector)
    notch = own.random(2)
    if notch[0] < 0.33 * amount:
        low, high = known.centre[0], known.centre[-1]
        extra = 0.12 * size * _details(own, 1)
        at, width = np.array([low + (high - low) * notch[1]]), np.array([0.0035 + 0.003 * notch[0]])
        waves = Waves.join(waves, Waves(at, width, width, extra))
    return waves


def _details(own: np.random.Generator, count: int) -> Array:
    """(count, DIMENSIONS) random vectors of about unit size."""
    vector = np.zeros((count, DIMENSIONS))
    vector[:, :5] = own.standard_normal((count, 5)).clip(-2, 2)
    return vector


def _sharpened(waves: Waves, own: np.random.Generator, amount: float, since: float = 0.0) -> Waves:
    """With the fine structure that a few smooth waves lack.

    A real QRS has a hundred times the power of single Gaussians of its width above 40 Hz: its peaks are pointed, and
    the front that runs through the Purkinje net leaves small fast waves (Golden et al., Am J Cardiol 1973: contents to
    beyond 100 Hz). So each wave is a broad and a narrow one, and a few narrow ones of any direction are added, none in
    the share ``since`` of the QRS at its start.
    """
    k, size = len(waves), np.sqrt((waves.vector[:, :3] ** 2).sum(axis=1)).max()
    strength = np.sqrt((waves.vector[:, :3] ** 2).sum(axis=1))[:, None] / size
    part = (0.12 + 0.36 * strength**2 + 0.10 * own.standard_normal((k, 1))).clip(0.05, 0.7)
    part *= np.minimum(1.0, 0.0072 / waves.rise)[:, None] ** 1.6  # what goes slowly is not pointed
    near = waves.centre + 0.0018 * own.standard_normal(k).clip(-2, 2)
    width = 0.44 + 0.20 * own.random(k)
    count = 5
    u = own.random((2, count))
    at = waves.centre[0] + (waves.centre[-1] - waves.centre[0]) * (since + (1 - since) * u[0])
    slow = max(1.0, waves.rise.mean() / 0.008)
    fine = 0.0030 * 2.0 ** u[1] * slow
    vector = (0.006 + 0.022 * amount) * size / slow * _details(own, count)
    return Waves(
        np.concatenate([waves.centre, near, at]),
        np.concatenate([waves.rise, width * waves.rise, fine]),
        np.concatenate([waves.fall, width * waves.fall, fine]),
        np.concatenate([(1 - part) * waves.vector, part * 1.12 * waves.vector, vector]),
    )


def conducted_qrs(codes: Collection[str], patient: Patient, own: np.random.Generator, amount: float) -> tuple[
    Waves, float, float
]:  # fmt: skip
    """The QRS at no particular voltage, beginning at 0 s; its duration in s; its rotation in the frontal plane."""
    duration = duration_of(codes, patient, own)
    waves = _varied(_infarct(_table(codes, patient, own), codes, own), own, amount)
    waves = _sharpened(waves, own, amount, 0.45 if (_INFARCTS | {"CLBBB", "ILBBB", "WPW"}) & set(codes) else 0.0)
    first, last = extent(waves)
    factor = duration / (last - first)
    vector = waves.vector
    if "AMI" in codes:  # seen by the electrodes above it alone: the septum, and its r in V1, live
        vector[:3, 3] = np.array([-0.7, -1.4, -0.7]) * (0.9 + 0.4 * own.random())
        vector[0, 2] *= 0.6
    if {"LVH", "LVHST"} & set(codes):  # the larger left ventricle pulls left and back
        vector[:, 2] += 0.17 * vector[:, 0].clip(0)
    if not {"RVH", "ASMI", "PMI", "AMI", "LMI"} & set(codes) and not _LEFT & set(codes):
        vector = rotate_horizontal(vector, patient.turn * (0.4 + 0.6 * amount))
    qrs = Waves((waves.centre - first) * factor, waves.rise * factor, waves.fall * factor, vector)
    angle = rotation_to_axis(axis_part(qrs, codes).net()[:3], axis_of(codes, patient, own))
    if "LMI" in codes:  # the lost forces set the axis, and turned far they would not be lateral ones
        angle = clamp(angle, -22, 22)
    return Waves(qrs.centre, qrs.rise, qrs.fall, rotate_frontal(vector, angle)), duration, angle


def axis_part(qrs: Waves, codes: Collection[str]) -> Waves:
    """The waves that make the axis: in right bundle branch block those before the late right ventricle (AHA III)."""
    if not RIGHT_LATE & set(codes):
        return qrs
    keep = qrs.centre < 0.5 * (qrs.centre[3] + qrs.centre[4])  # of the table, whose last wave is the late one
    return Waves(qrs.centre[keep], qrs.rise[keep], qrs.fall[keep], qrs.vector[keep])


def ectopic_qrs(patient: Patient, own: np.random.Generator) -> tuple[Waves, float]:
    """A beat from the ventricle: wide, large (Chou). The focus is the patient's: right (as in left bundle branch block)
    or left, outflow tract (axis down) or towards the apex (up)."""
    right, u = patient.variant < 0.55, own.random(4)
    up = -1.0 + 1.1 * u[0] if u[1] < 0.45 else 0.2 + 0.9 * u[0]
    side = np.array([0.7, 0.0, 0.8]) if right else np.array([-0.55, 0.0, -0.9])
    main = side + np.array([0.0, up, 0.0])
    main = main * (1.1 * 2.2 ** u[2]) / np.linalg.norm(main)
    turn = 0.35 * own.standard_normal((3, 3)).clip(-1.5, 1.5)
    vector = np.zeros((3, DIMENSIONS))
    vector[:, :3] = np.array([[0.4], [1.0], [0.6]]) * (main + turn * np.array([[1.0], [0.3], [1.0]]))
    duration = 0.132 + 0.04 * u[3]
    vector[:, 3:5] = 0.12 * own.standard_normal((3, 2)).clip(-2, 2)
    waves = Waves(
        np.array([-0.034, 0.0, 0.044]), np.array([0.015, 0.019, 0.017]), np.array([0.016, 0.02, 0.018]), vector
    )
    waves = _sharpened(waves, own, 0.7)
    first, last = extent(waves)
    factor = duration / (last - first)
    qrs = Waves((waves.centre - first) * factor, waves.rise * factor, waves.fall * factor, waves.vector)
    return qrs.scaled(0.4 + 0.6 * patient.gain), duration
