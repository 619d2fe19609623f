"""Writers of small WFDB records, independent of the reader under test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

NAMES = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def _write_record(
    folder: Path,
    name: str,
    digital: np.ndarray,
    *,
    gain: Sequence[str] | str = "1000/mV",
    names: Sequence[str] = NAMES,
    fs: str = "500",
    form: str = "16",
    prefix: bytes = b"",
    suffix: str = ".dat",
    checksums: Sequence[int] | None = None,
    comments: str = "",
    zeros: Sequence[int] | None = None,
) -> Path:
    """Write a format-16 record of ``digital`` (samples, leads) and return its header's path."""
    digital = np.asarray(digital, dtype=np.int16)
    n, k = digital.shape
    gains = [gain] * k if isinstance(gain, str) else list(gain)
    if checksums is None:
        checksums = [int(np.int64(digital[:, i].astype(np.int64).sum()) & 0xFFFF) for i in range(k)]
    lines = [f"{name} {k} {fs} {n}"]
    for i in range(k):
        zero = 0 if zeros is None else zeros[i]
        lines.append(
            f"{name}{suffix} {form} {gains[i]} 16 {zero} {digital[0, i] if n else 0} {checksums[i]} 0 {names[i]}"
        )
    header = folder / f"{name}.hea"
    header.write_text("\n".join(lines) + "\n" + comments)
    (folder / f"{name}{suffix}").write_bytes(prefix + digital.astype("<i2").tobytes())
    return header


@pytest.fixture(scope="session")
def write_record() -> Callable[..., Path]:
    return _write_record


@pytest.fixture
def digital() -> np.ndarray:
    """Three seconds of twelve leads of int16, (1500, 12), that obey Einthoven and Goldberger up to rounding."""
    rng = np.random.default_rng(7)
    lead_i = np.cumsum(rng.integers(-20, 21, 1500))
    lead_ii = np.cumsum(rng.integers(-20, 21, 1500))
    limbs = [lead_i, lead_ii, lead_ii - lead_i, -(lead_i + lead_ii) // 2, lead_i - lead_ii // 2, lead_ii - lead_i // 2]
    chest = [np.cumsum(rng.integers(-20, 21, 1500)) for _ in range(6)]
    return np.stack(limbs + chest, axis=1).astype(np.int16)
