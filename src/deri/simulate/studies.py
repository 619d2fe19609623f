"""Patients and their studies, one after the other, each drawn from a generator of its own.

A study depends on (seed, stream, patient, number of the study) and on nothing else: asking for more records
adds studies and changes none. Different streams (one per layout) never share a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from deri.simulate.device import Device
from deri.simulate.findings import CYCLE, FINDINGS, draw_condition, draw_findings, shuffled_cycle
from deri.simulate.noise import Noise
from deri.simulate.patient import Patient
from deri.simulate.tracing import Tracing, draw_tracing

MOST_STUDIES = 8  # of one patient
_FOLDS = 10
_CYCLE, _PATIENT, _STUDY, _FOLD = range(4)  # what a generator is for


@dataclass(frozen=True)
class Study:
    """One simulated study.

    ``rng`` continues the study's own stream: for its report, times and identifiers.
    """

    patient_index: int
    study_index: int  # within the patient
    main_finding: str  # of the patient
    fold: int  # 1 ... 10, of the patient; each main finding is spread evenly over the folds
    patient: Patient
    tracing: Tracing
    rng: np.random.Generator


def _rng(*key: int) -> np.random.Generator:
    # All keys have the same length: SeedSequence does not tell a key from the same key with zeros at its end.
    return np.random.default_rng([*key])


@lru_cache(maxsize=64)
def _main_findings(seed: int, stream: int, cycle: int) -> tuple[list[str], list[int]]:
    """The main findings of a cycle of patients, and how many earlier patients of the cycle have the same."""
    codes = shuffled_cycle(_rng(seed, stream, _CYCLE, cycle, 0))
    return codes, [codes[:i].count(code) for i, code in enumerate(codes)]


@lru_cache(maxsize=256)
def _fold_order(seed: int, stream: int, finding: int, ten: int) -> list[int]:
    return [int(fold) + 1 for fold in _rng(seed, stream, _FOLD, finding, ten).permutation(_FOLDS)]


_NUMBER = {code: i for i, code in enumerate(FINDINGS)}


def draw_studies(
    seed: int,
    stream: int,
    records: int,
    *,
    more: float,
    mains_hz: float,
    seconds: float | Callable[[np.random.Generator], float] = 10.0,
) -> Iterator[Study]:
    """Draw ``records`` studies at 500 Hz of as many patients as that takes.

    ``more``: probability that a patient has one more study (up to `MOST_STUDIES`), so that the mean is about
    1 / (1 - more). ``seconds``: the length of all recordings, or what draws that of each.
    """
    done, index = 0, 0
    while done < records:
        cycle, position = divmod(index, CYCLE)
        codes, earlier = _main_findings(seed, stream, cycle)
        main = FINDINGS[codes[position]]
        ten, rank = divmod(cycle * main.patients + earlier[position], _FOLDS)
        fold = _fold_order(seed, stream, _NUMBER[main.code], ten)[rank]
        rng = _rng(seed, stream, _PATIENT, index, 0)
        patient = Patient.draw(rng, mean_age=main.mean_age)
        condition = draw_condition(main.code, rng)
        count = int(min(rng.geometric(1 - more), MOST_STUDIES)) if more else 1
        for number in range(min(count, records - done)):
            rng = _rng(seed, stream, _STUDY, index, number)
            length = seconds(rng) if callable(seconds) else seconds
            findings = draw_findings(condition, rng, first=number == 0)
            today, noise = patient.today(rng), Noise.draw(rng, mains_hz)
            device = Device.draw(rng, noise.mains_hz)
            tracing = draw_tracing(findings, today, rng, seconds=length, noise=noise, device=device)
            yield Study(index, number, main.code, fold, patient, tracing, rng)
            done += 1
        index += 1
