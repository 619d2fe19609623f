"""One chunk of a preparation: read its recordings, standardise them, write its shard and its rows."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.ecg.formats.wfdb_signals import NO_SAMPLE
from deri.ecg.recording import ABOUT
from deri.errors import DeriError, ReadError
from deri.files import atomic_path
from deri.locks import file_lock
from deri.progress import SILENT, Progress
from deri.store.layout import (
    FS,
    LEAD_COUNT,
    META_FILE,
    SAMPLES,
    UV_PER_UNIT,
    WORK_DIR,
    about_schema,
    chunk_file,
    shard_name,
)
from deri.store.npy import npy_bytes
from deri.store.shard import ShardWriter, waveform_digest
from deri.workers import DIED

if TYPE_CHECKING:
    from deri.ecg import ECG
    from deri.ecg.formats.wfdb import Counts

# The machine's trouble, not the recording's: refusing the recording would hide it.
_MACHINE_ERRORS = {
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT,
}  # fmt: skip

DIGEST_KEY = b"rows_sha256"
_INT16_MAX = 32767


@dataclass(frozen=True)
class ChunkJob:
    """A task: everything a worker needs for the examples ``first … first + len(files) - 1``.

    ``refused`` holds why a file, by its position in ``files``, is not to be read at all.
    """

    store: Path
    number: int
    first: int
    root: Path
    files: tuple[str, ...]
    repair: str
    wait: bool
    min_leads: int = 1
    windows: int | None = 1
    reading: dict[str, Any] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def run(self, progress: Progress) -> bool:
        """See :func:`convert_chunk`."""
        return convert_chunk(self, progress)

    def without(self, record: int, why: str) -> ChunkJob:
        """The same chunk, of which a file is refused."""
        return replace(self, refused={**self.refused, record: why})


@dataclass(frozen=True)
class Stored:
    """A window of a recording in units of the store, and what the index says of it."""

    signal: np.ndarray  # int16 (12, SAMPLES)
    fs: float
    n_samples: int
    window: int
    start_sample: int
    valid_samples: int
    repaired_samples: int
    missing_leads: tuple[str, ...]
    quality: tuple[str, ...]
    waveform: str
    age: float | None
    sex: str | None
    date: str | None
    device: str | None
    interpretation: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Return the values of the index columns."""
        return {name: getattr(self, name) for name in ROW_COLUMNS}


ROW_COLUMNS = tuple(column.name for column in fields(Stored) if column.name != "signal")


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
    if peak > _INT16_MAX:
        raise ReadError(
            f"the signal reaches {peak * uv_per_unit / 1000:.1f} mV; "
            f"the store holds up to {_INT16_MAX * uv_per_unit / 1000:.3f} mV",
            reason="amplitude_out_of_range",
        )
    quantised: np.ndarray = units.astype(np.int16)
    return quantised


def exact_units(counts: Counts) -> np.ndarray | None:
    """Return the signal in units of the store, int16 (12, SAMPLES), where a multiplication of integers gives it.

    Most recordings of the large archives are alike: twelve leads of one gain, 10 s at 500 Hz in 16 bits, nothing
    missing, nothing suspicious. For those the way through millivolts changes no value and sets no flag, and takes
    several times as long. They are made of ``counts.samples`` in place. None for all others.
    """
    from deri.ecg.quality import quality_flags
    from deri.ecg.standardise import FLAT_MILLIVOLT, LOW_MILLIVOLT

    usual = (
        counts.samples.dtype == np.int16
        and counts.samples.shape == (LEAD_COUNT, SAMPLES)
        and counts.fs == FS
        and len(set(counts.gains)) == 1
        and not any(counts.baselines)
        and not counts.warnings
    )
    factor = _units_per_count(counts.gains[0]) if usual else None
    if factor is None:
        return None
    lowest, highest = counts.samples.min(axis=1).tolist(), counts.samples.max(axis=1).tolist()
    # A margin of two units around each bound: close to it the rounding of the way through millivolts decides.
    spans = [factor * (high - low) - 2 for low, high in zip(lowest, highest, strict=True)]
    if (
        min(lowest) <= NO_SAMPLE[16]
        or factor * max(max(highest), -min(lowest)) > _INT16_MAX - 2
        or min(spans) * UV_PER_UNIT < 1000 * FLAT_MILLIVOLT
        or max(spans) * UV_PER_UNIT < 1000 * LOW_MILLIVOLT
    ):
        return None
    if quality_flags(counts.samples, FS, mv_per_unit=factor * UV_PER_UNIT / 1000):
        return None
    return counts.samples if factor == 1 else np.multiply(counts.samples, np.int16(factor), out=counts.samples)


