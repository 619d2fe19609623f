"""Reads damaged files in a child process whose memory is limited, and says what became of each.

``python tests/ecg/run_mutations.py --count 10000`` prints one JSON object: how many were refused, for which reasons,
how many of those read agree with another reader, the slowest and the largest, and every file that broke a promise.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

MAX_SECONDS = 5.0
"""Of processor time for one file; the wall is given a multiple, as other work may go on."""
MAX_GROWTH = 2**30
OPTIONS: dict[str, dict[str, Any]] = {
    "a.npy": {"fs": 500, "units": "uV"},
    "huge.npy": {"fs": 500, "units": "uV"},
    "a.h5": {"fs": 500, "units": "mV"},
}
BOMBS = 10**9
"""Numbers from here on are those of ``bombs()``."""


class Hang(BaseException):
    """Not an Exception: no reader may catch it."""


def _alarm(*_: object) -> None:
    raise Hang


def judge(kind: str, path: Path, original: Any = None) -> dict[str, Any]:
    """Read one file; ``refused``, ``agrees``, ``flagged`` or ``alone`` (the other refuses it), or what is wrong."""
    from deri.ecg import read_ecg
    from deri.errors import ReadError

    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ecg = read_ecg(path, **OPTIONS.get(path.name, {}))
    except ReadError as error:
        said = path.stem in str(error)
        return {"verdict": "refused" if said else "WRONG: no file named", "reason": error.reason, "text": str(error)}
    except Hang:
        return {"verdict": "WRONG: hang", "reason": ""}
    except BaseException as error:
        return {"verdict": f"WRONG: {error!r}"[:300], "reason": ""}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - begin
    if seconds > MAX_SECONDS:
        return {"verdict": f"WRONG: {seconds:.1f} s", "reason": ""}
    if ecg.signal.shape[0] != 12 or ecg.signal.shape[1] > 2**23 or np.isinf(ecg.signal).any() or not 0 < ecg.fs < 1e7:
        return {"verdict": f"WRONG: shape {ecg.signal.shape} at {ecg.fs}", "reason": "ok"}
    return {
        "verdict": compare(kind, path, ecg, original or ecg),
        "reason": "ok",
        "flags": sorted(ecg.metadata["warnings"]),
    }


def alone(ecg: Any, original: Any, refusal: str) -> str:
    """The verdict on a file that the other reader refuses: a warning tells the damage, or little has changed."""
    if {"checksum_mismatch", "surplus_data", "inconsistent_header"} & ecg.metadata["warnings"].keys():
        return f"flagged: {refusal}"[:200]
    return unchanged(ecg, original) or f"alone: {refusal}"[:200]


def unchanged(ecg: Any, original: Any) -> str:
    """Of a file that only we read: whether what the damage did not touch is as it was before.

    Up to a scale and an offset per lead (a gain is a number in the file), all but a tenth of a lead's values must be
    values that this lead had before, somewhere: damage to a few bytes can drop, move or spoil no more.
    """
    worst, where = 1.0, ""
    for row, (values, before) in enumerate(zip(ecg.signal, original.signal, strict=True)):
        if ecg.leads[row] in ecg.metadata["derived_leads"]:
            continue
        for ours, old in _stretches(values.astype(np.float64), before.astype(np.float64)):
            coarse = 1e-7 * np.abs(ours).max(initial=0.0) > 1e-3 * np.ptp(ours) if ours.size else True
            if coarse or not old.size or not np.ptp(old):  # a constant, or float32 cannot tell the values apart
                continue
            shares = [_share(ours, old)]
            for low, high in ((0, 100), (10, 90)):
                a, b = np.percentile(ours, (low, high))
                c, d = np.percentile(old, (low, high))
                if b > a:
                    shares.append(_share((ours - a) / (b - a) * (d - c) + c, old))
            if max(shares) < worst:
                worst, where = max(shares), ecg.leads[row]
    return "" if worst >= 0.9 else f"WRONG: only {100 * worst:.0f} % of {where} were there before"


def _stretches(values: np.ndarray, before: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finite values of a lead and of the same lead before, in pairs: segments between gaps have scales of their own."""
    edges = np.flatnonzero(np.diff(np.isfinite(before).astype(int))) + 1
    if values.size != before.size or not edges.size:
        return [(values[np.isfinite(values)], before[np.isfinite(before)])]
    parts = zip(np.split(values, edges), np.split(before, edges), strict=True)
    return [(one[np.isfinite(one)], other[np.isfinite(other)]) for one, other in parts]


def _share(values: np.ndarray, known: np.ndarray) -> float:
    known = np.sort(known)
    at = np.clip(np.searchsorted(known, values), 1, known.size - 1)
    near = np.minimum(np.abs(known[at] - values), np.abs(known[at - 1] - values))
    return float((near <= 1e-5 * np.ptp(known) + 1e-7).mean())


