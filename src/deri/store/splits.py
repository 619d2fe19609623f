"""Which recordings train, validate and test: given by the data set, or drawn by a hash of the patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from deri.errors import DeriError
from deri.store.layout import SPLITS
from deri.store.plan import pieces

if TYPE_CHECKING:
    import pandas as pd


def unit_hash(seed: int, key: str) -> float:
    """Map ``key`` to [0, 1): the first 53 bits of BLAKE2b-64 of ``"{seed}:{key}"`` as a binary fraction."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def draw_split(seed: int, key: str, *, val_fraction: float, test_fraction: float) -> str:
    """Return the split that :func:`unit_hash` gives: below ``test_fraction`` test, then so much of val, else train."""
    u = unit_hash(seed, key)
    return "test" if u < test_fraction else "val" if u < test_fraction + val_fraction else "train"


def assign_splits(
    examples: pd.DataFrame, *, rule: str, seed: int, val_fraction: float, test_fraction: float
) -> list[str]:
    """Return the split of every example.

    A split that the data set gives is kept. Otherwise :func:`draw_split` by the patient (``rule="patient"``) or the
    recording (``rule="record"``) decides. A recording without a patient stands for itself. Adding recordings moves
    nobody between splits.

    Raises:
        DeriError: a given split has a foreign name, or, by patients, one patient's recordings are given
            different splits.
    """
    given = [split if isinstance(split, str) and split else None for split in examples["split"].tolist()]
    foreign = sorted({split for split in given if split is not None} - set(SPLITS))
    if foreign:
        raise DeriError(
            f"the data set names split {foreign[0]!r}, which is none of {', '.join(SPLITS)}: correct its split column"
        )
    by_patient = rule == "patient"
    fixed = _patient_splits(_values(examples["subject_id"]), given) if by_patient and any(given) else {}
    result = []
    for record, subject, split in zip(
        _values(examples["record_id"]), _values(examples["subject_id"]), given, strict=True
    ):
        patient = subject if by_patient else ""
        chosen = split or fixed.get(patient)
        if chosen is None:
            chosen = draw_split(seed, patient or record, val_fraction=val_fraction, test_fraction=test_fraction)
        result.append(chosen)
    return result


def _values(column: pd.Series) -> Iterator[str]:
    return chain.from_iterable(pieces(column))


def _patient_splits(subjects: Iterable[str], given: list[str | None]) -> dict[str, str]:
    """Return the split of every patient who has a given one; "" is no patient."""
    splits: dict[str, str] = {}
    leaking: list[str] = []
    for subject, split in zip(subjects, given, strict=True):
        if not subject or split is None:
            continue
        if splits.setdefault(subject, split) != split and subject not in leaking:
            leaking.append(subject)
            if len(leaking) == 4:
                break
    if leaking:
        shown = ", ".join(leaking[:3]) + (", …" if len(leaking) > 3 else "")
        raise DeriError(
            f"the split column puts recordings of one patient into different splits (subject {shown}): "
            "correct it, or accept the leak with --split record"
        )
    return splits
