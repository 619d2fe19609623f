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

_COUNTED = (
    (re.compile(r"v[ _-]?(\d\d?)", re.IGNORECASE | re.ASCII), 6),
    (re.compile(r"(?:d|lead|ableitung)[ _.:-]?(\d\d?)", re.IGNORECASE | re.ASCII), 3),
)
"""Names that count, and the highest number that is a lead."""
_MAX_NAME = 64  # characters
_BY_KEY = {name.lower(): name for name in LEADS}
# Names of other languages and habits; and Einthoven's leads by their electrodes.
_ALIASES = {key: LEADS[n - 1] for n in (1, 2, 3) for key in (f"d{n}", f"d{'i' * n}", f"l{'i' * n}")}
_ALIASES |= {"la-ra": "I", "ll-ra": "II", "ll-la": "III"}
_WHO = "einthoven|goldberger|wilson"
# "Lead II", "ECG_II", "EKG-I", "Ableitung I", "ECG Lead 2", "Derivación III", "Einthoven I".
_PREFIX = re.compile(
    r"^(?:e[ck]g[ _.:-]?)?(?:(?:lead|(?:extremitäten|brustwand)?ableitung|abl\.?|d[eé]rivation|deriva(?:ci[oó]n|zione)|"
    rf"deriva[cç][aã]o|afleiding|a[vf]ledning|odprowadzenie|{_WHO})[ _.:-]?)?"
)
_NUMBERED = re.compile(r"^(?:e[ck]g[ _.:-]?)?(?:lead|ableitung)[ _.:-]?([123])$")
# "aV R", "V_1", "V 01", "D-II".
_SPACED = re.compile(r"^(?:(a)[ _-]?(v)[ _-]?([rlf])|(v)[ _-]?0?([1-6])|(d)[ ._-](i{1,3}|[123]))$")
# MDC_ECG_LEAD_II (ISO 11073-10102, used by HL7 aECG and DICOM). Codes are exact: MDC_ECG_LEAD_dI is a computed lead.
_MDC = re.compile(r"^mdc[ _]?ecg[ _]?lead[ _]?")
# What may stand behind a name without making it another lead: a unit, the reference electrode, who defined the lead.
_SUFFIX = re.compile(
    rf"(?:[ _-]+(?:ref|[mµun]?v|e[ck]g|lead)|\s*[(\[]\s*(?:ref|[mµun]?v|{_WHO})\s*[)\]]|, (?:{_WHO})"
    r"|, augmented(?: voltage, (?:right|left|foot))?)$"
)


@lru_cache(maxsize=4096)
def canonical_lead(name: str) -> str | None:
    """The canonical name of a lead (one of ``LEADS``), or None if ``name`` is none of the twelve.

    Case and separators (``aV R``, ``V_1``) do not matter, nor do ``Lead``, ``ECG``, ``Ableitung`` or ``MDC_ECG_LEAD_``
    before the name, a unit or ``-Ref`` behind it; ``DI`` ``LII`` ``D3`` are names of other countries. Leads that only
    resemble a standard one are not taken for it: ``-aVR`` has the opposite sign, ``MLII`` other electrode places,
    ``V1 (V3R)`` was recorded on the right, ``vx`` ``vy`` ``vz`` are Frank leads.
    """
    if len(name) > _MAX_NAME:
        return None
    key = unicodedata.normalize("NFKC", name).strip().lower().replace("μ", "µ")
    if _MDC.match(key):
        return _BY_KEY.get(_MDC.sub("", key))
    key = _SUFFIX.sub("", key).strip()
    if numbered := _NUMBERED.match(key):
        return LEADS[int(numbered[1]) - 1]
    key = _PREFIX.sub("", key)
    if spaced := _SPACED.match(key):
        key = "".join(part for part in spaced.groups() if part)
    return _BY_KEY.get(key) or _ALIASES.get(key)


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
    if not seen or _is_numbered(names):
        raise ReadError(_why_unknown(names), "unknown_leads")
    derivations = _derivable(set(seen))
    have = set(seen) | {d.lead for d in derivations}
    missing = tuple(row for row in range(len(LEADS)) if row not in have)
    recorded = tuple(sorted(seen))
    channels = tuple(rows.index(row) for row in recorded)
    return LeadPlan(tuple(rows), derivations, tuple(dropped), missing, recorded, channels)


def _is_numbered(names: Sequence[str]) -> bool:
    """Whether V1, V2 … may be numbers of columns, as R gives them: beyond V6 (D3, Lead 3), without another lead."""
    known = [name for name in names if canonical_lead(name)]
    for pattern, most in _COUNTED:
        counted = [match for name in names if (match := pattern.fullmatch(name.strip()))]
        if max((int(match[1]) for match in counted), default=0) > most:
            return all(pattern.fullmatch(name.strip()) for name in known)
    return False


def _why_unknown(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in names[:12]) or "no channel"
    keys = {name.strip().lower() for name in names}
    if _is_numbered(names):
        return (
            f"its channels are numbered ({listed}), so {names[0]} need not be a lead; name them: "
            f"leads={{'{names[0]}': 'I', …}} or --leads \"{names[0]}=I\""
        )
    if {"es", "as", "ai"} <= keys or any("easi" in key for key in keys):
        return f"its channels are of the EASI system ({listed}), from which the 12 leads can only be estimated"
    return (
        f"none of its channels is a lead of a 12-lead ECG ({listed}); leads are known by name: I, aVR, V1 …; "
        "others are named with leads={'MLII': 'II'} or --leads \"MLII=II\""
    )


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
