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
from deri.simulate.findings import DECK, FINDINGS, Condition, deck, draw_condition, draw_findings
from deri.simulate.noise import Noise
from deri.simulate.patient import Patient
from deri.simulate.tracing import Tracing, draw_tracing

MOST_STUDIES = 8  # of one patient
_FOLDS = 10
_DECK, _PATIENT, _STUDY, _FOLD = range(4)

# Mean age (years) by theme where it differs much from 58; rough clinical expectation.
_MEAN_AGE = {
    "NORM": 46, "SARRH": 34, "WPW": 38, "AFIB": 72, "AFLT": 68, "PACE": 75, "3AVB": 74, "1AVB": 68, "CLBBB": 70,
    "CRBBB": 68, "IMI": 66, "ASMI": 66, "LVH": 62, "ISC_": 66, "SBRAD": 52, "STACH": 50, "LVHST": 68, "AMI": 66,
    "LMI": 66, "PMI": 66, "LAFB": 66, "LPFB": 66, "ERP": 32, "PERIC": 38, "DIG": 74, "HYPERK": 66, "SVTAC": 45,
    "APACE": 74, "DPACE": 75, "2AVB2": 72, "ISTEMI": 63, "ASTEMI": 62, "LSTEMI": 63, "IVCD": 64, "RAD": 40, "IRBBB": 45,
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One simulated study.

    ``rng`` continues the study's own stream: for its report, times and identifiers.
    """

    patient_index: int
    study_index: int  # within the patient
    theme: str
    fold: int  # 1 ... 10, of the patient; each theme is spread evenly over the folds
    patient: Patient
    tracing: Tracing
    rng: np.random.Generator


def _rng(*key: int) -> np.random.Generator:
    # All keys have the same length: SeedSequence does not tell a key from the same key with zeros at its end.
    return np.random.default_rng([*key])


@lru_cache(maxsize=64)
def _themes(seed: int, stream: int, block: int) -> tuple[list[str], list[int]]:
    """The themes of a deck's patients, and of how many earlier patients of the deck each has the same theme."""
    themes = deck(_rng(seed, stream, _DECK, block, 0))
    return themes, [themes[:i].count(theme) for i, theme in enumerate(themes)]


@lru_cache(maxsize=256)
def _fold_order(seed: int, stream: int, theme: int, ten: int) -> list[int]:
    return [int(fold) + 1 for fold in _rng(seed, stream, _FOLD, theme, ten).permutation(_FOLDS)]


_THEME_NUMBER = {code: i for i, code in enumerate(FINDINGS)}


def _fold(seed: int, stream: int, theme: str, occurrence: int) -> int:
    return _fold_order(seed, stream, _THEME_NUMBER[theme], occurrence // _FOLDS)[occurrence % _FOLDS]


def draw_studies(
    seed: int,
    stream: int,
    records: int,
    *,
    more: float,
    mains_hz: float,
    seconds: float | Callable[[np.random.Generator], float] = 10.0,
    fs: float = 500.0,
) -> Iterator[Study]:
    """Draw ``records`` studies of as many patients as that takes.

    ``more``: probability that a patient has one more study (up to `MOST_STUDIES`), so that the mean is about
    1 / (1 - more). ``seconds``: the length of all recordings, or what draws that of each.
    """
    done, index = 0, 0
    while done < records:
        themes, earlier = _themes(seed, stream, index // DECK)
        position = index % DECK
        theme = themes[position]
        occurrence = index // DECK * FINDINGS[theme].cards + earlier[position]
        rng = _rng(seed, stream, _PATIENT, index, 0)
        patient = Patient.draw(rng, mean_age=_MEAN_AGE.get(theme, 58))
        condition = draw_condition(theme, rng)
        count = int(min(rng.geometric(1 - more), MOST_STUDIES)) if more else 1
        for number in range(min(count, records - done)):
            yield _study(
                seed,
                stream,
                index,
                number,
                _fold(seed, stream, theme, occurrence),
                patient,
                condition,
                mains_hz,
                seconds,
                fs,
            )
            done += 1
        index += 1


def _study(
    seed: int,
    stream: int,
    index: int,
    number: int,
    fold: int,
    patient: Patient,
    condition: Condition,
    mains_hz: float,
    seconds: float | Callable[[np.random.Generator], float],
    fs: float,
) -> Study:
    rng = _rng(seed, stream, _STUDY, index, number)
    if callable(seconds):
        seconds = seconds(rng)
    findings = draw_findings(condition, rng, first=number == 0)
    today, noise = patient.today(rng), Noise.draw(rng, mains_hz)
    device = Device.draw(rng, noise.mains_hz)
    tracing = draw_tracing(findings, today, rng, fs=fs, seconds=seconds, noise=noise, device=device)
    return Study(index, number, condition.theme, fold, patient, tracing, rng)
