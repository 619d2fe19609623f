"""Damaged and hostile files end as an ECG that is true to the file or as a ReadError, soon and in little memory.

Each file is read in a child process that may use 1 GiB more than it has after loading its libraries; what is read is
compared with what another reader says, see ``run_mutations`` (which can be run by hand) and ``second_reader``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ecg.mutations import BOMB_COUNT, seeds
from ecg.run_mutations import BOMBS, MAX_GROWTH, judge, report, run

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")

# Every other reader that is there; with one of them missing most of its formats' files would be judged by less.
OTHERS = ("ecgdatakit", "pydicom", "pyedflib", "wfdb", "scipy", "h5py", "soundfile")


def need_others() -> None:
    for name in OTHERS:
        pytest.importorskip(name)


def test_every_seed_is_read_as_others_read_it(tmp_path: Path) -> None:
    need_others()
    for kind, files in seeds().items():
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        verdict = judge(kind, tmp_path / next(iter(files)))["verdict"]
        known = kind in ("scp-bimodal", "wfdb-segments", "bdf")  # wfdb joins no segments of unlike leads
        assert verdict == "agrees" or (known and verdict.startswith(("agrees", "alone"))), (kind, verdict)
        for name in files:
            (tmp_path / name).unlink()


def check(first: int, count: int) -> None:
    need_others()
    found = report(run(first, first + count))
    assert found["wrong"] == []
    assert found["files"] == count
    assert found["memory_growth_mb"] < MAX_GROWTH / 2**20
    verdicts = found["verdicts"]
    assert verdicts["agrees"] > 0.1 * count  # much damage leaves a readable file
    assert verdicts.get("alone", 0) + verdicts.get("flagged", 0) < 0.05 * count
    assert len(found["reasons"]) > 8


def test_mutated_files() -> None:
    check(0, 1020)


@pytest.mark.slow
def test_ten_thousand_mutated_files() -> None:
    check(1020, 10_000)


def test_bombs() -> None:
    for one in run(BOMBS, BOMBS + BOMB_COUNT):
        assert one["verdict"] == "refused", one
        assert one["growth"] < MAX_GROWTH
