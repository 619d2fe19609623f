"""Prepare a layout with corrupt records on a Ray cluster that loses a node, and locally. Prints one JSON object.

python benchmarks/ray_engine.py [--records 10000] [--corrupt 0.01]

The layout is simulated as in `benchmarks/prepare.py`; of some records the header is text, empty or cut, or the signal
file is cut, empty or missing. The cluster has two nodes of one processor each on this machine; one of them is killed
when a third of the records is done. `equal`: whether both stores have the same bytes. `exactly`: whether the rejected
records are the corrupt ones. `samples_per_s` of the cluster includes the loss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deri.datasets import open_dataset
from deri.files import file_sha256
from deri.progress import SILENT, Progress
from deri.simulate import simulate
from deri.store import Store, prepare
from prepare import DISTINCT, enlarge

DAMAGE: tuple[Callable[[Path], object], ...] = (
    lambda record: rewrite(record.with_suffix(".hea"), lambda old: b"no header\n"),
    lambda record: rewrite(record.with_suffix(".hea"), lambda old: b""),
    lambda record: rewrite(record.with_suffix(".hea"), lambda old: old[: len(old) // 2]),
    lambda record: rewrite(record.with_suffix(".dat"), lambda old: old[: len(old) // 2]),
    lambda record: rewrite(record.with_suffix(".dat"), lambda old: b""),
    lambda record: record.with_suffix(".dat").unlink(),
)


def rewrite(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Write a file anew: its old content may have other names."""
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(change(content))


class Losing(Progress):
    """Kills a node of a cluster when a third is done."""

    def __init__(self, cluster: Any, node: Any) -> None:
        self.cluster, self.node, self.lost_at = cluster, node, 0

    def update(self, done: int, total: int) -> None:
        if not self.lost_at and done > total / 3:
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.lost_at = done


def digests(store: Path) -> dict[str, str]:
    return {str(file.relative_to(store)): file_sha256(file) for file in store.rglob("*") if file.is_file()}


def timed(source: Path, out: Path, **options: Any) -> float:
    start = time.perf_counter()
    prepare(open_dataset("mimic-iv-ecg", source), out, **options)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--corrupt", type=float, default=0.01, help="share of the records")
    parser.add_argument("--dir", type=Path, help="folder for the data")
    options = parser.parse_args()

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        simulate("mimic-iv-ecg", DISTINCT, folder / "base", seed=1)
        records = enlarge(folder / "base", folder / "source", options.records)
        corrupt = random.Random(0).sample(records, round(options.corrupt * options.records))
        for i, record in enumerate(corrupt):
            DAMAGE[i % len(DAMAGE)](Path(record))
        seconds = {"local": timed(folder / "source", folder / "local", workers=2, progress=SILENT)}

        cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        losing = Losing(cluster, cluster.add_node(**small))
        os.environ["RAY_ADDRESS"] = cluster.address
        try:
            seconds["ray"] = timed(folder / "source", folder / "ray", engine="ray", progress=losing)
        finally:
            cluster.shutdown()

        wanted = {f"{os.path.relpath(record, folder / 'source')}" for record in corrupt}
        rejects = {engine: Store.open(folder / engine).rejects for engine in seconds}
        result = {
            "benchmark": "ray_engine",
            "n": options.records,
            "corrupt": len(corrupt),
            "rejected": {engine: len(table) for engine, table in rejects.items()},
            "exactly": {engine: set(table["file"]) == wanted for engine, table in rejects.items()},
            "reasons": rejects["ray"]["reason"].value_counts().to_dict(),
            "node_lost_at": losing.lost_at,
            "equal": digests(folder / "local") == digests(folder / "ray"),
            "samples_per_s": {engine: round(options.records / taken, 1) for engine, taken in seconds.items()},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
