"""Names, sizes and versions of the store format. ``docs/store.md`` describes it in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from deri.ecg.recording import ABOUT

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "deri-store"
VERSION = 2

FS = 500.0
SAMPLES = 5000
LEAD_COUNT = 12
UV_PER_UNIT = 1.0
SPLITS = ("train", "val", "test")

META_FILE = "store.json"
INDEX_FILE = "index.parquet"
REJECTS_FILE = "rejects.parquet"
REPORTS_FILE = "reports.parquet"
SIGNALS_DIR = "signals"
WORK_DIR = "work"
PLAN_FILE = "plan.json"

REJECT_COLUMNS = ("file", "record_id", "subject_id", "study_id", "source", "reason", "detail")
INDEX_COLUMNS = (
    "record_id", "subject_id", "study_id", "source", "file", "report_id", "split", "shard", "row",
    "window", "start_sample", "valid_samples", "repaired_samples", "missing_leads", "quality", "fs", "n_samples",
    "waveform", *ABOUT,
)  # fmt: skip


def about_schema() -> pa.Schema:
    """The columns of what is known of patient and recording: null, or an empty list, where nothing is."""
    import pyarrow as pa

    kinds = {"age": pa.float64(), "interpretation": pa.list_(pa.string())}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in ABOUT])


def chunk_size(n: int) -> int:
    """Return the number of examples per chunk: a sixteenth of ``n``, at least 64 and at most 8,192.

    It depends on nothing else, so that the bytes of a store do not depend on the number of workers. A shard of
    8,192 recordings takes 983 MB.
    """
    return min(max(-(-n // 16), 64), 8192)


def chunk_count(n: int) -> int:
    """Return the number of chunks of ``n`` examples."""
    return -(-n // chunk_size(n))


def shard_name(chunk: int) -> str:
    """Return the path of a chunk's signals, relative to the store."""
    return f"{SIGNALS_DIR}/shard-{chunk:05d}.npy"


def chunk_file(store: Path, chunk: int) -> Path:
    """Return the path of a chunk's rows while the store is unfinished; it exists when the chunk is complete."""
    return store / WORK_DIR / f"chunk-{chunk:05d}.parquet"
