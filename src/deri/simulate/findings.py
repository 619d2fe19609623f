"""The findings of the simulator (``data/findings.yaml``), which go together, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deri.errors import DeriError
from deri.files import parse_yaml, shipped_text


@dataclass(frozen=True)
class Finding:
    """One finding; the head of ``data/findings.yaml`` explains the fields."""

    code: str
    name: str
    group: str
    patients: int
    sign: str
    source: str
    persists: float = 1.0
    scp: bool = True
    borderline: bool = False
    excludes: frozenset[str] = frozenset()
    implies: tuple[str, ...] = ()
    mean_age: int = 58
    beside: Mapping[str, float] = field(default_factory=dict)
    csn: tuple[str, ...] = ()
    snomed: str | None = None
    cpsc2018: int | None = None


@dataclass(frozen=True)
class Catalogue:
    """All findings by code in the order in which sets of them are listed, and the titles of their groups.

    ``background`` and ``transient`` are the findings that any patient or any study may have, with their probability.
    """

    findings: dict[str, Finding]
    groups: dict[str, str]
    background: dict[str, float]
    transient: dict[str, float]


def read_catalogue(text: str) -> Catalogue:
    """Read the text of ``findings.yaml``; ValueError where an entry has an unknown field, finding or group."""
    content: dict[str, Any] = parse_yaml(text)
    sets, findings = content["sets"], {}
    for code, entry in content["findings"].items():
        excludes = {other for name in entry.get("excludes", ()) for other in sets.get(name, (name,))} - {code}
        entry |= {name: tuple(entry.get(name, ())) for name in ("implies", "csn")} | {"excludes": frozenset(excludes)}
        try:
            findings[code] = Finding(code, **entry)
        except TypeError as error:
            raise ValueError(f"finding {code}: {error}") from error
        if findings[code].group not in content["groups"]:
            raise ValueError(f"finding {code}: group {entry['group']} is not among the groups")
    catalogue = Catalogue(findings, content["groups"], content["background"], content["transient"])
    named = [catalogue.background, catalogue.transient, *(x for f in findings.values() for x in (f.excludes, f.beside))]
    unknown = sorted({code for codes in named for code in codes} - findings.keys())
    if unknown:
        raise ValueError(f"unknown findings {', '.join(unknown)}")
    return catalogue


CATALOGUE = read_catalogue(shipped_text("deri.simulate", "data/findings.yaml"))
FINDINGS = CATALOGUE.findings
"""All findings by SCP code, in the order in which sets of them are listed."""

_ORDER = {code: i for i, code in enumerate(FINDINGS)}
NORMAL_RHYTHMS = frozenset({"SR", "SBRAD", "SARRH"})
CYCLE = sum(finding.patients for finding in FINDINGS.values())
"""Number of patients in which each finding is the main one as often as its ``patients`` say."""


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
    normal = codes - {"NORM"} <= NORMAL_RHYTHMS
    if "NORM" in codes and not normal:
        other = ", ".join(code for code in ordered if code not in NORMAL_RHYTHMS | {"NORM"})
        raise DeriError(f"Finding NORM contradicts {other}: drop one of them.")
    return ("NORM", *(c for c in ordered if c != "NORM")) if normal else tuple(ordered)


@dataclass(frozen=True)
class Condition:
    """What a patient has: the main finding (a code), and all ``lasting`` findings, the main one among them."""

    main: str
    lasting: frozenset[str]


def shuffled_cycle(rng: np.random.Generator) -> list[str]:
    """The main findings of one cycle of patients: prevalence hardly varies with the seed."""
    codes = [finding.code for finding in FINDINGS.values() for _ in range(finding.patients)]
    return [codes[i] for i in rng.permutation(len(codes))]


def draw_condition(main: str, rng: np.random.Generator) -> Condition:
    """Draw the findings that come with the ``main`` one in one patient."""
    codes = {main}
    if main != "NORM":
        _add_by_chance(codes, FINDINGS[main].beside, rng)
        _add_by_chance(codes, CATALOGUE.background, rng)
    return Condition(main, frozenset(codes - {"NORM"}))


def draw_findings(condition: Condition, rng: np.random.Generator, *, first: bool) -> tuple[str, ...]:
    """Draw the findings of one study. The ``first`` study of a patient always shows the main one."""
    codes: set[str] = set()
    for code in sorted(condition.lasting, key=_ORDER.__getitem__):
        if (first and code == condition.main) or rng.random() < FINDINGS[code].persists:
            _add(codes, code)
    if not (first and condition.main == "NORM"):
        _add_by_chance(codes, CATALOGUE.transient, rng)
    return complete(codes)


def _add(codes: set[str], code: str) -> None:
    if not any(clash(code, other) for other in codes):
        codes.add(code)


def _add_by_chance(codes: set[str], probabilities: Mapping[str, float], rng: np.random.Generator) -> None:
    for code, probability in probabilities.items():
        if rng.random() < probability:
            _add(codes, code)


def implied(codes: Collection[str]) -> tuple[str, ...]:
    """The descriptive SCP statements that follow from ``codes`` and are not among them, in a fixed order."""
    return tuple(sorted({extra for code in codes for extra in FINDINGS[code].implies} - set(codes)))
