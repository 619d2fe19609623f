"""Damaged and hostile files end as an ECG of sane size or as a ReadError, soon and in little memory."""

from __future__ import annotations

import resource
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import read_ecg
from deri.errors import ReadError
from ecg.mutations import bombs, mutation, seeds

OPTIONS = {"a.npy": {"fs": 500, "units": "uV"}}
MAX_SECONDS = 5.0
MAX_GROWTH = 2**30


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def outcome(path: Path) -> str:
    """Read a file under the promises; ``ok`` or the reason."""
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ecg = read_ecg(path, **OPTIONS.get(path.name, {}))
    except ReadError as error:
        result, message = error.reason, str(error)
    else:
        assert ecg.signal.shape[0] == 12
        assert ecg.signal.shape[1] <= 2**23
        assert not np.isinf(ecg.signal).any()
        assert 0 < ecg.fs < 1e7
        result, message = "ok", path.stem
    assert path.stem in message
    assert time.perf_counter() - begin < MAX_SECONDS, path
    return result


def run(numbers: range, folder: Path) -> Counter[str]:
    good = seeds()
    before = peak_bytes()
    counts: Counter[str] = Counter()
    for number in numbers:
        path = mutation(number, good, folder)
        try:
            counts[outcome(path)] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} of {sorted(good)[number % len(good)]}: {error!r}") from error
    assert peak_bytes() - before < MAX_GROWTH
    return counts


def test_every_seed_is_read(tmp_path: Path) -> None:
    for kind, files in seeds().items():
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        assert outcome(tmp_path / next(iter(files))) == "ok", kind
        for name in files:
            (tmp_path / name).unlink()


def test_mutated_files(tmp_path: Path) -> None:
    counts = run(range(1500), tmp_path)
    assert counts["ok"] > 30  # much damage leaves a readable file
    assert len(counts) > 8


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path: Path) -> None:
    assert sum(run(range(1500, 11_500), tmp_path).values()) == 10_000


def test_bombs(tmp_path: Path) -> None:
    files = bombs()
    before = peak_bytes()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert outcome(tmp_path / name) != "ok", name
    assert peak_bytes() - before < MAX_GROWTH
