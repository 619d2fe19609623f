"""The QRS complex: tables of waves by pattern (``data/qrs.yaml``), varied from heart to heart, and brought to axis,
duration and voltage. Vectors in Frank's axes (x left, y down, z back), mV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from deri.files import parse_yaml, shipped_text
from deri.simulate.leadfield import rotate_frontal, rotate_horizontal, rotation_to_axis
from deri.simulate.patient import Patient, clamp
from deri.simulate.waves import Array, Waves

Row = tuple[float, float, float, float, float, float]
Codes = frozenset[str]

DIMENSIONS = 6
"""Of a vector: the dipole and three sources near the chest wall (`morphology`)."""
_FLOOR = 0.04  # of the peak of the dipole's magnitude: where the QRS is taken to begin and end

RIGHT_LATE = frozenset({"CRBBB", "IRBBB"})
PACED_VENTRICLE = frozenset({"PACE", "DPACE"})
_INFARCTS = frozenset({"IMI", "ASMI", "AMI", "LMI", "PMI"})


def _lasting(waves: Waves, seconds: float) -> Waves:
    """``waves`` moved and stretched so that their dipole exceeds 4 % of its peak from 0 s to ``seconds``."""
    times = np.arange((waves.centre - 3.6 * waves.rise).min(), (waves.centre + 3.6 * waves.fall).max(), 0.002)
    power = (waves.values(times) ** 2).sum(axis=0)
    above = np.flatnonzero(power >= _FLOOR**2 * power.max())
    first, last = float(times[above[0]]), float(times[above[-1]])
    factor = seconds / (last - first)
    return Waves((waves.centre - first) * factor, waves.rise * factor, waves.fall * factor, waves.vector)


_known = lru_cache(maxsize=64)(Waves.table)


# Patterns that stand for themselves; all others are a beginning and, in right bundle branch block, an end.
_PATTERN = {"PACE": "paced", "DPACE": "paced", "CLBBB": "clbbb", "RVH": "rvh", "ILBBB": "ilbbb", "IVCD": "ivcd"}
_START = {"LAFB": "lafb", "LPFB": "lpfb", "RAD": "steep"}


@cache
def _patterns() -> dict[str, list[Row]]:
    content = parse_yaml(shipped_text("deri.simulate", "data/qrs.yaml"))
    patterns: dict[str, list[Row]] = {name: [tuple(row) for row in rows] for name, rows in content.items()}
    odd = [name for name, rows in patterns.items() if any(len(row) != 6 for row in rows)]
    if odd:
        raise ValueError(f"a wave has six numbers; see {', '.join(odd)} in qrs.yaml")
    return patterns


def _table(codes: Codes, patient: Patient, own: np.random.Generator) -> list[Row]:
    patterns = _patterns()
    whole = next((pattern for code, pattern in _PATTERN.items() if code in codes), None)
    if whole is not None:
        return patterns[whole]
    table = patterns[next((pattern for code, pattern in _START.items() if code in codes), "normal")]
    if RIGHT_LATE & codes:
        late = patterns["crbbb" if "CRBBB" in codes else "irbbb"]
        size = (0.65 if "CRBBB" in codes else 0.5) * 2.3 ** own.random()  # R' and S are of any size
        end = [(t, rise, fall, size * x, size * y, size * z) for t, rise, fall, x, y, z in late[1:]]
        table = [*table[:3], late[0] if not {"LAFB", "LPFB"} & codes else table[3], *end]
    if "WPW" in codes:
        table = [*patterns["delta_a" if patient.variant < 0.5 else "delta_b"], *table[1:]]
    return table


def _infarct(table: list[Row], codes: Codes, own: np.random.Generator) -> list[Row]:
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


# QRS durations (AHA III): shortest, and how much longer they may be, in s. Normal is 70-112 ms.
_DURATION = {
    "PACE": (0.138, 0.046),
    "DPACE": (0.138, 0.046),
    "CLBBB": (0.128, 0.046),
    "CRBBB": (0.124, 0.032),
    "IVCD": (0.116, 0.030),
    "WPW": (0.119, 0.024),
    "IRBBB": (0.102, 0.012),
    "ILBBB": (0.110, 0.007),
}
# QRS axes, in degrees, likewise.
_AXIS = {"LAFB": (-74, 28), "LPFB": (98, 34), "RVH": (102, 38), "LAD": (-58, 26), "RAD": (94, 40)}


def _duration(codes: Codes, patient: Patient, own: np.random.Generator) -> float:
    """QRS duration in s."""
    normal = 0.091 * patient.qrs_width
    spread = own.random()
    for code, (shortest, more) in _DURATION.items():
        if code in codes:
            slow = 0.12 * (normal - 0.09) if code in ("CLBBB", "CRBBB") else 0.0
            return shortest + more * spread + slow
    grown = {"LVH", "LVHST", "RVH", "HYPERK"} | _INFARCTS
    return normal + (0.007 if {"LAFB", "LPFB"} & codes else 0) + (0.006 if grown & codes else 0)


def _axis(codes: Codes, patient: Patient, own: np.random.Generator) -> float:
    """The frontal QRS axis in degrees that the findings ask for, else the patient's."""
    spread = own.random()
    for code, (least, more) in _AXIS.items():
        if code in codes:
            return least + more * spread
    if PACED_VENTRICLE & codes:
        return -88 + 55 * spread if patient.variant < 0.8 else 20 + 70 * spread
    if "CLBBB" in codes:
        return clamp(patient.axis - 65 + 50 * spread, -40, 65)
    if {"LVH", "LVHST"} & codes:
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
        extra = 0.12 * size * _details(own, 1)[0]
        waves = Waves.join(waves, Waves.single(low + (high - low) * notch[1], 0.0035 + 0.003 * notch[0], extra))
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


