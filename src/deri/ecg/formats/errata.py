"""Known false gains of published headers.

The early header generation of the PhysioNet/CinC Challenge 2020 states gains for three sources that contradict the
samples they describe; the Challenge later published the same signal files (same checksums) with 1000/mV. The story and
the evidence are in ``docs/ecg.md``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from deri.ecg.formats.wfdb_header import Header
from deri.ecg.leads import LEADS


class Erratum(NamedTuple):
    """Records named ``name`` with ``stated`` units/mV really have ``true`` units/mV."""

    name: re.Pattern[str]
    fs: float
    stated: float
    true: float
    source: str


CHALLENGE_2020 = (
    Erratum(re.compile(r"E\d{5}"), 500.0, 4880.0, 1000.0, "Georgia"),
    Erratum(re.compile(r"S\d{4}"), 1000.0, 2_000_000.0, 1000.0, "PTB"),
    Erratum(re.compile(r"HR\d{5}"), 500.0, 200.0, 1000.0, "PTB-XL"),
)
_STATED = frozenset(erratum.stated for erratum in CHALLENGE_2020)


def find_erratum(header: Header) -> Erratum | None:
    """The erratum that applies to a header, or None. Every feature of the faulty generation must be there."""
    first = header.signals[0]
    if first.gain not in _STATED or header.n_signals != len(LEADS) or not first.file.endswith(".mat"):
        return None
    for signal, lead in zip(header.signals, LEADS, strict=True):
        if (
            (signal.format, signal.byte_offset, signal.baseline) != (16, 24, 0)
            or signal.gain != first.gain
            or signal.units != "mV"
            or signal.description != lead
        ):
            return None
    name = first.file.removesuffix(".mat")
    for erratum in CHALLENGE_2020:
        if erratum.stated == first.gain and erratum.fs == header.fs and erratum.name.fullmatch(name):
            return erratum
    return None
