"""Whether a drawn beat shows what its findings claim, and nothing that they do not: the variation between hearts is
wide, and a shape that has lost its sign is drawn again.

Thresholds are those of the catalogue; values are read from the waves themselves, in leads, before any noise.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from deri.simulate.beats import Array
from deri.simulate.repolarisation import Repolarisation
from deri.simulate.waves import Waves

I, II, III, AVR, AVL, AVF, V1, V2, V3, V4, V5, V6 = range(12)  # noqa: E741
_STEP = 0.003  # s
_INFARCT = frozenset({"IMI", "ASMI", "AMI", "LMI"})
_ODD = frozenset({"CLBBB", "PACE", "DPACE", "WPW", "RVH", "CRBBB"})


def sample_qrs(qrs: Waves, leads: Array, duration: float) -> Array:
    """(12, n) the QRS in mV at 3 ms steps from its onset to its end."""
    values: Array = leads @ qrs.values(np.arange(0.0, duration + _STEP, _STEP))
    return values


def q_wave(lead: Array) -> tuple[float, float]:
    """Duration (s) and depth (mV) of an initial negative deflection of one lead's QRS (n,)."""
    positive = np.flatnonzero(lead > 0.03)
    end = int(positive[0]) if len(positive) else len(lead)
    depth = float(-lead[:end].min()) if end else 0.0
    return (end * _STEP if depth > 0.05 else 0.0), max(depth, 0.0)


def _pathological(lead: Array) -> bool:
    width, depth = q_wave(lead)
    return width >= 0.034 and depth > 0.28 * max(float(lead.max()), 0.01)


