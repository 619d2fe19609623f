"""Which findings go together, and how often each is drawn. The findings themselves stand in `catalogue`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from deri.errors import DeriError
from deri.simulate.catalogue import ALL as _ALL
from deri.simulate.catalogue import Finding

FINDINGS: dict[str, Finding] = {finding.code: finding for finding in _ALL}
"""All findings by SCP code, in the order in which sets of them are listed."""

_ORDER = {code: i for i, code in enumerate(FINDINGS)}
_NORMAL_RHYTHMS = frozenset({"SR", "SBRAD", "SARRH"})
DECK = sum(finding.cards for finding in _ALL)
"""Number of patients after which the themes repeat."""


def clash(a: str, b: str) -> bool:
    """Whether the findings ``a`` and ``b`` cannot stand together."""
    first, second = FINDINGS[a], FINDINGS[b]
    return a != b and (first.group == second.group or b in first.excludes or a in second.excludes)


def complete(findings: Iterable[str]) -> tuple[str, ...]:
    """Check a set of codes and complete it: SR where no rhythm is given, NORM where nothing is abnormal.

    Returns the codes in the order of `FINDINGS`. Raises DeriError for an unknown code or two codes that
    contradict each other.
    """
    codes = set(findings)
    unknown = sorted(codes - FINDINGS.keys())
    if unknown:
        raise DeriError(f"Unknown finding {', '.join(unknown)}. Known are: {', '.join(FINDINGS)}.")
    if not any(FINDINGS[code].group == "rhythm" for code in codes):
        codes.add("SR")
    ordered = sorted(codes, key=_ORDER.__getitem__)
    for i, a in enumerate(ordered):
        for b in ordered[i + 1 :]:
            if clash(a, b):
                raise DeriError(f"Findings {a} and {b} contradict each other: drop one of them.")
    normal = codes - {"NORM"} <= _NORMAL_RHYTHMS
    if "NORM" in codes and not normal:
        other = ", ".join(code for code in ordered if code not in _NORMAL_RHYTHMS | {"NORM"})
        raise DeriError(f"Finding NORM contradicts {other}: drop one of them.")
    return ("NORM", *(c for c in ordered if c != "NORM")) if normal else tuple(ordered)


def _add(codes: set[str], code: str) -> None:
    if not any(clash(code, other) for other in codes):
        codes.add(code)


# Findings found beside others (a: b with probability p), beyond the background below. Rough clinical company,
# not epidemiology.
_COMPANY: dict[str, tuple[tuple[str, float], ...]] = {
    "AFIB": (("LVH", 0.08), ("LVHST", 0.05), ("CRBBB", 0.08), ("LVOLT", 0.05), ("NST_", 0.15), ("PVC", 0.12),
             ("DIG", 0.05), ("IMI", 0.04), ("LAD", 0.05), ("CLBBB", 0.04), ("LAFB", 0.05), ("ISC_", 0.04)),
    "AFLT": (("CRBBB", 0.08), ("LAFB", 0.05)),
    "SVTAC": (("STD_", 0.2), ("CRBBB", 0.06)),
    "LVH": (("LAO/LAE", 0.3), ("LAFB", 0.06), ("LAD", 0.08), ("1AVB", 0.06)),
    "LVHST": (("LAO/LAE", 0.35), ("LAFB", 0.06), ("LAD", 0.06), ("1AVB", 0.06)),
    "RVH": (("RAO/RAE", 0.4),),
    "CRBBB": (("LAFB", 0.2), ("1AVB", 0.1), ("LPFB", 0.04), ("LAD", 0.05)),
    "IRBBB": (("RAD", 0.06),),
    "CLBBB": (("1AVB", 0.15), ("LAO/LAE", 0.15)),
    "IMI": (("1AVB", 0.12), ("PVC", 0.1), ("ISC_", 0.08), ("INVT", 0.06)),
    "ASMI": (("PVC", 0.12), ("LAFB", 0.12), ("INVT", 0.1)),
    "AMI": (("PVC", 0.12), ("LAFB", 0.1), ("INVT", 0.12), ("NST_", 0.1)),
    "ISC_": (("STACH", 0.12), ("LVOLT", 0.04)),
    "ISTEMI": (("SBRAD", 0.15), ("1AVB", 0.1), ("2AVB", 0.04), ("3AVB", 0.03)),
    "ASTEMI": (("STACH", 0.2), ("PVC", 0.12)),
    "PERIC": (("STACH", 0.3),),
    "HYPERK": (("1AVB", 0.12), ("IVCD", 0.1)),
    "HYPOK": (("PVC", 0.12), ("PAC", 0.08)),
    "ERP": (("SBRAD", 0.25), ("SARRH", 0.1)),
    "STACH": (("STD_", 0.08), ("RAO/RAE", 0.06), ("NST_", 0.12), ("PVC", 0.04), ("PAC", 0.04)),
    "SBRAD": (("LVH", 0.06), ("NST_", 0.05)),
    "PAC": (("LAO/LAE", 0.08), ("NST_", 0.08)),
    "PVC": (("NST_", 0.08), ("LVH", 0.06)),
    "DIG": (("AFIB", 0.5),),
    "APACE": (("CRBBB", 0.08), ("LAFB", 0.06)),
}  # fmt: skip
_BACKGROUND = (
    ("LAFB", 0.04),
    ("1AVB", 0.05),
    ("LVH", 0.06),
    ("IRBBB", 0.04),
    ("IMI", 0.03),
    ("LAO/LAE", 0.06),
    ("LAD", 0.05),
    ("NST_", 0.10),
    ("CRBBB", 0.03),
    ("LVOLT", 0.02),
)
_TRANSIENT = (
    ("PVC", 0.04), ("PAC", 0.05), ("STACH", 0.06), ("SBRAD", 0.10), ("INVT", 0.01), ("STD_", 0.01), ("NST_", 0.01),
)  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """What a patient has: the ``theme`` (a code), and all ``lasting`` findings, the theme among them."""

    theme: str
    lasting: frozenset[str]


def deck(rng: np.random.Generator) -> list[str]:
    """One shuffled deck of themes, each as often as its ``cards`` say: prevalence hardly varies with the seed."""
    cards = [finding.code for finding in _ALL for _ in range(finding.cards)]
    return [cards[i] for i in rng.permutation(len(cards))]


def draw_condition(theme: str, rng: np.random.Generator) -> Condition:
    """Draw the company that ``theme`` keeps in one patient."""
    codes = {theme}
    if theme != "NORM":
        for code, probability in (*_COMPANY.get(theme, ()), *_BACKGROUND):
            if rng.random() < probability:
                _add(codes, code)
    return Condition(theme, frozenset(codes - {"NORM"}))


def draw_findings(condition: Condition, rng: np.random.Generator, *, first: bool) -> tuple[str, ...]:
    """Draw the findings of one study. The ``first`` study of a patient always shows the theme."""
    codes: set[str] = set()
    for code in sorted(condition.lasting, key=_ORDER.__getitem__):
        if (first and code == condition.theme) or rng.random() < FINDINGS[code].persists:
            _add(codes, code)
    if not (first and condition.theme == "NORM"):
        for code, probability in _TRANSIENT:
            if rng.random() < probability:
                _add(codes, code)
    return complete(codes)


def implied(codes: Collection[str]) -> tuple[str, ...]:
    """The descriptive SCP statements that follow from ``codes`` and are not among them, in a fixed order."""
    return tuple(sorted({extra for code in codes for extra in FINDINGS[code].implies} - set(codes)))
