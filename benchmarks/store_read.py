"""How fast shuffled batches come out of a store. Prints one JSON object.

python benchmarks/store_read.py [--data STORE] [--batch 256] [--seconds 3] [--threads 1]

Without --data a store of 4,096 made-up recordings is prepared in a temporary folder. Everything is read once before the
clock starts, so that the page cache is measured and not the disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from deri.datasets import Dataset
from deri.ecg import LEADS
from deri.store import Store, prepare

DISTINCT, REPEATS = 256, 16


def make_store(folder: Path) -> tuple[Path, float]:
    """Prepare a store from WFDB records of noise; return it and the recordings prepared per second."""
    rng = np.random.default_rng(0)
    records = folder / "records"
    records.mkdir()
    for i in range(DISTINCT):
        units = rng.integers(-1500, 1500, (5000, 12), dtype=np.int16)
        header = [f"r{i} 12 500 5000"] + [f"r{i}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS]
        (records / f"r{i}.hea").write_text("\n".join(header) + "\n")
        (records / f"r{i}.dat").write_bytes(units.astype("<i2").tobytes())
    names = [f"r{i}" for i in range(DISTINCT)] * REPEATS
    examples = pd.DataFrame({"file": names, "record_id": [str(i) for i in range(len(names))]})
    examples = examples.assign(subject_id=examples.record_id, study_id=examples.record_id, source="noise")
    examples = examples.assign(report=None, split=None)
    rejects = pd.DataFrame(columns=["file", "record_id", "subject_id", "study_id", "source", "reason", "detail"])
    data = Dataset("folder", records, examples, {}, rejects, 0.1, 0.1)
    start = time.perf_counter()
    prepare(data, folder / "store")
    return folder / "store", len(names) / (time.perf_counter() - start)


def rate(read: Callable[[np.ndarray], object], rows: int, batch: int, seconds: float, threads: int) -> float:
    """Return recordings per second of ``read`` on random batches, over all threads together."""

    def run(seed: int) -> int:
        rng = np.random.default_rng(seed)
        count = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            read(rng.permutation(rows)[:batch])
            count += batch
        return count

    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        total = sum(pool.map(run, range(threads)))
        return total / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a store; default: a made-up one")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0, help="per figure")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, prepared = (options.data, None) if options.data else make_store(Path(folder))
        store = Store.open(path)
        batch = min(options.batch, len(store))
        for start in range(0, len(store), 256):
            store.signals_int16(np.arange(start, min(start + 256, len(store))))
        buffer = np.empty((batch, len(LEADS), store.samples), np.float32)

        def into_buffer(rows: np.ndarray) -> object:
            return store.signals(rows, out=buffer)

        def measure(read: Callable[[np.ndarray], object], threads: int = options.threads) -> float:
            return round(rate(read, len(store), batch, options.seconds, threads))

        result = {
            "benchmark": "store_read",
            "samples_per_s": measure(store.signals),
            "int16_samples_per_s": measure(store.signals_int16),
            "reused_buffer_samples_per_s": measure(into_buffer, threads=1),
            "prepare_samples_per_s": prepared and round(prepared),
            "recordings": len(store),
            "batch": batch,
            "threads": options.threads,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
