"""SIGKILLs of random processes of a pre-training under ``torchrun --max-restarts``. Prints one JSON object.

The run is compared with one that nobody disturbed: losses, held-out values and weights. On one process they must be the
same to the bit. Every second kill comes after a checkpoint that is newer than the kill before, so that training is met
and not the start alone; `steps_at_kills` are the steps that were kept.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from scaling import SMALL, command, make_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--pause", type=float, default=5.0, help="mean seconds between a start and the next kill")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compare(Path(folder), options), indent=2))


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train twice, once with kills."""
    from safetensors.torch import load_file

    store = make_store(folder / "data", options.records)
    switches = [*SMALL, f"train.epochs={options.epochs}", "train.checkpoint_steps=2", "train.log_steps=1"]
    switches += [f"train.batch_size={options.batch}", "train.timeout=60"]
    given = ["--recipe", "demo", "--device", "cpu", *switches]
    runs = {name: folder / name for name in ("straight", "killed")}
    start = time.perf_counter()
    subprocess.run(command(store, runs["straight"], options.processes, *given), check=True, capture_output=True)
    straight_s = time.perf_counter() - start
    steps, seconds, code = disturb(command(store, runs["killed"], options.processes, *given), runs["killed"], options)
    weights = [load_file(run / "checkpoints" / "last.safetensors") for run in runs.values()]
    return {
        "benchmark": "chaos",
        "processes": options.processes,
        "kills": len(steps),
        "steps_at_kills": steps,
        "exit_code": code,
        "seconds": round(seconds, 1),
        "seconds_undisturbed": round(straight_s, 1),
        "same_bits": all(weights[0][name].equal(weights[1][name]) for name in weights[0]),
        "largest_difference_of_metrics": difference(*runs.values()),
        "leftovers": [path.name for path in runs["killed"].rglob("*.tmp")],
    }


def disturb(arguments: list[str], run: Path, options: argparse.Namespace) -> tuple[list[int], float, int]:
    """The step of the last checkpoint at each kill, seconds, and the exit code."""
    at = arguments.index("-m", 1) + 2  # behind the launcher's name
    arguments = [*arguments[:at], f"--max-restarts={options.kills}", *arguments[at:]]
    draw, steps, start = random.Random(options.seed), list[int](), time.perf_counter()
    job = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while job.poll() is None and len(steps) < options.kills:
        while len(steps) % 2 and job.poll() is None and checkpoint_step(run) <= steps[-1]:
            time.sleep(0.1)
        time.sleep(draw.expovariate(1 / options.pause))
        if workers := children(job.pid):
            steps.append(checkpoint_step(run))
            os.kill(draw.choice(workers), signal.SIGKILL)
            wait_for_restart(job, workers)
    code = job.wait()
    return steps, time.perf_counter() - start, code


def checkpoint_step(run: Path) -> int:
    """The step of the last checkpoint of a run; 0 where there is none."""
    from safetensors import safe_open

    path = run / "checkpoints" / "last.safetensors"
    if not path.is_file():
        return 0
    # Opened once, without the tensors: the file is replaced now and then.
    with safe_open(path, framework="np") as file:
        (about,) = file.metadata().values()
    return int(json.loads(json.loads(about)["progress"])["step"])


def children(pid: int) -> list[int]:
    """Process ids of the trainings that the launcher ``pid`` started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split() if Path(f"/proc/{pid}").exists() else []
    return [int(child) for child in listed if b"pretrain" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for_restart(job: subprocess.Popen[bytes], before: list[int]) -> None:
    """Until the launcher has started other processes than ``before``, or has ended."""
    while job.poll() is None:
        now = children(job.pid)
        if now and not set(now) & set(before):
            return
        time.sleep(0.1)


def difference(left: Path, right: Path) -> float:
    """The largest of all losses and held-out values, but for speeds."""
    from deri.training.log import read_metrics

    a, b = read_metrics(left), read_metrics(right)
    assert [(line["split"], line["step"]) for line in a] == [(line["split"], line["step"]) for line in b]
    values = (
        (one[k], two[k]) for one, two in zip(a, b, strict=True) for k in one if k not in ("split", "samples_per_s")
    )
    return max(abs(x - y) for x, y in values)


if __name__ == "__main__":
    main()
