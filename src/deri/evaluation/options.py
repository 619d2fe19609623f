"""What is scored, and how: the options that all evaluations share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deri.errors import DeriError

Protocol = Literal["corrected", "published"]
Sampling = Literal["random", "patient"]

MIN_POS = 10
"""Fewer positives than this, and a class is marked: its AUROC moves by several points with a single record."""

DEFAULT_SEED = 42


Way = tuple[str, float | None]
"""How a task is scored: ``zero-shot`` and None, or ``probe`` and percent of the training records."""


def ways_to_score(fractions: Iterable[float]) -> list[Way]:
    """Zero-shot, and a probe on each of ``fractions``."""
    return [("zero-shot", None), *(("probe", fraction) for fraction in fractions)]


def way_name(mode: str, fraction: float | None) -> str:
    """``zero-shot``, or ``probe 10 %``."""
    return mode if fraction is None else f"{mode} {fraction:g} %"


@dataclass(frozen=True)
class EvalOptions:
    """Options of an evaluation; each kind of evaluation reads those that concern it.

    Attributes:
        protocol: ``corrected``, or ``published`` with the flaws of the papers (docs/evaluation.md).
        split: which records zero-shot scores; probes are scored on ``test``, with folds on all records.
        fractions: percent of the training records that probes are trained on, in (0, 100].
        sampling: of a fraction: by record, or by whole patients.
        seed: the first seed, of sampling, of the published training and of folds.
        seeds: how many, figures are means over them; None: 5 for a fraction below 100, whose draw of records decides
            much, else 1.
        folds: 0 for the splits of the store, else cross-validation by patient with so many folds, 3 or more.
        draws: 0 for no intervals; they are computed, so that any other number gives the same.
        min_pos: classes with fewer positives are marked and left out of the ``reliable`` mean.

    Raises:
        DeriError: a fraction or a number of folds that cannot be.
    """

    protocol: Protocol = "corrected"
    split: str = "test"
    fractions: tuple[float, ...] = (100.0,)
    sampling: Sampling = "random"
    seed: int = DEFAULT_SEED
    seeds: int | None = None
    folds: int = 0
    draws: int = 1000
    min_pos: int = MIN_POS

    def __post_init__(self) -> None:
        for fraction in self.fractions:
            if not 0 < fraction <= 100:
                raise DeriError(f"--fraction {fraction:g}: percentages of the training records lie in (0, 100]")
        if self.folds in (1, 2):
            raise DeriError(f"--folds {self.folds}: at least 3 are needed (train, choose, score)")

    def seeds_of(self, fraction: float) -> range:
        """The seeds of a probe on ``fraction`` % of the training records."""
        count = self.seeds or (5 if fraction < 100 else 1)
        return range(self.seed, self.seed + count)
