"""Simulated studies in the original layout of CPSC2018 (Liu et al., https://doi.org/10.1166/jmihi.2018.2442)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deri.simulate.findings import FINDINGS
from deri.simulate.layouts import write_table
from deri.simulate.studies import MOST_STUDIES, Study, draw_studies

NAME = "cpsc2018"
STREAM = 4
MOST_RECORDS = 9_999  # record names have four digits
SHORTEST, LONGEST = 6.0, 60.0  # s

_HEAD = b"MATLAB 5.0 MAT-file, Platform: PCWIN64, Created on: Tue Dec 19 17:25:13 2017".ljust(116)
_LABELS = 3


def classes_of(findings: tuple[str, ...]) -> list[int]:
    """The class numbers of a recording, at most three; empty where it shows none of the nine."""
    return sorted({number for code in findings if (number := FINDINGS[code].cpsc2018) is not None})[:_LABELS]


def _seconds(rng: np.random.Generator) -> float:
    """Half of the recordings take 10 s, the others 6 to 60 s."""
    if rng.random() < 0.5:
        return 10.0
    return round(min(SHORTEST + rng.exponential(11.0), LONGEST), 3)


def struct_bytes(signal: np.ndarray, sex: str, age: int) -> bytes:
    """A MATLAB 5 file with the struct ``ECG``: ``sex``, ``age``, ``data`` (12, n) float64 in mV."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    content = {"sex": sex, "age": np.uint8(age), "data": signal.astype(np.float64)}
    savemat(buffer, {"ECG": content}, do_compression=False)
    whole = buffer.getvalue()
    # SciPy writes the time and its platform into the description: the same seed must give the same bytes. The one
    # variable is compressed here, because SciPy's level of compression takes several times as long.
    packed = zlib.compress(whole[128:], level=1)
    return _HEAD + whole[len(_HEAD) : 128] + struct.pack("<II", 15, len(packed)) + packed


def write(root: Path, records: int, seed: int, label_noise: float = 0.0) -> Iterator[Study]:
    """Write ``records`` studies under ``root``, yielding each when it is on disk; ``REFERENCE.csv`` follows.

    One recording per patient, 6 to 60 s at 500 Hz. Every recording has one to three of the nine classes: drawn
    studies that show none of them are passed over.
    """
    rows: list[list[object]] = []
    # One study in four has no class; a patient's findings are drawn with the signal, hence the large number.
    drawn = draw_studies(seed, STREAM, MOST_STUDIES * MOST_RECORDS, more=0.0, mains_hz=50.0, seconds=_seconds)
    kept = 0
    for study in drawn:
        classes = classes_of(study.tracing.findings)
        if not classes:
            continue
        kept += 1
        name = f"A{kept:04d}"
        signal = np.rint(study.tracing.signal * np.float32(1000.0)) / 1000.0  # the recorders resolve about 1 µV
        content = struct_bytes(signal, study.patient.sex.capitalize(), int(study.patient.age))
        (root / f"{name}.mat").write_bytes(content)
        rows.append([name, *classes, *[""] * (_LABELS - len(classes))])
        yield study
        if kept == records:
            break
    write_table(root / "REFERENCE.csv", ["Recording", "First_label", "Second_label", "Third_label"], rows)
