"""How fast `deri classify` scores a folder of files, beside `deri embed`. Prints one JSON object.

    python benchmarks/classify.py [--files 1000] [--distinct 100] [--rounds 1] [--model deri-sim]

The folder holds simulated recordings, each under several names. Both commands run in processes of their own, one after
the other, so that `ratio` (files per second of `deri classify` over those of `deri embed`) is of one run; start and
loading of the model are part of each. `cpu` is per second of processor time, which other programs do not change.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deri.simulate import simulate

LABELS = ("atrial fibrillation", "sinus rhythm", "left bundle branch block", "AFIB", "STACH")


def fill(root: Path, folder: Path, files: int, distinct: int) -> None:
    """Copy ``distinct`` simulated recordings, in turn, until the folder holds ``files``."""
    simulate("mimic-iv-ecg", distinct, root, seed=0)
    headers = sorted(root.rglob("*.hea"))
    folder.mkdir()
    for i in range(files):
        header = headers[i % len(headers)]
        name = f"r{i:05d}"
        (folder / f"{name}.hea").write_text(header.read_text().replace(header.stem, name))
        (folder / f"{name}.dat").write_bytes(header.with_suffix(".dat").read_bytes())


def measure(command: list[str], files: int) -> dict[str, float]:
    """Files per second of a command, by the clock and by processor time."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "deri", *command], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": files / wall, "cpu": files / used}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="deri-sim")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        fill(root / "made", root / "folder", options.files, options.distinct)
        ask = [part for label in LABELS for part in ("--labels", label)]
        common = [str(root / "folder"), "--model", options.model, "--out"]
        commands = {
            "embed": ["embed", *common, str(root / "embeddings.parquet")],
            "classify": ["classify", *common, str(root / "scores.csv"), *ask],
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                found[name].append(measure(command, options.files))
    rates = {
        name: {key: statistics.median(one[key] for one in runs) for key in ("wall", "cpu")}
        for name, runs in found.items()
    }
    result = {
        "files": options.files,
        "labels": len(LABELS),
        "model": options.model,
        "samples_per_s": {name: round(rate["wall"], 2) for name, rate in rates.items()},
        "samples_per_cpu_s": {name: round(rate["cpu"], 2) for name, rate in rates.items()},
        "ratio": round(rates["classify"]["wall"] / rates["embed"]["wall"], 3),
        "ratio_cpu": round(rates["classify"]["cpu"] / rates["embed"]["cpu"], 3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
