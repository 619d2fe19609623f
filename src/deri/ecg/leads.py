"""The twelve leads of a standard ECG: names, aliases, order, and the limb leads that follow from two others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from deri.errors import ReadError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""Canonical order of the rows of every signal in this library."""

MIMIC_LEADS = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
"""Order of the signals in a MIMIC-IV-ECG record: aVF stands before aVL."""

_BY_KEY = {name.lower(): name for name in LEADS} | {"di": "I", "dii": "II", "diii": "III"}
# "Lead II", "ECG_II", "MDC_ECG_LEAD_II" (ISO 11073-10102, used by HL7 aECG and SCP-ECG), "Lead I (Einthoven)" (DICOM).
_PREFIX = re.compile(r"^(?:mdc[ _]?ecg[ _]?lead[ _]?|e[ck]g[ _]lead[ _]?|e[ck]g[ _]|lead[ _]?)")
_SUFFIX = re.compile(r"\s*\(.*\)$")


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> str | None:
    """The canonical name of a lead (one of ``LEADS``), or None if ``name`` is none of the twelve.

    Case does not matter, nor do the prefixes ``Lead``, ``ECG`` and ``MDC_ECG_LEAD_``; ``DI`` ``DII`` ``DIII`` are the
    names of Latin countries. Leads that only resemble a standard one are not taken for it: ``-aVR`` has the opposite
    sign, ``MLII`` other electrode places, ``vx`` ``vy`` ``vz`` are Frank leads.
    """
    key = unicodedata.normalize("NFKC", name).strip().lower()
    key = _SUFFIX.sub("", _PREFIX.sub("", key))
    return _BY_KEY.get(key.strip())


class Derivation(NamedTuple):
    """A limb lead as ``a * signal[first] + b * signal[second]``; the indices are rows in canonical order."""

    lead: int
    first: int
    a: float
    second: int
    b: float
    formula: str


class LeadPlan(NamedTuple):
    """How the channels of one file become the twelve canonical rows."""

    rows: tuple[int, ...]  # for each channel its canonical row, -1 for a channel that is dropped
    derivations: tuple[Derivation, ...]
    dropped: tuple[str, ...]
    missing: tuple[int, ...]  # canonical rows that are neither recorded nor derivable
    recorded: tuple[int, ...]  # canonical rows that have a channel, ascending
    channels: tuple[int, ...]  # the channel behind each of ``recorded``


# Einthoven: I + III = II. Goldberger's augmented leads follow from any two of them.
_EINTHOVEN = (
    Derivation(0, 1, 1.0, 2, -1.0, "II - III"),
    Derivation(1, 0, 1.0, 2, 1.0, "I + III"),
    Derivation(2, 1, 1.0, 0, -1.0, "II - I"),
)
_GOLDBERGER = (
    Derivation(3, 0, -0.5, 1, -0.5, "-(I + II)/2"),
    Derivation(4, 0, 1.0, 1, -0.5, "I - II/2"),
    Derivation(5, 1, 1.0, 0, -0.5, "II - I/2"),
)


@lru_cache(maxsize=1024)
def lead_plan(names: tuple[str, ...]) -> LeadPlan:
    """Where each channel goes, which limb leads are derived, what is dropped and what stays missing.

    Raises:
        ReadError: ``unknown_leads`` if no channel is one of the twelve, ``duplicate_lead`` if two are the same.
    """
    rows: list[int] = []
    dropped: list[str] = []
    seen: dict[int, str] = {}
    for name in names:
        lead = canonical_lead(name)
        if lead is None:
            rows.append(-1)
            dropped.append(name)
            continue
        row = LEADS.index(lead)
        if row in seen:
            raise ReadError(
                f"two channels are lead {lead}: {seen[row]!r} and {name!r}; remove or rename one of them",
                "duplicate_lead",
            )
        seen[row] = name
        rows.append(row)
    if not seen:
        listed = ", ".join(repr(name) for name in names[:12]) or "no channel"
        raise ReadError(
            f"none of its channels is a lead of a 12-lead ECG ({listed}); leads are known by name: I, aVR, V1 …",
            "unknown_leads",
        )
    derivations = _derivable(set(seen))
    have = set(seen) | {d.lead for d in derivations}
    missing = tuple(row for row in range(len(LEADS)) if row not in have)
    recorded = tuple(sorted(seen))
    channels = tuple(rows.index(row) for row in recorded)
    return LeadPlan(tuple(rows), derivations, tuple(dropped), missing, recorded, channels)


def _derivable(have: set[int]) -> tuple[Derivation, ...]:
    if len(have & {0, 1, 2}) < 2:
        return ()
    return tuple(d for d in _EINTHOVEN + _GOLDBERGER if d.lead not in have)


def arrange(channels: np.ndarray | Sequence[np.ndarray], plan: LeadPlan) -> np.ndarray:
    """Channels (k, n) in mV to float32 (12, n) in canonical order; missing leads are NaN, derivable ones computed."""
    signal = np.empty((len(LEADS), len(channels[0])), dtype=np.float32)
    for channel, row in enumerate(plan.rows):
        if row >= 0:
            signal[row] = channels[channel]
    complete(signal, plan)
    return signal


def complete(signal: np.ndarray, plan: LeadPlan) -> None:
    """Fill the rows of ``signal`` (12, n) that were not recorded, in place: derived where possible, else NaN."""
    for d in plan.derivations:
        signal[d.lead] = np.float32(d.a) * signal[d.first] + np.float32(d.b) * signal[d.second]
    for row in plan.missing:
        signal[row] = np.nan
