"""Simulated studies in the layout of MIMIC-IV-ECG 1.0 (Gow et al., 2023, https://doi.org/10.13026/4nqg-sb35)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any

from deri.ecg.leads import LEADS, MIMIC_LEADS
from deri.simulate.layouts import write_table
from deri.simulate.layouts.wfdb16 import digitise, write_record
from deri.simulate.reports import COLUMNS, machine_report, pick
from deri.simulate.studies import MOST_STUDIES, Study, draw_studies
from deri.simulate.tracing import Measurements

NAME = "mimic-iv-ecg"
STREAM = 1
GAIN = 200.0
_FROM_CANONICAL = [LEADS.index(lead) for lead in MIMIC_LEADS]
MOST_RECORDS = 2_000_000  # beyond, study ids of eight digits would run out

RECORD_COLUMNS = ("subject_id", "study_id", "file_name", "ecg_time", "path")
MEASUREMENT_COLUMNS = (
    *("subject_id", "study_id", "cart_id", "ecg_time"),
    *(f"report_{i}" for i in range(COLUMNS)),
    *("bandwidth", "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"),
    *("p_axis", "qrs_axis", "t_axis"),
)
_ABSENT = 29999  # the carts' number for "not measured"
_P_ONSET = 40  # ms, where the carts' representative beat begins
_QRS_ONSET = 200  # ms, the same for a beat without P wave
# Golden section of 10^7, prime to it: k -> k * step mod 10^7 visits every number once, each far from the ones before.
_STEP = 6_180_339


def subject_id(patient: int) -> int:
    """The id of patient number ``patient``: unique in 10000000-19999999, spread over the folders p1000 ... p1999."""
    return 10_000_000 + (17 + patient * _STEP) % 10_000_000


def study_id(patient: int, study: int) -> int:
    """The id of a study: eight digits, 40000000-49999999, unique."""
    return 40_000_000 + (271_828 + (patient * MOST_STUDIES + study) * _STEP) % 10_000_000


def _measured(measurements: Measurements) -> list[int]:
    """The nine columns rr_interval ... t_axis: ms within a representative beat, degrees."""
    m = measurements
    if m.p_duration is None or m.pr is None or m.p_axis is None:
        p_onset, p_end, p_axis, qrs_onset = _ABSENT, _ABSENT, _ABSENT, _QRS_ONSET
    else:
        p_onset, p_end, p_axis = _P_ONSET, _P_ONSET + round(m.p_duration), round(m.p_axis)
        qrs_onset = _P_ONSET + round(m.pr)
    return [
        *(round(m.rr), p_onset, p_end, qrs_onset, qrs_onset + round(m.qrs), qrs_onset + round(m.qt)),
        *(p_axis, round(m.qrs_axis), round(m.t_axis)),
    ]


def write(root: Path, records: int, seed: int, label_noise: float = 0.0) -> Iterator[Study]:
    """Write ``records`` studies under ``root``, yielding each when it is on disk; the tables follow after the last.

    `record_list.csv` and `machine_measurements.csv` are sorted by subject and study as the published ones
    are.
    """
    listed: list[tuple[Any, ...]] = []
    measured: list[tuple[Any, ...]] = []
    when = datetime(2110, 1, 1)
    for study in draw_studies(seed, STREAM, records, more=0.5, mains_hz=60.0):
        rng = study.rng
        subject, number = subject_id(study.patient_index), study_id(study.patient_index, study.study_index)
        if study.study_index == 0:
            when = datetime(2110, 1, 1) + timedelta(minutes=int(rng.integers(0, 80 * 365 * 24 * 60)))
        else:
            when += timedelta(minutes=int(rng.exponential(200 * 24 * 60)) + 60)
        folder = f"files/p{subject // 10_000}/p{subject}/s{number}"
        os.makedirs(f"{root}/{folder}")
        digital = digitise(study.tracing.signal[_FROM_CANONICAL], GAIN)
        comments = [f"<subject_id>: {subject}"]
        write_record(
            f"{root}/{folder}", str(number), digital, MIMIC_LEADS, fs=500, gain=GAIN, start=when, comments=comments
        )
        report = machine_report(study.tracing, rng, label_noise)
        cart = int(rng.integers(6_000_000, 7_000_000))
        bandwidth = pick(rng, ("0.005-150 Hz",) * 4 + ("0.05-150 Hz",))
        filtering = pick(rng, ("60 Hz notch Baseline filter",) * 4 + ("60 Hz notch",))
        listed.append((subject, number, number, when, f"{folder}/{number}"))
        measured.append(
            (subject, number, cart, when, *report, bandwidth, filtering, *_measured(study.tracing.measurements))
        )
        yield study
    for file, columns, rows in (
        ("record_list.csv", RECORD_COLUMNS, listed),
        ("machine_measurements.csv", MEASUREMENT_COLUMNS, measured),
    ):
        write_table(root / file, columns, sorted(rows, key=itemgetter(0, 1)))
