"""How long a query of `deri search` takes over an index of N recordings, and what half the bytes would cost. JSON.

    python benchmarks/search.py [--recordings 1000000] [--dim 256] [--queries 20] [--threads 2]

The embeddings are made: points around 2,000 centres, in parts of 50,000 as `deri index` leaves them, in memory as after
a first query. `ms` is by the clock, best and median of the queries; `cpu_ms` is processor time of all threads over
their number, which other programs change less. `recall` is of the ten nearest, against cosines in float64; `float16` is
that of embeddings rounded to half precision, which would halve `vector_bytes`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--recordings", type=int, default=1_000_000)
parser.add_argument("--dim", type=int, default=256)
parser.add_argument("--queries", type=int, default=20)
parser.add_argument("--threads", type=int, default=2)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)  # before NumPy is there

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402

from deri.evaluation.features import unit  # noqa: E402
from deri.evaluation.index_layout import SOURCE  # noqa: E402
from deri.evaluation.indexing import JOINED  # noqa: E402
from deri.evaluation.search import Index  # noqa: E402

TOP = 10
WHERE = 'age > 60 and sex == "female"'


def made(n: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((n, centres.shape[1]), dtype=np.float32)
    return unit(centres[rng.integers(0, len(centres), n)] + noise).astype(np.float32)


def timed(index: Index, queries: np.ndarray, where: str | None) -> dict[str, float]:
    index.search(queries[0], top=TOP, where=where)
    clock, cpu = [], []
    for query in queries:
        begin, used = time.perf_counter(), time.process_time()
        index.search(query, top=TOP, where=where)
        clock.append(1e3 * (time.perf_counter() - begin))
        cpu.append(1e3 * (time.process_time() - used) / options.threads)
    return {"ms": min(clock), "ms_median": statistics.median(clock), "cpu_ms": statistics.median(cpu)}


def main() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2000, options.dim), dtype=np.float32)
    sizes = [min(JOINED, options.recordings - start) for start in range(0, options.recordings, JOINED)]
    parts = [made(size, centres, rng) for size in sizes]
    n = options.recordings
    table = pa.table(
        {
            "file": [f"/archive/{i // 1000:04d}/{i:07d}.dcm" for i in range(n)],
            "age": rng.integers(18, 95, n).astype(float),
            "sex": pa.array(["female", "male"]).take(pa.array(rng.integers(0, 2, n))),
            SOURCE: ["{}"] * n,
        }
    )
    meta = {"model": {"name": "made", "dim": options.dim}, "windows": None}
    meta["parts"] = [{"name": str(i), "rows": size, "dropped": []} for i, size in enumerate(sizes)]
    index = Index(Path("made"), meta, table, parts)
    queries = made(options.queries, centres, rng)
    asked = queries[:5]
    exact = np.concatenate([part.astype(np.float64) @ asked.T.astype(np.float64) for part in parts])
    rounded = np.concatenate([part.astype(np.float16).astype(np.float32) @ asked.T for part in parts])
    recall, half = [], []
    for i, query in enumerate(asked):
        nearest = set(np.argpartition(-exact[:, i], TOP)[:TOP])
        found = index.search(query, top=TOP)["file"].str[-11:-4].astype(int)
        recall.append(len(nearest & set(found)) / TOP)
        half.append(len(nearest & set(np.argpartition(-rounded[:, i], TOP)[:TOP])) / TOP)
    print(
        json.dumps(
            {
                "recordings": n,
                "dim": options.dim,
                "threads": options.threads,
                "search": timed(index, queries, None) | {"recall": statistics.mean(recall)},
                "search_where": timed(index, queries, WHERE) | {"where": WHERE},
                "float16": {"recall": statistics.mean(half)},
                "vector_bytes": 4 * n * options.dim,
                "table_bytes": table.nbytes,
                "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                "load_average": os.getloadavg()[0],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
