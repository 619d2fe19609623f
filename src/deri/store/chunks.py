"""One chunk of a preparation: read its recordings, write its shard and its rows. In worker processes by ``pool``."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deri.errors import DeriError, ReadError
from deri.files import atomic_path
from deri.store.layout import (
    FS,
    LEAD_COUNT,
    META_FILE,
    SAMPLES,
    UV_PER_UNIT,
    WORK_DIR,
    chunk_file,
    shard_name,
)
from deri.store.locks import file_lock
from deri.store.npy import npy_bytes
from deri.store.shard import ShardWriter

# The machine's trouble, not the recording's: refusing the recording would hide it.
_MACHINE_ERRORS = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT,
}  # fmt: skip

SHA_KEY = b"signals_sha256"


class StoppedError(Exception):
    """The preparation was interrupted; the chunk is dropped and redone by the next one."""


@dataclass(frozen=True)
class ChunkJob:
    """Everything a worker needs for the examples ``first … first + len(files) - 1``."""

    store: Path
    number: int
    first: int
    root: Path
    files: tuple[str, ...]
    repair: str
    wait: bool


@dataclass(frozen=True)
class Stored:
    """A recording in units of the store, and what the index says of it."""

    signal: np.ndarray  # int16 (12, SAMPLES)
    fs: float
    n_samples: int
    valid_samples: int
    repaired_samples: int
    quality: tuple[str, ...]


def quantise(signal: np.ndarray, uv_per_unit: float = UV_PER_UNIT) -> np.ndarray:
    """Return ``signal`` (float, mV) as int16 in units of ``uv_per_unit`` µV, off by half a unit at most.

    Raises:
        ReadError: ``amplitude_out_of_range`` where int16 cannot hold a value (beyond ±32.767 mV at 1 µV): neither
            wrapping nor clipping would be the recording any more.
        ValueError: a value is not finite.
    """
    units = np.multiply(signal, np.float32(1000.0 / uv_per_unit), dtype=np.float32)
    np.rint(units, out=units)
    # Not np.abs(units).max(): one more array of this size costs as much as the rest of the function.
    peak = max(float(units.max(initial=0.0)), -float(units.min(initial=0.0)))
    if not np.isfinite(peak):
        raise ValueError("the standardised signal has values that are not finite")
    if peak > 32767:
        raise ReadError(
            f"the signal reaches {peak * uv_per_unit / 1000:.1f} mV; "
            f"the store holds up to {32767 * uv_per_unit / 1000:.3f} mV",
            reason="amplitude_out_of_range",
        )
    quantised: np.ndarray = units.astype(np.int16)
    return quantised


def read_recording(path: Path, repair: str) -> Stored:
    """Read, standardise and quantise one recording. Raises what the reader raises."""
    from deri.ecg import read_ecg, standardise

    ecg = read_ecg(path)
    standard = standardise(ecg, fs=FS, samples=SAMPLES, repair=repair)
    signal = quantise(standard.signal)
    if signal.shape != (LEAD_COUNT, SAMPLES):
        raise ValueError(f"the standardised signal has shape {signal.shape}, not {(LEAD_COUNT, SAMPLES)}")
    return Stored(
        signal=signal,
        fs=float(ecg.fs),
        n_samples=int(ecg.n_samples),
        valid_samples=int(standard.valid_samples),
        repaired_samples=int(standard.repaired_samples),
        quality=tuple(standard.flags),
    )


def chunk_done(store: Path, number: int) -> bool:
    """Whether the chunk's rows and its whole shard are on disk."""
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(chunk_file(store, number)) as file:
            rows = int(file.schema_arrow.metadata[b"rows"])
    except FileNotFoundError:
        return False
    if not rows:
        return True
    try:
        size = (store / shard_name(number)).stat().st_size
    except FileNotFoundError:
        return False
    return size == npy_bytes((rows, LEAD_COUNT, SAMPLES), np.dtype("<i2"))


def convert_chunk(
    job: ChunkJob, tick: Callable[[int], None] | None = None, stopped: Callable[[], bool] | None = None
) -> bool:
    """Write the shard and the rows of one chunk, unless that was done.

    Args:
        job: the chunk.
        tick: called with the number of recordings looked at so far, after each.
        stopped: asked before each recording; True abandons the chunk with :class:`StoppedError`.

    Returns:
        False if another process is at work on the chunk and ``job.wait`` is False, else True: it is done.

    Raises:
        DeriError: the data set's folder vanished, or the machine cannot read on.
        OSError: the store cannot be written.
    """
    lock = job.store / WORK_DIR / f"chunk-{job.number:05d}.lock"
    with file_lock(lock, wait=job.wait) as held:
        if not held:
            return False
        # Whoever held the lock before may have finished the chunk, or even the whole store.
        if chunk_done(job.store, job.number) or (job.store / META_FILE).exists():
            return True
        _write_chunk(job, tick or (lambda _: None), stopped or (lambda: False))
    return True


def _write_chunk(job: ChunkJob, tick: Callable[[int], None], stopped: Callable[[], bool]) -> None:
    shard = job.store / shard_name(job.number)
    shard.parent.mkdir(exist_ok=True)
    for leftover in shard.parent.glob(f".{shard.name}.*.tmp"):  # of a killed run; the lock is ours
        leftover.unlink(missing_ok=True)
    rows: list[dict[str, Any]] = []
    with atomic_path(shard) as temporary, ShardWriter(temporary) as output:
        for offset, file in enumerate(job.files):
            if stopped():
                raise StoppedError
            row: dict[str, Any] = {"example": job.first + offset}
            result = _attempt(job, file)
            if isinstance(result, Stored):
                row |= {
                    "row": output.rows,
                    "valid_samples": result.valid_samples,
                    "repaired_samples": result.repaired_samples,
                    "quality": list(result.quality),
                    "fs": result.fs,
                    "n_samples": result.n_samples,
                }
                output.append(result.signal)
            else:
                row["reason"], row["detail"] = result
            rows.append(row)
            tick(offset + 1)
        stored, sha256 = output.rows, output.close()
    if not stored:
        shard.unlink()  # a memory map of no bytes is an error
    _write_rows(chunk_file(job.store, job.number), rows, stored, sha256)


def _attempt(job: ChunkJob, file: str) -> Stored | tuple[str, str]:
    """Return the recording, or why it is refused: (reason, detail)."""
    try:
        return read_recording(job.root / file, job.repair)
    except Exception as error:  # a defect of a reader must cost one recording, not the night's run
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in _MACHINE_ERRORS:
            raise DeriError(
                f"cannot read {job.root / file}: {cause.strerror}. Nothing is wrong with the recording itself: "
                "run the same command again when the machine can read it; finished chunks are kept"
            ) from error
        if isinstance(error, ReadError):
            reason, detail = error.reason, str(error)
        else:
            reason, detail = "reader_error", f"{type(error).__name__}: {error}"
    if not job.root.is_dir():
        raise DeriError(
            f"the data set's folder {job.root} is gone: mount it and run the same command again; "
            "finished chunks are kept"
        )
    return reason, detail.replace(f"{job.root}{os.sep}", "")


def _write_rows(path: Path, rows: list[dict[str, Any]], stored: int, sha256: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("example", pa.int64()),
            ("reason", pa.string()),
            ("detail", pa.string()),
            ("row", pa.int32()),
            ("valid_samples", pa.int32()),
            ("repaired_samples", pa.int32()),
            ("quality", pa.list_(pa.string())),
            ("fs", pa.float64()),
            ("n_samples", pa.int64()),
        ],
        metadata={b"rows": str(stored).encode(), SHA_KEY: sha256.encode()},
    )
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
