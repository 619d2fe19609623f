"""The wording of simulated reports: ``data/phrases.yaml``, read when the first report is written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from deri.files import parse_yaml, shipped_text


@dataclass(frozen=True)
class Wording:
    """How a finding is put: ``cart`` and ``terse`` statements, ``nouns`` to hedge about, ``german`` and ``english``."""

    cart: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    terse: str | None = None
    german: tuple[str, ...] = ()
    english: tuple[str, ...] = ()


@dataclass(frozen=True)
class Phrases:
    """The wording of every finding by code, phrases about the whole ECG by their use, and German names of the axis."""

    findings: dict[str, Wording]
    general: dict[str, tuple[str, ...]]
    german_axis: dict[str, str]


@cache
def phrases() -> Phrases:
    """The shipped wording. Raises TypeError where an entry has an unknown field."""
    content = parse_yaml(shipped_text("deri.simulate", "data/phrases.yaml"))
    findings = {}
    for code, entry in content["findings"].items():
        terse = entry.pop("terse", None)
        findings[code] = Wording(terse=terse, **{voice: tuple(texts) for voice, texts in entry.items()})
    return Phrases(findings, {use: tuple(texts) for use, texts in content["general"].items()}, content["german_axis"])
