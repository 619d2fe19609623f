"""Data sets of small WFDB records, written here byte by byte so that every stored sample is known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from deri.datasets import Dataset

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
CLASSES = ["AFIB", "SR", "PVC"]
TEXTS = ["Sinus rhythm. Normal ECG for this age", "ATRIAL fibrillation with rapid EKG response", None]


def write_record(root: Path, name: str, units: np.ndarray, fs: int = 500) -> None:
    """Write ``units`` (12, n), µV, as a WFDB record of format 16 with 1,000 units per mV."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} 12 {fs} {units.shape[1]}"]
    for lead, values in zip(LEADS, units, strict=True):
        checksum = int(values.astype(np.int64).sum()) & 0xFFFF
        checksum -= 0x10000 if checksum >= 0x8000 else 0
        lines.append(f"{name}.dat 16 1000(0)/mV 16 0 {values[0]} {checksum} 0 {lead}")
    (root / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (root / f"{name}.dat").write_bytes(units.T.astype("<i2").tobytes())


def ecg_units(seed: int, n: int = 5000) -> np.ndarray:
    """Return (12, n) int16 µV: spikes once a second on noise, limb leads as Einthoven has them."""
    rng = np.random.default_rng(seed)
    beat = np.where(np.arange(n) % 500 < 20, 900, 0)
    x = rng.integers(-150, 150, (12, n)) + beat * rng.uniform(0.3, 1.5, (12, 1))
    x[2] = x[1] - x[0]
    x[3] = -(x[0] + x[1]) / 2
    x[4] = x[0] - x[1] / 2
    x[5] = x[1] - x[0] / 2
    return np.rint(x).astype(np.int16)


def dataset_of(root: Path, names: list[str], **columns: list[Any]) -> Dataset:
    n = len(names)
    examples = {
        "file": names,
        "record_id": [f"r{i}" for i in range(n)],
        "subject_id": [f"p{i // 3}" for i in range(n)],
        "study_id": [f"s{i}" for i in range(n)],
        "source": ["east" if i % 4 else "west" for i in range(n)],
        "report": [TEXTS[i % 3] for i in range(n)],
        "split": [None] * n,
        "labels": [None if i % 5 == 4 else (CLASSES[i % 3],) if i % 2 else () for i in range(n)],
    }
    frame = pd.DataFrame({key: pd.Series(value, dtype=object) for key, value in (examples | columns).items()})
    rejects = pd.DataFrame(
        {
            "file": ["gone"],
            "record_id": ["rx"],
            "subject_id": ["px"],
            "study_id": ["sx"],
            "source": ["north"],
            "reason": ["no_report"],
            "detail": ["no row in the report table"],
        }
    )
    return Dataset(
        name="folder",
        root=root,
        examples=frame,
        tasks={"labels": list(CLASSES)},
        rejects=rejects,
        val_fraction=0.2,
        test_fraction=0.1,
    )


@pytest.fixture(scope="session")
def units_of() -> Callable[..., np.ndarray]:
    return ecg_units


@pytest.fixture(scope="session")
def record_writer() -> Callable[..., None]:
    return write_record


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    return dataset_of


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 records a000 … a199, of which a007 is missing, a100 cut short and a101 without a signal line."""
    root = tmp_path_factory.mktemp("records")
    for i in range(200):
        if i != 7:
            write_record(root, f"a{i:03d}", ecg_units(i))
    data = (root / "a100.dat").read_bytes()
    (root / "a100.dat").write_bytes(data[: len(data) // 2])
    (root / "a101.hea").write_text("a101 0 500 5000\n")
    return root


@pytest.fixture
def dataset(records: Path) -> Dataset:
    return dataset_of(records, [f"a{i:03d}" for i in range(200)])


@pytest.fixture
def small(records: Path) -> Dataset:
    """Seven good records."""
    return dataset_of(records, [f"a{i:03d}" for i in range(7)])


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, str]]:
    """Return the SHA-256 of every file below a folder, by relative path."""

    def read(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    return read
