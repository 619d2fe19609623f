"""From a cardiac dipole to the 12 leads.

Axes are Frank's: x to the patient's left, y to the feet, z to the back; all in mV.
"""

from __future__ import annotations

import math

import numpy as np

from deri.simulate.waves import Array

# Dower GE, Machado HB, Osborne JA: On deriving the electrocardiogram from vectorcardiographic leads, Clin
# Cardiol 1980;3:87-95. The matrix rests on Frank's torso image surface; its pseudo-inverse is what Edenbrandt
# and Pahlm (J Electrocardiol 1988;21:361-367) call the inverse Dower matrix. Rows: I, II, V1 ... V6; columns:
# x, y, z.
DOWER: Array = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# Leads I and aVF * 2/sqrt(3) of a dipole: the two axes of the frontal plane. (Augmented leads are smaller by
# sqrt(3)/2.)
_FRONTAL: list[list[float]] = np.stack([DOWER[0], 2 / np.sqrt(3) * (DOWER[1] - DOWER[0] / 2)]).tolist()

# Einthoven (III = II - I) and Goldberger: 12 leads in canonical order from I, II, V1 ... V6.
FROM_INDEPENDENT: Array = np.zeros((12, 8))
FROM_INDEPENDENT[:6, :2] = np.array([[1, 0], [0, 1], [-1, 1], [-0.5, -0.5], [1, -0.5], [-0.5, 1]])
FROM_INDEPENDENT[6:, 2:] = np.eye(6)

# The same leads from the potentials of nine electrodes RA, LA, LL, C1 ... C6 (Wilson's central terminal for
# the chest). Noise arises at electrodes, so that III = II - I holds for it too.
FROM_ELECTRODES: Array = np.zeros((12, 9))
FROM_ELECTRODES[:6, :3] = np.array(
    [
        [-1, 1, 0],
        [-1, 0, 1],
        [0, -1, 1],
        [1, -0.5, -0.5],
        [-0.5, 1, -0.5],
        [-0.5, -0.5, 1],
    ]
)
FROM_ELECTRODES[6:, :3] = -1 / 3
FROM_ELECTRODES[6:, 3:] = np.eye(6)


def lead_matrix(
    chest_gain: Array | None = None, shift: float = 0.0, lift: float = 0.0, local: Array | None = None
) -> Array:
    """(12, 3 + k) from dipole and local sources to leads, canonical order.

    V1 ... V6 are taken times ``chest_gain`` (6,) where given. ``shift`` moves the chest electrodes along their row by
    so many electrode distances to the left, ``lift`` moves them up: that share of a lead's strength is then taken from
    its view of what points to the feet. ``local`` (8, k) adds k columns: what sources near the electrodes add to I, II,
    V1 ... V6, which no dipole can show.
    """
    chest = DOWER[2:]
    if shift or lift:
        place = np.arange(6) + shift
        left = np.floor(place).clip(0, 4).astype(np.intp)
        part = (place - left).clip(-0.5, 1.3)[:, None]
        chest = (1 - part) * chest[left] + part * chest[left + 1]
        chest[:, 1] -= lift * np.sqrt((chest**2).sum(axis=1))
    if chest_gain is not None:
        chest = chest * chest_gain[:, None]
    independent = np.concatenate([DOWER[:2], chest])
    if local is not None:
        independent = np.concatenate([independent, local], axis=1)
    return FROM_INDEPENDENT @ independent


def frontal_axis(vector: Array) -> float:
    """Electrical axis in degrees, in (-180, 180], of a net dipole ``vector`` (3,) as leads I and aVF show it."""
    right, down = (sum(a * float(v) for a, v in zip(lead, vector, strict=True)) for lead in _FRONTAL)
    return math.degrees(math.atan2(down, right))


def rotate_frontal(vectors: Array, degrees: float) -> Array:
    """Rotate dipole ``vectors`` (..., 3) about the front-back axis; positive turns left towards the feet."""
    return _rotated(vectors, degrees, 1)


def rotate_horizontal(vectors: Array, degrees: float) -> Array:
    """Rotate dipole ``vectors`` (..., 3) about the head-feet axis; positive turns left towards the front."""
    return _rotated(vectors, -degrees, 2)


def _rotated(vectors: Array, degrees: float, other: int) -> Array:
    """``vectors`` turned from left towards the axis ``other``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotated = np.array(vectors, dtype=np.float64)
    rotated[..., 0] = c * vectors[..., 0] - s * vectors[..., other]
    rotated[..., other] = s * vectors[..., 0] + c * vectors[..., other]
    return rotated


def rotation_to_axis(net: Array, target: float) -> float:
    """The rotation (degrees) about the front-back axis that gives the vector ``net`` (3,) the axis ``target``.

    Leads I and aVF are not orthogonal in Dower's torso, so this is not the difference of the axes. With the
    rotated lead values written as a cos + b sin + c, the axis is right where p cos + q sin + r = 0; of its
    two solutions the one that points towards, not away from, the target is taken. Where the sagittal part of
    ``net`` makes the axis unreachable, the nearest is.
    """
    x, y, z = (float(v) for v in net)
    turn = math.radians(target)
    cos_t, sin_t = math.cos(turn), math.sin(turn)
    along, across = [0.0] * 3, [0.0] * 3  # coefficients of cos, sin and 1 along the target's direction, and across it
    for lead, cos_part, sin_part in ((_FRONTAL[0], cos_t, -sin_t), (_FRONTAL[1], sin_t, cos_t)):
        terms = (lead[0] * x + lead[1] * y, lead[1] * x - lead[0] * y, lead[2] * z)
        for k in range(3):
            along[k] += cos_part * terms[k]
            across[k] += sin_part * terms[k]
    size = math.hypot(across[0], across[1])
    if size == 0:
        return 0.0
    middle, half = math.atan2(across[1], across[0]), math.acos(max(-1.0, min(1.0, -across[2] / size)))
    solutions = (middle + half, middle - half)
    best = max(solutions, key=lambda a: along[0] * math.cos(a) + along[1] * math.sin(a) + along[2])
    return (math.degrees(best) + 180) % 360 - 180
