"""How fast shuffled batches come out of a store, beside other ways to keep the same recordings. Prints one JSON object.

python benchmarks/store.py [--records 4096] [--batch 256] [--seconds 2] [--rounds 3] [--data STORE] [--dir FOLDER]

Every way holds the same int16 recordings and gives the same thing: batches of random rows as float32 mV, (batch, 12,
5000), in one process and one thread. That they are the same is checked before the clock starts, and everything is read
once, so that the page cache is measured and not the disk. The rounds take turns; the figure is the median.

- `deri`: `Store.signals` into new memory; `deri_int16` the stored units, `deri_buffer` into one buffer used again.
- `datasets`: Hugging Face `datasets`, an Arrow file with a column `Array2D`, in the format of NumPy.
- `zarr`: one chunk per recording, uncompressed, which is its fastest for random rows; `zarr_compressed` as by default.
- `webdataset`: `.npy` members of tar files of 512 recordings, read in sequence through a shuffle buffer of 1,024: there
  is no random access, so that its batches are less random.

A package that is not installed is reported as such.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import io
import itertools
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deri.datasets import Dataset
from deri.ecg import LEADS
from deri.store import Store, prepare

DISTINCT = 256
SCALE = np.float32(1e-3)
Read = Callable[[np.ndarray], np.ndarray]


def make_store(folder: Path, count: int) -> Path:
    """Prepare a store from WFDB records of noise, which no compression helps."""
    rng = np.random.default_rng(0)
    records = folder / "records"
    records.mkdir()
    for i in range(DISTINCT):
        units = rng.integers(-1500, 1500, (5000, 12), dtype=np.int16)
        header = [f"r{i} 12 500 5000"] + [f"r{i}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS]
        (records / f"r{i}.hea").write_text("\n".join(header) + "\n")
        (records / f"r{i}.dat").write_bytes(units.astype("<i2").tobytes())
    names = [f"r{i % DISTINCT}" for i in range(count)]
    examples = pd.DataFrame({"file": names, "record_id": [str(i) for i in range(count)]})
    examples = examples.assign(subject_id=examples.record_id, study_id=examples.record_id, source="noise")
    examples = examples.assign(report=None, split=None)
    rejects = pd.DataFrame(columns=["file", "record_id", "subject_id", "study_id", "source", "reason", "detail"])
    prepare(Dataset("folder", records, examples, {}, rejects, 0.1, 0.1), folder / "store")
    return folder / "store"


def _all(store: Store) -> Iterator[np.ndarray]:
    for start in range(0, len(store), 256):
        yield store.signals_int16(np.arange(start, min(start + 256, len(store))))


def hf_datasets(store: Store, folder: Path) -> Read:
    from datasets import Array2D, Features, load_from_disk
    from datasets import Dataset as Table

    def rows() -> Iterator[dict[str, Any]]:
        for batch in _all(store):
            for signal in batch:
                yield {"signal": signal}

    features = Features({"signal": Array2D((len(LEADS), store.samples), "int16")})
    Table.from_generator(rows, features=features, cache_dir=str(folder / "cache")).save_to_disk(str(folder / "hf"))
    table = load_from_disk(str(folder / "hf")).with_format("numpy")

    def read(rows: np.ndarray) -> np.ndarray:
        return np.asarray(table[rows]["signal"], np.float32) * SCALE

    return read


def zarr_chunks(compressed: bool) -> Callable[[Store, Path], Read]:
    def make(store: Store, folder: Path) -> Read:
        import zarr

        shape = (len(store), len(LEADS), store.samples)
        options: dict[str, Any] = {} if compressed else {"compressors": None}
        array = zarr.create_array(
            str(folder / f"{compressed}.zarr"), shape=shape, chunks=(1, *shape[1:]), dtype="int16", **options
        )
        start = 0
        for batch in _all(store):
            array[start : start + len(batch)] = batch
            start += len(batch)
        array = zarr.open_array(str(folder / f"{compressed}.zarr"), mode="r")
        return lambda rows: array.oindex[rows].astype(np.float32) * SCALE

    return make


def web_dataset(store: Store, folder: Path) -> Read:
    import webdataset

    shards = []
    number = 0
    for start in range(0, len(store), 512):
        shards.append(str(folder / f"shard-{start:06d}.tar"))
        with tarfile.open(shards[-1], "w") as tar:
            for signal in store.signals_int16(np.arange(start, min(start + 512, len(store)))):
                data = io.BytesIO()
                np.save(data, signal)
                member = tarfile.TarInfo(f"{number:06d}.npy")
                member.size = data.tell()
                data.seek(0)
                tar.addfile(member, data)
                number += 1
    stream = webdataset.WebDataset(shards, shardshuffle=len(shards)).shuffle(1024).decode().to_tuple("npy")
    samples = itertools.chain.from_iterable(itertools.repeat(stream))

    def read(rows: np.ndarray) -> np.ndarray:
        """As many as asked for, though not those: the stream decides."""
        return np.stack([sample[0] for sample in itertools.islice(samples, len(rows))]).astype(np.float32) * SCALE

    return read


RIVALS: dict[str, tuple[str, Callable[[Store, Path], Read]]] = {
    "datasets": ("datasets", hf_datasets),
    "zarr": ("zarr", zarr_chunks(False)),
    "zarr_compressed": ("zarr", zarr_chunks(True)),
    "webdataset": ("webdataset", web_dataset),
}


def rate(read: Read, rows: int, batch: int, seconds: float, seed: int) -> tuple[float, float]:
    """Return recordings of random batches per second of wall-clock and of processor time."""
    rng = np.random.default_rng(seed)
    count = 0
    start, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        read(rng.permutation(rows)[:batch])
        count += batch
    return count / (time.perf_counter() - start), count / (time.process_time() - cpu)


def check(name: str, read: Read, store: Store) -> None:
    """Every way must give what the store gives; the stream gives any recordings, each of which must be one of it."""
    rows = np.random.default_rng(1).permutation(len(store))[:64]
    found, expected = read(rows), store.signals(rows)
    if name == "webdataset":
        known = {signal.tobytes() for signal in store.signals(np.arange(min(DISTINCT, len(store))))}
        if not all(signal.tobytes() in known for signal in found):
            raise SystemExit(f"{name} gives other recordings than were written")
    elif found.dtype != np.float32 or not np.array_equal(found, expected):
        raise SystemExit(f"{name} gives other values than the store")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a store; default: a made-up one")
    parser.add_argument("--records", type=int, default=4096, help="of the made-up store")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=2.0, help="per figure and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="folder for the data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        store = Store.open(options.data or make_store(folder, options.records))
        batch = min(options.batch, len(store))
        buffer = np.empty((batch, len(LEADS), store.samples), np.float32)
        reads: dict[str, Read] = {
            "deri": store.signals,
            "deri_int16": store.signals_int16,
            "deri_buffer": lambda rows: store.signals(rows, out=buffer),
        }
        missing = []
        for rival, (package, make) in RIVALS.items():
            if importlib.util.find_spec(package) is None:
                missing.append(rival)
                continue
            (folder / rival).mkdir()
            reads[rival] = make(store, folder / rival)
            if options.data is None:
                check(rival, reads[rival], store)
        for read in reads.values():
            for start in range(0, len(store), batch):
                read(np.arange(start, start + batch) % len(store))
        rates: dict[str, list[tuple[float, float]]] = {key: [] for key in reads}
        for turn in range(options.rounds):
            for key, read in reads.items():
                rates[key].append(rate(read, len(store), batch, options.seconds, turn))
    wall = {key: statistics.median(value for value, _ in values) for key, values in rates.items()}
    table: dict[str, Any] = {
        key: {
            "samples_per_s": round(wall[key]),
            "samples_per_cpu_s": round(statistics.median(value for _, value in rates[key])),
            "deri_is_times_as_fast": round(wall["deri"] / wall[key], 1),
        }
        for key in reads
    }
    for rival, (package, _) in RIVALS.items():
        if rival in reads:
            table[rival]["version"] = importlib.metadata.version(package)
        else:
            table[rival] = "not installed"
    result = {
        "benchmark": "store",
        "samples_per_s": table["deri"]["samples_per_s"],
        "recordings": len(store),
        "batch": batch,
        "rounds": options.rounds,
        "table": table,
        "sample": "12 leads x 5000 samples, int16 on disk, float32 mV in memory (deri_int16: int16)",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
