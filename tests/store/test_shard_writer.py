"""A shard that is written row by row: its bytes, its checksum, and errors of the disk."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

from deri.store import shard
from deri.store.npy import NpyAppender
from deri.store.shard import ShardWriter, waveform_digest


def recording(i: int) -> np.ndarray:
    return np.random.default_rng(i).integers(-3000, 3000, (12, 5000), dtype=np.int16)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_recordings_come_back_in_order_with_their_checksum(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard, "SYNC_BYTES", 5_000_000)
    reused = np.empty((12, 5000), np.int16)
    with ShardWriter(tmp_path / "s.npy") as output:
        for i in range(count):
            reused[:] = recording(i)  # the next one comes in the same memory
            output.append(reused, waveform_digest(reused))
        assert output.rows == count
        digest = output.close()
    stored = np.load(tmp_path / "s.npy")
    assert stored.shape == (count, 12, 5000)
    assert all(np.array_equal(stored[i], recording(i)) for i in range(count))
    data = (tmp_path / "s.npy").read_bytes()[128:]
    rows = [hashlib.sha256(data[at : at + 120_000]).digest()[:16] for at in range(0, len(data), 120_000)]
    assert digest == hashlib.sha256(b"".join(rows)).hexdigest()


def write(path: Path, count: int, interrupt: bool = False) -> None:
    with ShardWriter(path) as output:
        for i in range(count):
            output.append(recording(i), waveform_digest(recording(i)))
        if interrupt:
            raise KeyboardInterrupt
        output.close()


@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("method", ["append", "sync", "close"])
def test_an_error_of_the_disk_is_raised_and_no_thread_stays(
    method: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: NpyAppender, *_: object) -> None:
        raise OSError(28, "No space left on device")

    before = threading.active_count()
    monkeypatch.setattr(shard, "SYNC_BYTES", 100_000)
    monkeypatch.setattr(NpyAppender, method, full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "s.npy", count)
    assert threading.active_count() == before


def test_a_shard_that_is_not_closed_is_no_npy_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "s.npy", 32, interrupt=True)
    with pytest.raises(ValueError, match=r"magic|pickled|EOF"):
        np.load(tmp_path / "s.npy")


@pytest.mark.parametrize("wrong", [np.zeros((12, 4999), np.int16), np.zeros((12, 5000), np.float32)])
def test_other_arrays_are_refused(wrong: np.ndarray, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "s.npy") as output, pytest.raises(ValueError, match="does not fit a shard"):
        output.append(wrong, "00" * 16)


def test_what_is_taken_back_leaves_no_trace(tmp_path: Path) -> None:
    def append(output: ShardWriter, *numbers: int) -> None:
        for i in numbers:
            output.append(recording(i), waveform_digest(recording(i)))

    with ShardWriter(tmp_path / "a.npy") as output:
        append(output, 1, 2)
        mark = output.mark()
        append(output, 3, 4, 5)
        output.rewind(mark)
        output.rewind(mark)
        append(output, 6)
        taken_back = output.close()
    with ShardWriter(tmp_path / "b.npy") as output:
        append(output, 1, 2, 6)
        assert output.close() == taken_back
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
