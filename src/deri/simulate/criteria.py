"""Whether a drawn beat shows what its findings claim, and nothing that they do not: the variation between hearts is
wide, and a shape that has lost its sign is drawn again.

``data/criteria.csv`` holds what a finding must show: each row a limit in mV that a quantity (of the QRS or of ST and T)
must be above or below in all of some leads. ``scaled`` limits are smaller beside LVOLT; a row does not count beside the
findings in ``unless``. Values are read from the waves themselves, in leads, before any noise.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from deri.ecg.leads import LEADS
from deri.files import shipped_text
from deri.simulate.repolarisation import Repolarisation
from deri.simulate.ventricles import RIGHT_LATE, Codes
from deri.simulate.waves import Array, Waves

I, II, III, AVR, AVL, AVF, V1, V2, V3, V4, V5, V6 = range(12)  # noqa: E741
_STEP = 0.003  # s
_ODD = frozenset({"CLBBB", "PACE", "DPACE", "WPW", "RVH", "CRBBB"})
_SHAPED = _ODD | frozenset(
    {
        "LVHST", "ASMI", "AMI", "LMI", "IMI", "PMI", "DIG", "INVT", "ISC_", "NST_", "HYPOK", "LPFB",
        "ISTEMI", "ASTEMI", "LSTEMI",
    }
)  # fmt: skip


def sample_qrs(qrs: Waves, leads: Array, duration: float) -> Array:
    """(12, n) the QRS in mV at 3 ms steps from its onset to its end."""
    return leads @ qrs.values(np.arange(0.0, duration + _STEP, _STEP))


def _q_wave(lead: Array) -> tuple[float, float]:
    """Duration (s) and depth (mV) of an initial negative deflection of one lead's QRS (n,)."""
    positive = np.flatnonzero(lead > 0.03)
    end = int(positive[0]) if len(positive) else len(lead)
    depth = float(-lead[:end].min()) if end else 0.0
    return (end * _STEP if depth > 0.05 else 0.0), max(depth, 0.0)


def _early(lead: Array) -> Array:
    return lead[: round(0.042 / _STEP)]


def _late(lead: Array) -> Array:
    return lead[round(0.62 * len(lead)) : len(lead) - round(0.012 / _STEP)]


