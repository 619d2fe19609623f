"""How fast and in how much memory a MIMIC-IV-ECG layout becomes a store. Prints one JSON object.

python benchmarks/prepare.py [--records 5000] [--large 50000] [--workers 1] [--rounds 3]

The layout is simulated: a few hundred distinct recordings, whose signal files stand under many study ids (hard links;
every header is a file of its own), so that 50,000 studies fit the page cache of a small machine. It is read once before
the clock starts. Each preparation runs in a process of its own; its peak memory includes Python, pandas and the tables.

`samples_per_s` is recordings per second of wall-clock time of ``deri prepare`` with one process, opening the tables
included; `samples_per_cpu_s` is per second of processor time, which a slow disk or other programs do not change.
`wfdb_samples_per_s` is a plain loop of ``wfdb.rdrecord`` over some of the same records, before and after each round.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DISTINCT = 500
WFDB_RECORDS = 60

CHILD = """
import json, os, resource, sys, time
from pathlib import Path
from deri.datasets import open_dataset
from deri.store import prepare
if __name__ == "__main__":
    start, before = time.perf_counter(), os.times()
    summary = prepare(open_dataset("mimic-iv-ecg", sys.argv[1]), Path(sys.argv[2]), workers=int(sys.argv[3]))
    wall, after = time.perf_counter() - start, os.times()
    try:  # ru_maxrss counts what the parent had when it started this process
        status = Path("/proc/self/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"read": summary.read, "wall": wall, "cpu": sum(after[:4]) - sum(before[:4]), "mib": peak}))
"""


def enlarge(base: Path, out: Path, records: int) -> list[str]:
    """Write a layout of ``records`` studies with the signals and reports of ``base``; return the records' paths."""
    with open(base / "record_list.csv", newline="") as handle:
        sources = list(csv.DictReader(handle))
    with open(base / "machine_measurements.csv", newline="") as handle:
        reports = {row["study_id"]: row for row in csv.DictReader(handle)}
    listed, measured = [], []
    for i in range(records):
        source = sources[i % len(sources)]
        study, subject = str(40_000_000 + i), str(10_000_000 + i // 2)
        path = f"files/p{subject[:4]}/p{subject}/s{study}/{study}"
        (out / path).parent.mkdir(parents=True)
        old = source["file_name"]
        header = (base / f"{source['path']}.hea").read_text().replace(old, study)
        (out / f"{path}.hea").write_text(header)
        os.link(base / f"{source['path']}.dat", out / f"{path}.dat")
        listed.append({**source, "subject_id": subject, "study_id": study, "file_name": study, "path": path})
        measured.append({**reports[source["study_id"]], "subject_id": subject, "study_id": study})
    for name, rows in (("record_list.csv", listed), ("machine_measurements.csv", measured)):
        with open(out / name, "w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return [str(out / row["path"]) for row in listed]


def wfdb_rates(records: list[str]) -> tuple[float, float]:
    """Records per second of wall-clock and of processor time."""
    import wfdb

    wall, cpu = time.perf_counter(), time.process_time()
    for record in records:
        wfdb.rdrecord(record)
    return len(records) / (time.perf_counter() - wall), len(records) / (time.process_time() - cpu)


def prepare_once(root: Path, store: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, "-c", CHILD, str(root), str(store), str(workers)]
    # One thread for NumPy's libraries: the figure is per process.
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=5000, help="of the timed preparation")
    parser.add_argument("--large", type=int, default=50_000, help="of the second one for the memory; 0: none")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, help="folder for the data, on the disk to be measured")
    options = parser.parse_args()

    from deri.simulate import simulate

    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        simulate("mimic-iv-ecg", DISTINCT, folder / "base", seed=1)
        records = enlarge(folder / "base", folder / "small", options.records)
        few = records[:: max(1, len(records) // WFDB_RECORDS)]
        wfdb_rates(few[:5])
        plain, runs = [wfdb_rates(few)], []
        for i in range(options.rounds):
            runs.append(prepare_once(folder / "small", folder / f"store-{i}", options.workers))
            plain.append(wfdb_rates(few))
        memory = {str(options.records): round(statistics.median(run["mib"] for run in runs), 1)}
        large = None
        if options.large:
            enlarge(folder / "base", folder / "large", options.large)
            large = prepare_once(folder / "large", folder / "store-large", options.workers)
            memory[str(options.large)] = round(large["mib"], 1)
    rates = [run["read"] / run["wall"] for run in runs]
    cpu_rates = [run["read"] / run["cpu"] for run in runs]
    package, cpu_package = (statistics.median(column) for column in zip(*plain, strict=True))
    result = {
        "benchmark": "prepare",
        "n": options.records,
        "workers": options.workers,
        "rounds": options.rounds,
        "samples_per_s": round(statistics.median(rates), 1),
        "samples_per_s_best": round(max(rates), 1),
        "samples_per_cpu_s": round(statistics.median(cpu_rates), 1),
        "wfdb_samples_per_s": round(package, 1),
        "wfdb_samples_per_cpu_s": round(cpu_package, 1),
        "ratio": round(statistics.median(rates) / package, 1),
        "cpu_ratio": round(statistics.median(cpu_rates) / cpu_package, 1),
        "large_samples_per_s": large and round(large["read"] / large["wall"], 1),
        "large_samples_per_cpu_s": large and round(large["read"] / large["cpu"], 1),
        "peak_memory_mib": memory,
        "sample": "one study: header, 12 leads x 5000 samples, report; stored and checksummed",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