@lru_cache(maxsize=256)
def _units_per_count(gain: float) -> int | None:
    """Units of the store per count at ``gain`` counts per mV; None where no whole number gives what millivolts give.

    That it does is not assumed but looked at: all counts that a store can hold are converted.
    """
    from deri.ecg.formats.wfdb import to_millivolt

    if not 0.5 <= gain <= 1000 / UV_PER_UNIT:
        return None
    factor = round(1000 / UV_PER_UNIT / gain)
    if abs(factor * gain * UV_PER_UNIT / 1000 - 1) > 1e-6:
        return None
    largest = _INT16_MAX // factor
    counts = np.arange(-largest, largest + 1, dtype=np.int16)
    stored = quantise(to_millivolt(counts[None], (gain,), (0,), NO_SAMPLE[16]))
    return factor if np.array_equal(stored[0], counts * np.int16(factor)) else None


def _read(path: str | os.PathLike[str], reading: dict[str, Any]) -> tuple[ECG | np.ndarray, dict[str, Any]]:
    """Return the recording, as :func:`exact_units` where it can be, and its metadata.

    ``reading``: see :class:`deri.datasets.Dataset`.
    """
    from deri.ecg import read_ecg
    from deri.ecg.formats.wfdb import about_header, header_file, read_counts
    from deri.ecg.read import reading_options

    name = os.fspath(path)
    counts = None
    if "://" not in name:
        try:
            counts = read_counts(header_file(name), reading_options(**reading, fallback=True))
        except ReadError as error:
            if error.reason != "missing_header":
                raise
    if counts is None:
        ecg = read_ecg(path, **reading, fallback=True)
        return ecg, ecg.metadata
    units = exact_units(counts)
    return counts.to_ecg() if units is None else units, about_header(counts.header)