_QRS_QUANTITIES: dict[str, Callable[[Array], float]] = {
    "highest": lambda lead: lead.max(),
    "lowest": lambda lead: lead.min(),
    "balance": lambda lead: lead.max() + lead.min(),
    "early_highest": lambda lead: _early(lead).max(),
    "early_lowest": lambda lead: _early(lead).min(),
    "late_highest": lambda lead: _late(lead).max(),
    "late_lowest": lambda lead: _late(lead).min(),
    "end": lambda lead: lead[len(lead) - 1 - round(0.03 / _STEP)],
    "quarter_lowest": lambda lead: lead[: len(lead) // 4].min(),
    "third_lowest": lambda lead: lead[: len(lead) // 3].min(),
    "half_highest": lambda lead: lead[: len(lead) // 2].max(),
    "q_depth": lambda lead: _q_wave(lead)[1],
}
"""Quantities of one lead's QRS (n,) in mV: of all of it, of the first 42 ms, of the last third but for its end, 30 ms
before the end, of its first quarter, third and half, and of an initial negative deflection."""
_ST_T_QUANTITIES = ("st", "st_highest", "t")


@dataclass(frozen=True)
class _Limit:
    quantity: str
    leads: list[int]
    above: bool
    mv: float
    scaled: bool
    unless: Codes


@cache
def _limits(quantities: tuple[str, ...]) -> dict[str, list[_Limit]]:
    """The rows of ``criteria.csv`` about these quantities, by finding."""
    found: dict[str, list[_Limit]] = {}
    for row in csv.DictReader(shipped_text("deri.simulate", "data/criteria.csv").splitlines()):
        if (
            row["quantity"] not in (*_QRS_QUANTITIES, *_ST_T_QUANTITIES)
            or row["side"] not in ("above", "below")
            or row["low_voltage"] not in ("", "scaled")
        ):
            raise ValueError(f"criteria.csv: {row}")
        if row["quantity"] in quantities:
            leads = [LEADS.index(lead) for lead in row["leads"].split()]
            above, scaled, unless = row["side"] == "above", row["low_voltage"] == "scaled", row["unless"].split()
            limit = _Limit(row["quantity"], leads, above, float(row["mV"]), scaled, frozenset(unless))
            found.setdefault(row["finding"], []).append(limit)
    return found


def _within(limits: dict[str, list[_Limit]], codes: Codes, value: Callable[[str, int], float]) -> bool:
    """Whether all limits of the findings hold for the ``value`` of a quantity in a lead."""
    for code in codes & limits.keys():
        for limit in limits[code]:
            if limit.unless & codes:
                continue
            mv = limit.mv * (0.3 if limit.scaled and "LVOLT" in codes else 1.0)
            for lead in limit.leads:
                found = value(limit.quantity, lead)
                if not (found > mv if limit.above else found < mv):
                    return False
    return True


def qrs_shows(codes: Codes, q: Array) -> bool:
    """Whether the QRS ``q`` (12, n) of `sample_qrs`, at its final voltage, shows the findings, and no others."""
    limits = _limits(tuple(_QRS_QUANTITIES))
    if not _within(limits, codes, lambda quantity, lead: _QRS_QUANTITIES[quantity](q[lead])):
        return False
    return _shows_infarcts(codes, q) and _shows_no_other(codes, q)


def _pathological(lead: Array) -> bool:
    """Whether the Q wave of one lead is as wide and deep as an infarct's."""
    width, depth = _q_wave(lead)
    return width >= 0.034 and depth > 0.28 * max(float(lead.max()), 0.01)


def _shows_infarcts(codes: Codes, q: Array) -> bool:
    if "IMI" in codes and not (_pathological(q[III]) and _pathological(q[AVF])):
        return False
    if "LMI" in codes and not (_pathological(q[I]) and _pathological(q[AVL])):
        return False
    if "AMI" in codes and not (_pathological(q[V3]) and (_pathological(q[V4]) or q[V4].max() < 0.2)):
        return False
    return "PMI" not in codes or bool(q[V1].max() > -q[V1].min() or q[V2].max() > 1.1 * -q[V2].min())


def _shows_no_other(codes: Codes, q: Array) -> bool:
    if not (_ODD | RIGHT_LATE | {"PMI"}) & codes:
        steep, high = {"RAD", "LPFB"} & codes, q[V1].max()
        if _late(q[V1]).max() > (0.2 if steep else 0.09) or high > max(0.7 * -q[V1].min(), 0.6 if steep else 0.35):
            return False
    if _ODD & codes:
        return True
    if not {"IMI", "LAFB", "LPFB", "ISTEMI"} & codes and (_pathological(q[AVF]) and _pathological(q[II])):
        return False
    if not {"LMI", "RAD", "LPFB"} & codes and (_pathological(q[I]) or _q_wave(q[V6])[0] > 0.034):
        return False
    if {"ASMI", "AMI", "LMI", "ILBBB"} & codes:
        return True
    scale = 0.3 if "LVOLT" in codes else 1.0
    if max(_early(q[V2]).max(), _early(q[V3]).max()) < 0.18 * scale or _early(q[V4]).max() < 0.25 * scale:
        return False
    return not any(_pathological(q[lead]) for lead in (V2, V3, V4, V5))


def repolarisation_shows(codes: Codes, r: Repolarisation, leads: Array, q: Array) -> bool:
    """Whether ST and T of ``r`` show the findings; ``q`` as in `qrs_shows`."""
    st, late, t = leads @ r.st * 0.85, leads @ r.st_late * 0.85, leads @ r.t
    values = {"st": st, "st_highest": np.maximum(st, late), "t": t}
    if not _within(_limits(_ST_T_QUANTITIES), codes, lambda quantity, lead: values[quantity][lead]):
        return False
    high = q.max(axis=1)
    if "NST_" in codes and not all(abs(t[lead]) < 0.09 * max(high[lead], 0.3) for lead in (II, V5, V6)):
        return False
    if _SHAPED & codes:
        return True
    scale = 0.4 if "LVOLT" in codes else 1.0
    return bool(
        t[II] > (0.01 if {"LAD", "LVH"} & codes else 0.05 * scale)
        and t[V3] > 0.07 * scale
        and t[V5] > (max(0.14, 0.1 * high[V5]) if "NORM" in codes else max(0.07, 0.06 * high[V5])) * scale
        and t[V6] > 0.05 * scale
        and (t[I] > 0.03 * scale or {"RAD", "LAD", "LAFB"} & codes)
    )
