"""Simulated studies in the layout of CSN, "ecg-arrhythmia" 1.0.0 (Zheng et al., https://doi.org/10.13026/wgex-er52)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path

from deri.ecg.leads import LEADS
from deri.files import shipped_text
from deri.simulate.findings import FINDINGS
from deri.simulate.layouts.wfdb16 import digitise, write_record
from deri.simulate.studies import Study, draw_studies

NAME = "csn"
STREAM = 3
GAIN = 1000.0
MOST_RECORDS = 99_999  # record names have five digits
_PER_FOLDER = 100


def condition_table() -> str:
    """`ConditionNames_SNOMED-CT.csv`: acronyms, full names and SNOMED CT codes of the conditions, as published.

    A large scale 12-lead electrocardiogram database for arrhythmia study, by Zheng, Guo and Chu (PhysioNet,
    version 1.0.0), licensed CC BY 4.0.
    """
    return shipped_text("deri.datasets", "data/ConditionNames_SNOMED-CT.csv")


@lru_cache(maxsize=1)
def _codes() -> dict[str, str]:
    rows = [line.split(",") for line in condition_table().splitlines()[1:]]
    return {row[0]: row[2] for row in rows}


def snomed_codes(findings: tuple[str, ...]) -> list[str]:
    """The codes of a header's ``#Dx`` line: each once, in the order of the findings.

    Some do not stand in the condition table, as in the real headers.
    """
    codes: list[str] = []
    for finding in (FINDINGS[code] for code in findings):
        codes += [finding.snomed] if finding.snomed else [_codes()[acronym] for acronym in finding.csn]
    return list(dict.fromkeys(codes))


def record_name(index: int) -> tuple[str, str]:
    """Folder and name of record number ``index`` (from 0): 100 to a folder, ten folders to a folder of those."""
    folder = index // _PER_FOLDER
    return f"WFDBRecords/{folder // 10 + 1:02d}/{folder // 10 + 1:02d}{folder % 10}", f"JS{index + 1:05d}"


def write(root: Path, records: int, seed: int, label_noise: float = 0.0) -> Iterator[Study]:
    """Write ``records`` studies under ``root``, yielding each when it is on disk; the tables follow after the last.

    One recording per patient, 10 s at 500 Hz, 1000 units per mV (MATLAB v4 matrix behind a 24-byte head).
    """
    listed: list[str] = []
    when = datetime(2021, 3, 23, 20, 20, 0)
    for index, study in enumerate(draw_studies(seed, STREAM, records, more=0.0, mains_hz=50.0)):
        folder, name = record_name(index)
        if not listed or listed[-1] != f"{folder}/":
            os.makedirs(f"{root}/{folder}")
            listed.append(f"{folder}/")
        sex, codes = study.patient.sex.capitalize(), snomed_codes(study.tracing.findings)
        codes = [codes[i] for i in study.rng.permutation(len(codes))]  # the real headers have no order
        comments = [f"Age: {study.patient.age:.0f}", f"Sex: {sex}", f"Dx: {','.join(codes)}"]
        comments += [f"{key}: Unknown" for key in ("Rx", "Hx", "Sx")]
        digital = digitise(study.tracing.signal, GAIN)
        stamp = when + timedelta(seconds=index // 20)  # the real ones were written some twenty a second
        where = f"{root}/{folder}"
        write_record(where, name, digital, LEADS, fs=500, gain=GAIN, start=stamp, comments=comments, matlab=True)
        yield study
    (root / "ConditionNames_SNOMED-CT.csv").write_text(condition_table(), encoding="utf-8")
    (root / "RECORDS").write_text("\n".join(listed) + "\n", encoding="utf-8")
