"""Pre-training over processes, batch sizes and store sizes. Prints one JSON object.

Every case is a run under ``torchrun`` on simulated pairs, or on the stores of ``--data``, with the same seed, that is
stopped after ``--steps``. Beside speed and memory it tells how far the losses of several processes are from those of
one with the same batch. ``seconds_to_first_step`` begins with the command, launcher and imports included; texts that
are encoded and reports that are read once a store are made before, by a run of one step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
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
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="stores in place of simulated ones")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("overrides", nargs="*", help="of the recipe; train.lr=1e-3 …")
    options = parser.parse_args()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for store in options.data or (make_store(Path(folder) / str(n), n) for n in options.records):
            measure(store, Path(folder) / "warm", options.batch[0], 1, options, steps=1)
            shutil.rmtree(Path(folder) / "warm")
            for batch, processes in itertools.product(options.batch, options.processes):
                cases.append(measure(store, Path(folder) / "run", batch, processes, options))
                shutil.rmtree(Path(folder) / "run")
    for case in cases:
        alone = (c for c in cases if all(c[k] == case[k] for k in ("store", "batch_size")) and c["processes"] == 1)
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


def measure(
    store: Path, out: Path, batch: int, processes: int, options: argparse.Namespace, steps: int = 0
) -> dict[str, Any]:
    """One run of ``steps``, else ``options.steps``, or a few more."""
    from deri.store import Store

    opened = Store.open(store)
    steps = steps or options.steps
    pairs = len(opened.rows("train"))
    switches = [*SMALL, f"train.batch_size={batch}", f"train.epochs={-(-steps // max(1, pairs // batch))}"]
    switches += ["train.schedule=constant", "train.warmup_steps=0", "train.checkpoint_steps=100000", *options.overrides]
    given = ["--recipe", options.recipe, "--device", options.device, "train.log_steps=1", *switches]
    start = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    first, lines = 0.0, list[dict[str, Any]]()
    with open(out.with_suffix(".log"), "w+") as log:
        job = subprocess.Popen(command(store, out, processes, *given), env=environment, stdout=log, stderr=log)
        while job.poll() is None and len(lines) < steps:
            time.sleep(0.05)
            lines = _train_lines(out)
            first = first or (time.perf_counter() - start if lines else 0.0)
        job.terminate()
        job.wait()
        lines = _train_lines(out)[:steps]
        if len(lines) < steps:
            raise SystemExit(f"the run ended after {len(lines)} steps:\n{Path(log.name).read_text()[-2000:]}")
    return {
        "store": str(store),
        "records": len(opened),
        "processes": processes,
        "batch_size": batch,
        "steps": len(lines),
        "samples_per_s": round(statistics.median(line["samples_per_s"] for line in lines[1:] or lines), 2),
        "seconds_to_first_step": round(first, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "losses": [line["loss"] for line in lines],
    }


def _train_lines(run: Path) -> list[dict[str, Any]]:
    from deri.training.log import read_metrics

    if not (run / "metrics.jsonl").is_file():
        return []
    return [line for line in read_metrics(run) if line["split"] == "train"]


if __name__ == "__main__":
    main()
