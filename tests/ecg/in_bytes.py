"""Recordings whose bytes a test made."""

from __future__ import annotations

from pathlib import Path

import pytest

from deri.ecg import ECG, read_ecg
from deri.errors import ReadError


def read(folder: Path, data: bytes) -> ECG:
    """What ``read_ecg`` makes of ``data`` under a name that says nothing."""
    path = folder / "recording.bin"
    path.write_bytes(data)
    return read_ecg(path)


def reason_of(folder: Path, data: bytes) -> str:
    """Why ``read_ecg`` refuses ``data``."""
    with pytest.raises(ReadError) as caught:
        read(folder, data)
    return caught.value.reason