def compare(kind: str, path: Path, ecg: Any, original: Any) -> str:
    """Whether another reader finds the same rate and the same values in the leads that the file stores."""
    from deri.ecg import LEADS
    from ecg import second_reader

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fs, leads = second_reader.read(kind, path)
    except second_reader.Refused as error:
        return alone(ecg, original, str(error))
    if abs(ecg.fs - fs) > 0.51 + 1e-3 * fs:
        return f"WRONG: {ecg.fs:g} Hz, the other says {fs:g}"
    for row, lead in enumerate(LEADS):
        ours = ecg.signal[row].astype(np.float64)
        if kind == "edf":  # ecgdatakit puts the parts of a discontinuous file one behind the other
            ours = ours[np.isfinite(ours)]
        if lead in ecg.metadata["derived_leads"] or not np.isfinite(ours).any():
            continue
        if lead not in leads:
            return alone(ecg, original, f"the other has no {lead}, or not its unit")
        theirs = np.asarray(leads[lead])
        there = np.isfinite(ours)
        if kind == "wfdb-skew":  # wfdb looks for no frames behind those that the header counts
            theirs = theirs[: np.flatnonzero(np.isfinite(theirs))[-1] + 1]
            there[theirs.size :] = False
        length = min(ours.size, theirs.size)
        if there[length:].any():
            return f"WRONG: {lead} has {ours.size} samples, the other says {theirs.size}"
        there = there[:length]
        close = np.isclose(ours[:length], theirs[:length], rtol=1e-4, atol=2e-6)
        if not close[there].all():
            at = int(np.flatnonzero(there & ~close)[0])
            return f"WRONG: {lead}[{at}] is {ours[at]:g}, the other says {theirs[at]:g}"
    return "agrees"


def child(first: int, last: int, folder: Path) -> None:
    """Judge the mutations of a range, a line of JSON for each on standard output."""
    from deri.ecg import read_ecg
    from ecg.mutations import bombs, mutation, seeds

    signal.signal(signal.SIGPROF, _alarm)
    good = seeds()
    bad = bombs() if last > BOMBS else {}
    originals: dict[str, Any] = {}
    for kind, files in good.items():  # loads every library before memory is counted
        for name, data in files.items():
            (folder / name).write_bytes(data)
        path = folder / next(iter(files))
        judge(kind, path)
        originals[kind] = read_ecg(path, **OPTIONS.get(path.name, {}))
        for name in files:
            (folder / name).unlink()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_GROWTH,) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kinds = sorted(good)
    for number in range(first, last):
        if number >= BOMBS:
            name = sorted(bad)[number - BOMBS]
            kind, path = "bomb", folder / name
            path.write_bytes(bad[name])
        else:
            kind, path = kinds[number % len(kinds)], mutation(number, good, folder)
        print(json.dumps({"number": number, "kind": kind, "file": path.name}), flush=True)
        begin = time.process_time()
        found = judge(kind, path, originals.get(kind))
        found["seconds"] = time.process_time() - begin
        found["growth"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        print(json.dumps(found), flush=True)


def run(first: int, last: int) -> Iterator[dict[str, Any]]:
    """What became of each mutation of a range; a child that dies or hangs is started anew behind the culprit."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    while first < last:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--child", str(first), str(last), folder]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            assert process.stdout is not None
            started: dict[str, Any] | None = None
            for line in process.stdout:
                said = json.loads(line)
                if "verdict" not in said:
                    started = said
                    continue
                assert started is not None
                yield {**started, **said}
                first = started["number"] + 1
                started = None
            code = process.wait()
            if started is not None:
                yield {**started, "verdict": f"WRONG: the process ended with {code}", "reason": "", "seconds": 0.0}
                first = started["number"] + 1
            elif first < last:
                raise RuntimeError(f"the child ended with {code} before mutation {first}")


def report(results: Iterator[dict[str, Any]], log: TextIO | None = None) -> dict[str, Any]:
    """Count verdicts and reasons; every broken promise is listed."""
    verdicts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    wrong = []
    slowest = largest = 0.0
    for one in results:
        if log is not None:
            log.write(json.dumps(one) + "\n")
        verdict = one["verdict"].partition(":")[0]
        verdicts[verdict] += 1
        reasons[one["reason"]] += 1
        kinds.setdefault(one["kind"], Counter())[verdict] += 1
        slowest = max(slowest, one["seconds"])
        largest = max(largest, one.get("growth", 0))
        if verdict == "WRONG":
            wrong.append({key: one[key] for key in ("number", "kind", "verdict")} | {"flags": one.get("flags", [])})
    return {
        "files": sum(verdicts.values()),
        "verdicts": dict(verdicts),
        "reasons": dict(reasons.most_common()),
        "kinds": {kind: dict(counts) for kind, counts in sorted(kinds.items())},
        "slowest_s": round(slowest, 3),
        "memory_growth_mb": round(largest / 2**20, 1),
        "wrong": wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--count", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--log", type=argparse.FileType("w"), help="a line of JSON for every file")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(int(options.child[0]), int(options.child[1]), Path(options.child[2]))
        return
    begin = time.perf_counter()
    found = report(run(options.first, options.first + options.count), options.log)
    print(json.dumps({**found, "wall_s": round(time.perf_counter() - begin, 1)}, indent=1))


if __name__ == "__main__":
    main()
