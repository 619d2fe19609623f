"""The findings that the simulator knows, which go together, and how often each is drawn.

Codes are those of PTB-XL's SCP statements. `morphology` and `rhythm` turn a set of them into waves and beats;
the sign that a finding leaves in the signal, with its source, stands with each entry here, and tests measure
it.

Sources, by short name: *AHA III* Surawicz et al. 2009 (conduction), *AHA IV* Rautaharju et al. 2009 (ST, T,
QT), *AHA V* Hancock et al. 2009 (hypertrophy), *AHA VI* Wagner et al. 2009 (ischaemia), the AHA/ACCF/HRS
recommendations for the standardization and interpretation of the electrocardiogram; *UDMI* fourth universal
definition of myocardial infarction (Thygesen et al. 2018); *ACC 2018* guideline on bradycardia and conduction
delay (Kusumoto et al.); *ESC 2020* guideline on atrial fibrillation (Hindricks et al.); *ESC 2019* guideline
on supraventricular tachycardia (Brugada et al.); *Chou* Surawicz and Knilans, Chou's Electrocardiography in
Clinical Practice, 6th ed. 2008; *HRV* Task Force on heart rate variability, Circulation 1996;93:1043-1065.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from deri.errors import DeriError


@dataclass(frozen=True)
class Finding:
    """One finding.

    ``group``: of a group at most one is present; ``cards``: patients of a deck with it as
    theme.
    """

    code: str
    name: str
    group: str
    cards: int
    persists: float  # probability that a later study of the same patient still shows it
    sign: str  # what it leaves in the signal
    source: str
    excludes: frozenset[str] = frozenset()
    implies: tuple[str, ...] = ()  # descriptive SCP statements that hold whenever this finding does


def _finding(
    code: str,
    name: str,
    group: str,
    cards: int,
    persists: float,
    sign: str,
    source: str,
    excludes: str = "",
    implies: str = "",
) -> Finding:
    return Finding(
        code, name, group, cards, persists, sign, source, frozenset(excludes.split()), tuple(implies.split())
    )


_NO_P = "AFIB AFLT PACE"
_NOT_SINUS = "AFIB AFLT PACE"

_ALL = [
    _finding("NORM", "normal ECG", "summary", 24, 1, "none of the abnormal findings", "Rijnbeek et al. 2014"),
    _finding("SR", "sinus rhythm", "rhythm", 0, 1, "P before each QRS, 60-100/min, RR varies little", "Chou"),
    _finding("SBRAD", "sinus bradycardia", "rhythm", 5, 0.8, "sinus P, 42-56/min", "ACC 2018"),
    _finding("STACH", "sinus tachycardia", "rhythm", 5, 0.6, "sinus P, 104-145/min", "Chou"),
    _finding(
        "SARRH",
        "sinus arrhythmia",
        "rhythm",
        5,
        0.8,
        "sinus P, RR swings > 0.16 s with respiration",
        "Chou; HRV",
    ),
    _finding("AFIB", "atrial fibrillation", "rhythm", 7, 0.9, "irregular RR, no P, f waves 4-9 Hz", "ESC 2020"),
    _finding(
        "AFLT", "atrial flutter", "rhythm", 4, 0.8, "sawtooth 240-320/min, down in II, III, aVF; 2:1 to 4:1", "ESC 2019"
    ),
    _finding("PACE", "ventricular pacing", "rhythm", 4, 1, "spike before each wide QRS", "Chou"),
    _finding(
        "PAC",
        "atrial premature complex",
        "ectopy",
        4,
        0.7,
        "early narrow beat, other P, pause not full",
        "Chou",
        _NOT_SINUS,
    ),
    _finding(
        "PVC",
        "ventricular premature complex",
        "ectopy",
        5,
        0.75,
        "early beat >= 120 ms, discordant T, full pause",
        "Chou",
        _NOT_SINUS,
    ),
    _finding(
        "BIGU",
        "ventricular bigeminy",
        "ectopy",
        3,
        0.75,
        "every other beat a PVC",
        "Chou",
        f"{_NOT_SINUS} STACH SARRH",
        "PVC",
    ),
    _finding(
        "1AVB", "first degree AV block", "av", 4, 0.95, "PR 215-300 ms", "ACC 2018", f"{_NOT_SINUS} STACH WPW", "LPR"
    ),
    _finding(
        "2AVB",
        "second degree AV block, Wenckebach",
        "av",
        3,
        0.8,
        "PR grows until a P is not conducted",
        "ACC 2018",
        f"{_NOT_SINUS} STACH SARRH PAC PVC BIGU WPW",
    ),
    _finding(
        "3AVB",
        "third degree AV block",
        "av",
        4,
        0.9,
        "P and QRS independent, QRS 32-50/min",
        "ACC 2018",
        f"{_NOT_SINUS} SBRAD STACH SARRH PAC PVC BIGU WPW",
    ),
    _finding(
        "CRBBB",
        "complete right bundle branch block",
        "conduction",
        5,
        1,
        "QRS 120-150 ms, rsR' in V1, wide S in I, V6",
        "AHA III",
        "PACE",
    ),
    _finding(
        "CLBBB",
        "complete left bundle branch block",
        "conduction",
        5,
        1,
        "QRS 130-170 ms, QS or rS in V1, no q and broad R in I, V6",
        "AHA III",
        "PACE",
    ),
    _finding(
        "IRBBB",
        "incomplete right bundle branch block",
        "conduction",
        3,
        1,
        "QRS 100-119 ms, rsr' in V1",
        "AHA III",
        "PACE",
    ),
    _finding(
        "WPW",
        "Wolff-Parkinson-White pattern",
        "conduction",
        4,
        0.9,
        "PR < 120 ms, delta wave, QRS > 110 ms",
        "AHA III; ESC 2019",
        _NOT_SINUS,
    ),
    _finding(
        "LAFB",
        "left anterior fascicular block",
        "fascicle",
        4,
        1,
        "axis -45 to -80 degrees, qR in aVL",
        "AHA III",
        "PACE CLBBB WPW",
    ),
    _finding(
        "LVH",
        "left ventricular hypertrophy",
        "hypertrophy",
        5,
        1,
        "S V1 + R V5/V6 > 3.5 mV, often ST-T strain",
        "AHA V; Sokolow and Lyon 1949",
        "PACE CLBBB CRBBB WPW",
        "VCLVH",
    ),
    _finding(
        "RVH",
        "right ventricular hypertrophy",
        "hypertrophy",
        3,
        1,
        "axis > 100 degrees, R > S in V1, deep S in V6",
        "AHA V",
        "PACE CLBBB CRBBB IRBBB WPW LAFB",
    ),
    _finding(
        "IMI",
        "inferior myocardial infarction",
        "infarct",
        5,
        1,
        "Q >= 30 ms and a quarter of R in III, aVF",
        "UDMI; AHA VI",
        "PACE CLBBB WPW LAFB RVH",
        "QWAVE",
    ),
    _finding(
        "ASMI",
        "anteroseptal myocardial infarction",
        "infarct",
        5,
        1,
        "QS or no r in V1-V3",
        "UDMI; AHA VI",
        "PACE CLBBB WPW RVH",
        "QWAVE",
    ),
    _finding(
        "ISC_",
        "ischaemic ST-T changes",
        "repolarisation",
        4,
        0.6,
        "ST down about 0.1 mV or more, T inverted, in V4-V6",
        "AHA VI",
        "PACE CLBBB CRBBB WPW LVH RVH AFLT",
    ),
    _finding(
        "STD_",
        "ST depression",
        "repolarisation",
        3,
        0.6,
        "ST down >= 0.07 mV in V4-V6, T upright",
        "AHA IV",
        "PACE CLBBB CRBBB WPW LVH RVH AFLT",
    ),
    _finding(
        "INVT",
        "inverted T waves",
        "repolarisation",
        4,
        0.7,
        "T down >= 0.2 mV in V2-V5, ST level",
        "AHA IV",
        "PACE CLBBB CRBBB WPW LVH RVH AFLT",
    ),
    _finding(
        "LNGQT",
        "long QT interval",
        "interval",
        4,
        0.8,
        "QTc > 475 ms (Bazett)",
        "AHA IV",
        "AFIB AFLT PACE STACH CLBBB CRBBB WPW BIGU",
    ),
    _finding(
        "LVOLT",
        "low QRS voltage",
        "voltage",
        4,
        0.9,
        "QRS < 0.5 mV in limb, < 1.0 mV in chest leads",
        "Chou",
        "LVH RVH PACE CLBBB WPW",
    ),
    _finding(
        "LAO/LAE",
        "left atrial enlargement",
        "atrial",
        3,
        0.9,
        "P >= 120 ms, notched in II, negative end in V1",
        "AHA V",
        f"{_NO_P} 3AVB WPW",
    ),
    _finding("RAO/RAE", "right atrial enlargement", "atrial", 3, 0.9, "P > 0.25 mV in II", "AHA V", f"{_NO_P} 3AVB"),
]

FINDINGS: dict[str, Finding] = {finding.code: finding for finding in _ALL}
"""All findings by SCP code, in the order in which sets of them are listed."""

_ORDER = {code: i for i, code in enumerate(FINDINGS)}
SINUS = frozenset({"SR", "SBRAD", "STACH", "SARRH"})
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
    "AFIB": (("LVH", 0.12), ("CRBBB", 0.08), ("LVOLT", 0.05)),
    "LVH": (("LAO/LAE", 0.3), ("LAFB", 0.08)),
    "RVH": (("RAO/RAE", 0.4),),
    "CRBBB": (("LAFB", 0.2), ("1AVB", 0.1)),
    "CLBBB": (("1AVB", 0.15), ("LAO/LAE", 0.15)),
    "IMI": (("1AVB", 0.12), ("PVC", 0.1), ("ISC_", 0.08)),
    "ASMI": (("PVC", 0.12), ("LAFB", 0.12), ("INVT", 0.1)),
    "ISC_": (("STACH", 0.12),),
    "STACH": (("STD_", 0.1), ("RAO/RAE", 0.06)),
}
_BACKGROUND = (
    ("LAFB", 0.03),
    ("1AVB", 0.03),
    ("LVH", 0.03),
    ("IRBBB", 0.02),
    ("IMI", 0.02),
    ("LAO/LAE", 0.02),
    ("LVOLT", 0.015),
)
_TRANSIENT = (("PVC", 0.025), ("PAC", 0.025), ("STACH", 0.03), ("SBRAD", 0.03), ("INVT", 0.01), ("STD_", 0.01))


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
