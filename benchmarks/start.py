"""How long commands take on one recording, and `deri pretrain` to its first step. Prints one JSON object.

    python benchmarks/start.py [--store STORE] [--source OTHER/src] [--rounds 3]

``--source`` is the ``src`` folder of another commit: its commands run in turn with ours, and `ratio` is its median over
ours. ``--store`` is one whose texts were encoded by recipe `demo` before; without it training is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from classify import fill
from scaling import SMALL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    sources = {"seconds": Path(__file__).resolve().parents[1] / "src"}
    if options.source:
        sources["other_seconds"] = options.source.resolve()
    result: dict[str, Any] = {"benchmark": "start", "rounds": options.rounds}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        fill(root / "made", root / "files", 1, 1)
        file = str(next((root / "files").glob("*.hea")))
        commands = {"classify": ["classify", file], "embed": ["embed", file, "--model", "deri-open", "--out"]}
        if options.store:
            small = [*SMALL, "train.batch_size=16", "train.epochs=1", "train.log_steps=1"]
            commands["pretrain"] = ["pretrain", "--recipe", "demo", "--device", "cpu", *small]
            commands["pretrain"] += ["--data", str(options.store), "--out"]
        for name, command in commands.items():
            taken: dict[str, list[float]] = {key: [] for key in sources}
            for turn in range(options.rounds):
                for key, source in sources.items():
                    out = [] if name == "classify" else [str(root / f"{name}-{key}{turn}.csv")]
                    taken[key].append(seconds([*command, *out], source, "train step" if name == "pretrain" else None))
            result[name] = {key: round(statistics.median(values), 2) for key, values in taken.items()}
            if options.source:
                result[name]["ratio"] = round(result[name]["other_seconds"] / result[name]["seconds"], 2)
    print(json.dumps(result, indent=2))


def seconds(command: list[str], source: Path, until: str | None) -> float:
    """By the clock, to the first line with ``until``, else to the end of the command."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "deri", *command],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as job:
        assert job.stdout is not None
        told = []
        for line in job.stdout:
            told.append(line)
            if until is not None and until in line:
                taken = time.perf_counter() - start
                job.terminate()
                return taken
    if until is not None or job.returncode:
        raise SystemExit("".join(told)[-2000:])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