def qrs_shows(codes: Collection[str], q: Array, duration: float) -> bool:
    """Whether the QRS ``q`` (12, n) of `sample_qrs`, at its final voltage, shows the findings."""
    codes = set(codes)
    n = q.shape[1]
    high, low = q.max(axis=1), q.min(axis=1)
    first, last = q[:, : round(0.042 / _STEP)], q[:, round(0.62 * n) : n - round(0.012 / _STEP)]
    scale = 0.3 if "LVOLT" in codes else 1.0
    if "CRBBB" in codes:
        if not (last[V1].max() > 0.25 * scale and last[V6].min() < -0.14 * scale and last[I].min() < -0.11 * scale):
            return False
        late = q[:, n - 1 - round(0.03 / _STEP)]
        if not (late[V1] > 0.18 * scale and late[I] < -0.09 * scale and late[V6] < -0.11 * scale):
            return False
        if not ({"ASMI"} & codes) and high[V1] < 0.34 * scale:
            return False
    if "IRBBB" in codes and not (last[V1].max() > 0.11 * scale and last[V6].min() < -0.03 * scale):
        return False
    if "CLBBB" in codes and not (
        low[V1] < -0.65 and first[V1].max() < 0.08 and min(first[I].min(), first[V6].min()) > -0.04
        and min(high[I], high[V6]) > 0.33 and min(low[I], low[V6]) > -0.14
    ):  # fmt: skip
        return False
    if "ILBBB" in codes and not (min(first[I].min(), first[V6].min()) > -0.03 and low[V1] < -0.3 * scale):
        return False
    if "IVCD" in codes and not (last[V1].max() < 0.1 and (_INFARCT & codes or q[V6, : n // 4].min() < -0.02)):
        return False
    if "LAFB" in codes and not (q[AVL, : n // 3].min() < -0.045 * scale and q[III, : n // 2].max() > 0.045 * scale):
        return False
    if "LPFB" in codes and not (q[AVL, : n // 2].max() > 0.045 * scale and q[III, : n // 3].min() < -0.045 * scale):
        return False
    if "RVH" in codes and not (high[V1] > max(-low[V1], 0.45) and low[V6] < -0.24):
        return False
    if "IMI" in codes and not (_pathological(q[III]) and _pathological(q[AVF])):
        return False
    if "LMI" in codes and not (_pathological(q[I]) and _pathological(q[AVL]) and q_wave(q[V6])[1] > 0.05):
        return False
    if "ASMI" in codes and not (
        max(first[V1].max(), first[V2].max()) < 0.08
        and max(low[V1], low[V2]) < -0.5 * scale
        and max(high[V1], high[V2]) < 0.16
    ):
        return False
    if "AMI" in codes and not (_pathological(q[V3]) and (_pathological(q[V4]) or high[V4] < 0.2)):
        return False
    if "PMI" in codes and not (high[V1] > -low[V1] or high[V2] > 1.1 * -low[V2]):
        return False
    # --- what is not claimed
    steep = {"RAD", "LPFB"} & codes
    if not (_ODD | RIGHT | {"PMI"}) & codes and (
        last[V1].max() > (0.2 if steep else 0.09) or high[V1] > max(0.7 * -low[V1], 0.6 if steep else 0.35)
    ):
        return False
    if _ODD & codes:
        return True
    if not {"IMI", "LAFB", "LPFB", "ISTEMI"} & codes and (_pathological(q[AVF]) and _pathological(q[II])):
        return False
    if not {"LMI", "RAD", "LPFB"} & codes and (_pathological(q[I]) or q_wave(q[V6])[0] > 0.034):
        return False
    if not {"ASMI", "AMI", "LMI", "ILBBB"} & codes:
        if max(first[V2].max(), first[V3].max()) < 0.18 * scale or first[V4].max() < 0.25 * scale:
            return False
        if any(_pathological(q[lead]) for lead in (V2, V3, V4, V5)):
            return False
    return True


RIGHT = frozenset({"CRBBB", "IRBBB"})
_SHAPED = _ODD | frozenset(
    {"LVHST", "ASMI", "AMI", "LMI", "IMI", "PMI", "DIG", "INVT", "ISC_", "NST_", "HYPOK", "LPFB"}
)


def repolarisation_shows(codes: Collection[str], r: Repolarisation, leads: Array, q: Array) -> bool:
    """Whether ST and T of ``r`` show the findings; ``q`` as in `qrs_shows`."""
    codes = set(codes)
    st, late, t = leads @ r.st * 0.85, leads @ r.st_late * 0.85, leads @ r.t
    high = q.max(axis=1)
    level = np.maximum(st, late)
    if "ISTEMI" in codes and not (min(level[II], level[III], level[AVF]) > 0.12 and st[AVL] < -0.04):
        return False
    if "ASTEMI" in codes and not min(level[V2], level[V3]) > 0.3:
        return False
    if "LSTEMI" in codes and not (min(level[I], level[AVL]) > 0.12 and level[V5] > 0.08 and st[III] < -0.05):
        return False
    if "PERIC" in codes and not (
        min(level[II], level[V4], level[V5], level[V6]) > 0.07 and level[I] > 0.03 and st[AVR] < -0.06
    ):
        return False
    if "ISC_" in codes and not (st[V5] < -0.085 and t[V5] < -0.12 and t[V4] < -0.03):
        return False
    if "STD_" in codes and not (st[V5] < -0.085 and t[V5] > 0.11):
        return False
    if "INVT" in codes and not (t[V3] < -0.2 and t[V2] < -0.1 and t[V4] < -0.05):
        return False
    if "NST_" in codes and not all(abs(t[lead]) < 0.09 * max(high[lead], 0.3) for lead in (II, V5, V6)):
        return False
    if "ERP" in codes and not min(level[V4], level[V5], level[II]) > 0.1:
        return False
    if "HYPERK" in codes and not min(t[V3], t[V4]) > 0.75:
        return False
    if "PMI" in codes and not t[V2] > 0.15:
        return False
    if "RVH" in codes and not t[V1] < -0.05:
        return False
    if "CRBBB" in codes and not (t[V1] < -0.13 or {"ASTEMI", "LVOLT"} & codes):
        return False
    if _SHAPED & codes:
        return True
    scale = 0.4 if "LVOLT" in codes else 1.0
    upright = (
        t[II] > (0.01 if {"LAD", "LVH"} & codes else 0.05 * scale)
        and t[V3] > 0.07 * scale
        and t[V5] > (max(0.14, 0.1 * high[V5]) if "NORM" in codes else max(0.07, 0.06 * high[V5])) * scale
        and t[V6] > 0.05 * scale
        and (t[I] > 0.03 * scale or {"RAD", "LAD", "LAFB"} & codes)
    )
    return bool(upright or {"ISTEMI", "ASTEMI", "LSTEMI"} & codes)
