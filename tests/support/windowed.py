"""A small data set of recordings with few leads and of many lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from deri.datasets import Dataset
from deri.ecg import LEADS

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
# Name, seconds, leads, rate. Windows of 10 s: ten 1, long 4 (the last of 4 s), single 1, gap 2 (its first is flat),
# eight 1, rest 1 (2.4 s are left over).
RECORDINGS = (
    ("ten", 10.0, LEADS, 500),
    ("long", 34.0, LEADS, 250),
    ("single", 10.0, ("II",), 500),
    ("gap", 30.0, LEADS, 500),
    ("eight", 6.0, EIGHT, 500),
    ("rest", 12.4, LEADS, 500),
)
WINDOWS = {"ten": [0], "long": [0, 1, 2, 3], "single": [0], "gap": [1, 2], "eight": [0], "rest": [0]}


def dataset(root: Path) -> Dataset:
    """Write the recordings below ``root`` as NumPy archives and return the data set."""
    root.mkdir(parents=True, exist_ok=True)
    for i, (name, seconds, leads, fs) in enumerate(RECORDINGS):
        n = round(seconds * fs)
        beat = np.exp(-(((np.arange(n) / fs) % 0.8 - 0.3) ** 2) / 4e-4)
        signal = (
            np.random.default_rng(i).normal(0, 0.05, (len(leads), n))
            + np.linspace(0.5, 1.5, len(leads))[:, None] * beat
        )
        if name == "gap":
            signal[:, : 10 * fs] = 0.25
        np.savez(root / f"{name}.npz", signal=signal.astype(np.float32), fs=fs, units="mV", leads=leads)
    names = [name for name, *_ in RECORDINGS]
    examples = pd.DataFrame(
        {
            "file": [f"{name}.npz" for name in names],
            "record_id": names,
            "subject_id": [f"p{name}" for name in names],
            "study_id": names,
            "source": "test",
            "report": [f"sinus rhythm number {i}" for i in range(len(names))],
            "split": ["train", "train", "train", "train", "val", "test"],
            "labels": [("AFIB",), ("SR",), ("AFIB", "SR"), ("SR",), (), ("AFIB",)],
        },
        dtype=object,
    )
    columns = ["file", "record_id", "subject_id", "study_id", "source", "reason", "detail"]
    return Dataset(
        "folder", root, examples, {"labels": ["AFIB", "SR"]}, pd.DataFrame(columns=columns, dtype=object), 0.1, 0.1
    )
