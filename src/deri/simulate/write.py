"""`simulate`: a folder of generated studies in a public data set's layout, all of it or none."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from deri.errors import DeriError
from deri.files import atomic_path
from deri.progress import SILENT, Progress
from deri.simulate.layouts import cpsc2018, csn, mimic, ptbxl

_MODULES = {module.NAME: module for module in (mimic, ptbxl, cpsc2018, csn)}
LAYOUTS = tuple(_MODULES)
"""Names of the layouts that `simulate` writes."""


@dataclass(frozen=True)
class SimulationSummary:
    """What was written: numbers of ``records`` and ``patients``, and of records by finding."""

    layout: str
    out: Path
    records: int
    patients: int
    findings: dict[str, int]
    seconds: float

    def text(self) -> str:
        """A few lines for people."""
        found = ", ".join(f"{code} {count}" for code, count in sorted(self.findings.items(), key=lambda item: -item[1]))
        return (
            f"{self.records} simulated records of {self.patients} patients in {self.layout} layout: {self.out}\n"
            f"{found}\n"
            f"{self.seconds:.1f} s, {self.records / max(self.seconds, 1e-9):.0f} records/s"
        )


def simulate(
    layout: str,
    records: int,
    out: str | Path,
    *,
    seed: int = 0,
    label_noise: float = 0.02,
    progress: Progress = SILENT,
) -> SimulationSummary:
    """Write ``records`` simulated studies to the new folder ``out`` in one of the `LAYOUTS`.

    The same ``seed`` gives the same bytes; a study does not depend on how many follow it. The layouts draw from
    streams of their own: with one seed, too, no patient of one occurs in another. ``label_noise`` is the share of
    findings that a report misses, and of reports that name one too many; the labels of layouts that have labels stay
    true.

    Files are written to a hidden folder beside ``out`` that is renamed when complete, so that a killed run
    leaves nothing that looks finished. Raises DeriError for an unknown layout, a bad number or seed, or an
    ``out`` that exists and is not empty.
    """
    if layout not in _MODULES:
        raise DeriError(f"Layout '{layout}' cannot be simulated. Layouts that can: {', '.join(LAYOUTS)}.")
    module = _MODULES[layout]
    most = module.MOST_RECORDS
    if not 1 <= records <= most:
        raise DeriError(f"--records must be between 1 and {most:,} for {layout}, not {records:,}.")
    if not 0 <= label_noise < 1:
        raise DeriError(f"label_noise must be at least 0 and below 1, not {label_noise:g}.")
    if seed < 0:
        raise DeriError(f"--seed must be 0 or more, not {seed}.")
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DeriError(f"{out} exists and is not an empty folder: name a new one for --out, or remove it.")
    started = time.perf_counter()
    findings: Counter[str] = Counter()
    done, patients = 0, 0
    with atomic_path(out) as partial:
        partial.mkdir()
        for study in module.write(partial, records, seed, label_noise):
            done += 1
            patients += study.study_index == 0
            findings.update(study.tracing.findings)
            progress.update(done, records)
    return SimulationSummary(layout, out, done, patients, dict(findings), time.perf_counter() - started)
