"""How fast `deri embed` turns WFDB files into embeddings, beside its encoder alone. Prints one JSON object.

    python benchmarks/embed.py [--sizes 500 2000] [--rounds 3] [--distinct 100] [--model deri-open]

Folders hold simulated recordings, each under several names. `samples_per_s` is of the largest folder, from files to the
embeddings in memory (without start and loading of the model); `ratio` is that over the encoder alone, which embeds
windows of the same recordings that are in memory already, in the same batches, in turn with it; `ratio_cpu` is the same
of the processor time of all threads. `constant` is the cost
per record of the largest folder over that of the smallest. `encoders` are records per second of processor time of one
thread: the plain model (no folded weights), the model as it embeds, and what `deri export` makes of it; `cosine` is the
lowest to the plain model. Memory is the peak of this process after each folder. ``--beside N`` lets N other processes
compute all the time. Commands of deri set OMP_WAIT_POLICY=PASSIVE; set it to measure what they do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify import fill
from deri.cli.inputs import EmbedFiles, Files, Reading, Recordings
from deri.models import EcgTextModel, load_model
from deri.models.base import WindowBatch, window_batches
from deri.models.export import export_model, load_encoder
from deri.progress import SILENT

BATCH = 64


def seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    function()
    return clock() - start


def read(folder: Path) -> Files:
    return Files([{"file": str(path)} for path in sorted(folder.glob("*.hea"))], Reading({}, strict=True))


def end_to_end(model: EcgTextModel, folder: Path, files: int, rounds: int) -> dict[str, float]:
    """Records per second from files, of the encoder alone, their ratio, and the peak of memory in MB."""
    batches = list(islice(window_batches(Recordings(read(folder), SILENT), model.config.signal, None, BATCH), 8))
    alone = sum(len(batch.record) for batch in batches)
    times: dict[str, list[tuple[float, float]]] = {"files": [], "encoder": []}

    def take(name: str, records: int, function: Callable[[], object]) -> None:
        cpu = time.process_time()
        wall = seconds(function)
        times[name].append((wall / records, (time.process_time() - cpu) / records))

    for _ in range(rounds):
        take("encoder", alone, lambda: [model.embed_signals(*batch.content) for batch in batches])
        take("files", files, lambda: EmbedFiles(read(folder), lambda: model, None).run(SILENT))
    per_record = {name: np.median(taken, axis=0) for name, taken in times.items()}
    wall, cpu = per_record["encoder"] / per_record["files"]
    return {
        "samples_per_s": round(1 / per_record["files"][0], 2),
        "encoder_samples_per_s": round(1 / per_record["encoder"][0], 2),
        "ratio": round(wall, 3),
        "ratio_cpu": round(cpu, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def encoders(model: EcgTextModel, batch: WindowBatch, folder: Path, rounds: int) -> dict[str, Any]:
    """Records per second of processor time of one thread, and the lowest cosine to the plain model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ecg, valid = model.prepare(*batch.content)

    unfolded = deepcopy(model)

    def plain() -> np.ndarray:  # outside inference mode, where convolutions are not folded
        with torch.no_grad():
            return unfolded.ecg_embedding(ecg, valid).numpy()

    found: dict[str, Callable[[], np.ndarray]] = {
        "plain": plain,
        "deri": lambda: model.embed_signals(*batch.content, normalise=False),
    }
    for name, int8 in (("onnx", False), ("onnx int8", True)):
        export_model(model, folder / f"{name}.onnx", int8=int8)
        exported = load_encoder(folder / f"{name}.onnx")
        found[name] = lambda exported=exported: exported.embed_signals(*batch.content, normalise=False)
    values = {name: run() for name, run in found.items()}
    unit = {name: value / np.linalg.norm(value, axis=1, keepdims=True) for name, value in values.items()}
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, run in found.items():
            times[name].append(seconds(run, time.process_time))
    rates = {name: len(ecg) / statistics.median(taken) for name, taken in times.items()}
    torch.set_num_threads(threads)
    return {
        name: {
            "samples_per_cpu_s": round(rate, 2),
            "ratio_to_plain": round(rate / rates["plain"], 3),
            "cosine": round(float((unit[name] * unit["plain"]).sum(axis=1).min()), 6),
        }
        for name, rate in rates.items()
    }


@contextmanager
def others(count: int) -> Iterator[None]:
    """Processes that compute while the block lasts."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--model", default="deri-open")
    parser.add_argument("--beside", type=int, default=0, help="other processes that compute all the time")
    parser.add_argument("--encoders", action="store_true", help="also compare the encoder with its exported forms")
    options = parser.parse_args()
    model = load_model(options.model)
    result: dict[str, Any] = {"benchmark": "embed", "model": options.model, "threads": torch.get_num_threads()}
    result |= {"beside": options.beside, "wait_policy": os.environ.get("OMP_WAIT_POLICY")}
    with tempfile.TemporaryDirectory() as temporary, others(options.beside):
        root, sizes = Path(temporary), {}
        for files in sorted(options.sizes):
            folder = root / f"folder{files}"
            fill(root / f"made{files}", folder, files, options.distinct)
            sizes[files] = end_to_end(model, folder, files, options.rounds)
        rates = [size["samples_per_s"] for size in sizes.values()]
        result |= {"samples_per_s": rates[-1], "ratio": sizes[max(sizes)]["ratio"]}
        result["constant"] = round(rates[0] / rates[-1], 3)
        result["files"] = sizes
        if options.encoders:
            batch = next(window_batches(Recordings(read(folder), SILENT), model.config.signal, None, BATCH))
            result["encoders"] = encoders(model, batch, root, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
