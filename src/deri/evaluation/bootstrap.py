"""The percentile bootstrap by patient: records of one patient are not independent, and are drawn together."""

from __future__ import annotations

import numpy as np

from deri.evaluation.intervals import Interval

_CHUNK = 64  # draws at a time, which bounds memory to 64 counts per patient


class Bootstrap:
    """Draws of groups of records, the same at every call; none with fewer than two groups.

    Args:
        groups: (n,) whose record it is, 0 … k - 1.
        draws: how many.
        seed: the same seed draws the same groups.
    """

    def __init__(self, groups: np.ndarray, draws: int, seed: int) -> None:
        self.groups, self.seed = groups, seed
        self.n_groups = int(groups.max(initial=-1)) + 1
        self.draws = draws if self.n_groups > 1 else 0

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Column sums of ``values`` (n, columns) in every draw: (draws, columns) float64."""
        grouped = np.zeros((self.n_groups, values.shape[1]))
        np.add.at(grouped, self.groups, values)
        rng = np.random.default_rng(self.seed)
        even = np.full(self.n_groups, 1 / self.n_groups)
        out = np.zeros((self.draws, values.shape[1]))
        for start in range(0, self.draws, _CHUNK):
            size = min(_CHUNK, self.draws - start)
            out[start : start + size] = rng.multinomial(self.n_groups, even, size=size) @ grouped
        return out


def interval(drawn: np.ndarray) -> Interval | None:
    """The 2.5 and 97.5 percentiles of the draws in which the figure is defined; None where it is in none."""
    known = drawn[np.isfinite(drawn)]
    return (float(np.percentile(known, 2.5)), float(np.percentile(known, 97.5))) if len(known) else None
