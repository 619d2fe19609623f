"""Pre-training over processes, batch sizes and store sizes. Prints one JSON object.

Every case is a run under ``torchrun`` on simulated pairs, with the same seed. Beside speed and memory it tells how far
the losses of several processes are from those of one with the same batch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SMALL = ("model.base_width=8", "model.dim=64", "model.decoder.hidden=32", "model.decoder.head_dim=16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 128, 512])
    parser.add_argument("--records", type=int, nargs="+", default=[1000])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*", help="of the recipe; train.lr=1e-3 …")
    options = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for records in options.records:
            store = make_store(Path(folder) / str(records), records)
            for batch, processes in itertools.product(options.batch, options.processes):
                out = Path(folder) / f"run-{records}-{batch}-{processes}"
                cases.append(measure(store, out, batch, processes, options) | {"records": records})
    for case in cases:
        alone = (c for c in cases if all(c[k] == case[k] for k in ("records", "batch_size")) and c["processes"] == 1)
        first = next(alone, case)
        pairs = zip(case["losses"], first["losses"], strict=True)
        case["largest_relative_difference"] = max(abs(a - b) / abs(b) for a, b in pairs)
        case["speedup"] = round(case["samples_per_s"] / first["samples_per_s"], 2)
    for case in cases:
        del case["losses"]
    print(
        json.dumps(
            {"benchmark": "scaling", "device": options.device, "cores": os.cpu_count(), "cases": cases}, indent=2
        )
    )


def make_store(folder: Path, records: int) -> Path:
    """A store of simulated pairs; a tenth is held out."""
    from deri.datasets import open_dataset
    from deri.simulate import simulate
    from deri.store import prepare

    simulate("mimic-iv-ecg", records, folder / "data", seed=1)
    dataset = open_dataset("mimic-iv-ecg", folder / "data")
    dataset.val_fraction = 0.1
    prepare(dataset, folder / "store")
    return folder / "store"


def command(store: Path, out: Path, processes: int, *more: str) -> list[str]:
    """A pre-training under ``torchrun`` that goes on in ``out``."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [
        sys.executable,
        *launcher,
        "-m",
        "deri",
        "pretrain",
        "--resume",
        "--data",
        str(store),
        "--out",
        str(out),
        *more,
    ]


def measure(store: Path, out: Path, batch: int, processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run of ``options.steps`` steps."""
    from deri.store import Store
    from deri.training.log import read_metrics

    size = min(batch, len(Store.open(store).rows("train")))
    epochs = -(-options.steps // max(1, len(Store.open(store).rows("train")) // size))
    switches = [*SMALL, f"train.batch_size={batch}", f"train.epochs={epochs}", "train.log_steps=1"]
    switches += ["train.schedule=constant", "train.warmup_steps=0", "train.checkpoint_steps=100000", *options.overrides]
    given = ["--recipe", options.recipe, "--device", options.device, *switches]
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    subprocess.run(command(store, out, processes, *given), env=environment, check=True, capture_output=True)
    lines = [line for line in read_metrics(out) if line["split"] == "train"][: options.steps]
    return {
        "processes": processes,
        "batch_size": batch,
        "steps": len(lines),
        "samples_per_s": round(statistics.median(line["samples_per_s"] for line in lines[1:]), 2),
        "seconds_with_setup": round(time.perf_counter() - start, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "losses": [line["loss"] for line in lines],
    }


if __name__ == "__main__":
    main()
