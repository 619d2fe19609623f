"""How many 12-lead WFDB records of 10 s are read per second, beside the ``wfdb`` package. Prints one JSON object.

The records are synthetic, in the layout of MIMIC-IV-ECG (format 16, 500 Hz, aVF before aVL), and freshly written, so
the page cache is warm. Both readers are timed in turns on the same records and checked to give the same values.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import wfdb

from deri.ecg import LEADS, MIMIC_LEADS, read_ecg

ROUNDS = 5


def write_record(stem: Path, rng: np.random.Generator) -> None:
    digital = np.cumsum(rng.integers(-9, 10, (5000, 12)), axis=0).astype("<i2")
    sums = digital.astype(np.int64).sum(axis=0) & 0xFFFF
    lines = [f"{stem.name} 12 500 5000 08:44:00 23/07/2180"]
    for i, lead in enumerate(MIMIC_LEADS):
        lines.append(f"{stem.name}.dat 16 200.0(0)/mV 16 0 {digital[0, i]} {sums[i]} 0 {lead}")
    stem.with_suffix(".hea").write_text("\n".join(lines) + "\n")
    stem.with_suffix(".dat").write_bytes(digital.tobytes())


def rate(read: Callable[[str], object], stems: list[str]) -> float:
    start = time.perf_counter()
    for stem in stems:
        read(stem)
    return len(stems) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=500, help="records to write and read (default 500)")
    records = max(1, parser.parse_args().records)
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        stems = [str(Path(folder) / f"{40000000 + i}") for i in range(records)]
        for stem in stems:
            write_record(Path(stem), rng)
        few = stems[: max(1, records // 20)]  # wfdb takes some milliseconds each
        order = [MIMIC_LEADS.index(lead) for lead in LEADS]
        for stem in few:
            expected = wfdb.rdrecord(stem).p_signal.T[order].astype(np.float32)
            if not np.array_equal(read_ecg(stem).signal, expected):
                raise SystemExit(f"{stem}: the two readers disagree")
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(rate(read_ecg, stems))
            theirs.append(rate(wfdb.rdrecord, few))
    direct, package = statistics.median(ours), statistics.median(theirs)
    result = {
        "benchmark": "read_wfdb",
        "n": records,
        "rounds": ROUNDS,
        "samples_per_s": round(direct, 1),
        "samples_per_s_best": round(max(ours), 1),
        "wfdb_samples_per_s": round(package, 1),
        "ratio": round(direct / package, 1),
        "sample": "one record of 12 leads x 5000 samples, header included",
        "values_equal": True,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