def read_recording(
    path: str | os.PathLike[str],
    repair: str,
    *,
    min_leads: int = 1,
    windows: int | None = 1,
    reading: dict[str, Any] | None = None,
) -> Iterator[Stored]:
    """Read, standardise and quantise the windows of one recording, at least one. Raises what the reader raises.

    They come one by one, since those of a day take a gigabyte.
    """
    from deri.ecg import standardise_windows
    from deri.ecg.gains import with_common_gain
    from deri.ecg.quality import quality_flags, refuse_wrong_unit

    found, metadata = _read(path, reading or {})
    about = {name: metadata.get(name) for name in ABOUT} | {"interpretation": tuple(metadata.get("interpretation", ()))}
    if isinstance(found, np.ndarray):
        yield Stored(found, FS, SAMPLES, 0, 0, SAMPLES, 0, (), (), waveform_digest(found), **about)
        return
    ecg = with_common_gain(found)  # here already: the checks of unit and quality look at amplitudes, too
    del found
    wanted = round(SAMPLES / FS * ecg.fs)
    for standard in refuse_wrong_unit(
        ecg, standardise_windows(ecg, FS, SAMPLES, windows=windows, repair=repair, min_leads=min_leads)
    ):
        # Looked at as it was recorded: resampling rounds off flat tops.
        used = ecg.signal[:, standard.start_sample : standard.start_sample + wanted]
        signal = quantise(standard.signal)
        if signal.shape != (LEAD_COUNT, SAMPLES):
            raise ValueError(f"the standardised signal has shape {signal.shape}, not {(LEAD_COUNT, SAMPLES)}")
        yield Stored(
            signal=signal,
            fs=float(ecg.fs),
            n_samples=int(ecg.n_samples),
            window=int(standard.window),
            start_sample=int(standard.start_sample),
            valid_samples=int(standard.valid_samples),
            repaired_samples=int(standard.repaired_samples),
            missing_leads=standard.missing_leads,
            quality=tuple(dict.fromkeys((*standard.flags, *quality_flags(used, ecg.fs)))),
            waveform=waveform_digest(signal),
            **about,
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


def convert_chunk(job: ChunkJob, progress: Progress = SILENT) -> bool:
    """Write the shard and the rows of one chunk, unless that was done.

    Args:
        job: the chunk.
        progress: is told the number of recordings looked at so far: before the first, and after each.

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
        _write_chunk(job, progress)
    return True


def _write_chunk(job: ChunkJob, progress: Progress) -> None:
    shard = job.store / shard_name(job.number)
    shard.parent.mkdir(exist_ok=True)
    for leftover in shard.parent.glob(f".{shard.name}.*.tmp"):  # of a killed run, on any machine; the lock is ours
        leftover.unlink(missing_ok=True)
    rows = _Rows()
    progress.update(0, len(job))
    with atomic_path(shard) as temporary, ShardWriter(temporary) as output:
        for offset, file in enumerate(job.files):
            why = job.refused.get(offset)
            found = _attempt(job, file, output) if why is None else [{"reason": DIED, "detail": why}]
            for row in found:
                rows.append({"example": job.first + offset} | row)
            progress.update(offset + 1, len(job))
        count, digest = output.rows, output.close()
    if not count:
        shard.unlink()  # a memory map of no bytes is an error
    rows.write(chunk_file(job.store, job.number), count, digest)


def _attempt(job: ChunkJob, file: str, output: ShardWriter) -> list[dict[str, Any]]:
    """Append the windows of a recording to the shard and return their rows, or a row that says why it is refused."""
    mark = output.mark()
    path = os.path.join(job.root, file)
    windows = read_recording(path, job.repair, min_leads=job.min_leads, windows=job.windows, reading=job.reading)
    rows: list[dict[str, Any]] = []
    while True:
        try:
            stored = next(windows)
        except StopIteration:
            return rows
        except Exception as error:  # a defect of a reader must cost one recording, not the night's run
            output.rewind(mark)
            reason, detail = _refusal(job, file, error)
            return [{"reason": reason, "detail": detail}]
        rows.append({"row": output.rows} | stored.row())
        output.append(stored.signal, stored.waveform)


def _refusal(job: ChunkJob, file: str, error: Exception) -> tuple[str, str]:
    """Return why a recording is refused: (reason, detail); raise what is no fault of the recording."""
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


class _Rows:
    """The rows of a chunk, some hundred as Python objects and the others as tables, which take a tenth of that."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._schema = pa.schema(
            [
                ("example", pa.int64()),
                ("reason", pa.string()),
                ("detail", pa.string()),
                ("row", pa.int32()),
                ("window", pa.int32()),
                ("start_sample", pa.int64()),
                ("valid_samples", pa.int32()),
                ("repaired_samples", pa.int32()),
                ("missing_leads", pa.list_(pa.string())),
                ("quality", pa.list_(pa.string())),
                ("fs", pa.float64()),
                ("n_samples", pa.int64()),
                ("waveform", pa.string()),
                *about_schema(),
            ]
        )
        self._rows: list[dict[str, Any]] = []
        self._tables: list[pa.Table] = []

    def append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == 256:
            self._pack()

    def _pack(self) -> None:
        import pyarrow as pa

        self._tables.append(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def write(self, path: Path, stored: int, digest: str) -> None:
        """Write all of them, with the number of stored rows and the checksum of their shard."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pack()
        table = pa.concat_tables(self._tables)
        table = table.replace_schema_metadata({b"rows": str(stored).encode(), DIGEST_KEY: digest.encode()})
        with atomic_path(path) as temporary:
            # Dictionaries and large row groups would take eight megabytes for a table of a few hundred kilobytes.
            pq.write_table(table, temporary, use_dictionary=False, row_group_size=512)