def conducted_qrs(
    codes: Codes, patient: Patient, own: np.random.Generator, amount: float
) -> tuple[Waves, float, float]:
    """The QRS at no particular voltage, beginning at 0 s; its duration in s; its rotation in the frontal plane."""
    duration = _duration(codes, patient, own)
    waves = _varied(_infarct(_table(codes, patient, own), codes, own), own, amount)
    waves = _sharpened(waves, own, amount, 0.45 if (_INFARCTS | {"CLBBB", "ILBBB", "WPW"}) & codes else 0.0)
    qrs = _lasting(waves, duration)
    vector = qrs.vector
    if "AMI" in codes:  # seen by the electrodes above it alone: the septum, and its r in V1, live
        vector[:3, 3] = np.array([-0.7, -1.4, -0.7]) * (0.9 + 0.4 * own.random())
        vector[0, 2] *= 0.6
    if {"LVH", "LVHST"} & codes:  # the larger left ventricle pulls left and back
        vector[:, 2] += 0.17 * vector[:, 0].clip(0)
    if not {"RVH", "ASMI", "PMI", "AMI", "LMI", "CLBBB", "PACE", "DPACE"} & codes:
        vector = rotate_horizontal(vector, patient.turn * (0.4 + 0.6 * amount))
    qrs = replace(qrs, vector=vector)
    angle = rotation_to_axis(axis_part(qrs, codes).net()[:3], _axis(codes, patient, own))
    if "LMI" in codes:  # the lost forces set the axis, and turned far they would not be lateral ones
        angle = clamp(angle, -22, 22)
    return replace(qrs, vector=rotate_frontal(vector, angle)), duration, angle


def axis_part(qrs: Waves, codes: Codes) -> Waves:
    """The waves that make the axis: in right bundle branch block those before the late right ventricle (AHA III)."""
    if not RIGHT_LATE & codes:
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
    qrs = _lasting(_sharpened(waves, own, 0.7), duration)
    return qrs.scaled(0.4 + 0.6 * patient.gain), duration
