"""Gaussian waves of a moving dipole, summed into a signal.

The wave model is that of McSharry, Clifford, Tarassenko and Smith (IEEE Trans Biomed Eng 2003;50:289-294),
with a vector for an amplitude (Clifford, Nemati and Sameni, Physiol Meas 2010;31:595-609) and two widths,
since a T wave falls faster than it rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

REACH = 3.6  # a Gaussian is cut where it has fallen to 0.15 % of its peak
TAIL = 2.45  # widths at which it has fallen to 5 % of its peak: where a wave is taken to begin and end


@dataclass(frozen=True)
class Waves:
    """k waves: ``centre``, ``rise`` and ``fall`` (k,) in s, the latter standard deviations; ``vector`` (k, d) in mV.

    d is 3 for a dipole; further components are of sources near single leads.
    """

    centre: Array
    rise: Array
    fall: Array
    vector: Array

    @classmethod
    def table(cls, rows: Sequence[tuple[float, float, float, float, float, float]]) -> Waves:
        """From rows (centre ms, rise ms, fall ms, x, y, z), the form in which a beat is written down."""
        array = np.array(rows, dtype=np.float64).reshape(-1, 6)
        return cls(array[:, 0] / 1000, array[:, 1] / 1000, array[:, 2] / 1000, array[:, 3:].copy())

    @classmethod
    def single(cls, centre: float, width: float, vector: Array) -> Waves:
        """One symmetrical wave of ``vector`` (d,)."""
        return cls(np.array([centre]), np.array([width]), np.array([width]), vector[None])

    @classmethod
    def join(cls, *parts: Waves) -> Waves:
        """All waves of ``parts``, in order."""
        return cls(
            np.concatenate([p.centre for p in parts]),
            np.concatenate([p.rise for p in parts]),
            np.concatenate([p.fall for p in parts]),
            np.concatenate([p.vector for p in parts]),
        )

    def __len__(self) -> int:
        return len(self.centre)

    def at(self, times: Array, scale: Array | None = None) -> Waves:
        """One copy of the waves for each of ``times`` (m,) in s, its amplitudes times ``scale`` (m,) or (m, d)."""
        m = len(times)
        vector = np.broadcast_to(self.vector, (m, *self.vector.shape))
        if scale is not None:
            vector = vector * scale.reshape(m, 1, -1)
        return Waves(
            (times[:, None] + self.centre).ravel(),
            np.tile(self.rise, m),
            np.tile(self.fall, m),
            vector.reshape(-1, self.vector.shape[1]),
        )

    def scaled(self, gain: float) -> Waves:
        """The waves with ``gain`` times the amplitude."""
        return Waves(self.centre, self.rise, self.fall, self.vector * gain)

    def net(self) -> Array:
        """Time integral of the vector, (d,) in mV s: what an axis is measured from."""
        return np.sqrt(np.pi / 2) * ((self.rise + self.fall) @ self.vector)

    def values(self, times: Array) -> Array:
        """The vector (d, n) at ``times`` (n,) in s. For a few waves; `render` is for whole signals."""
        offset = times - self.centre[:, None]
        width = np.where(offset < 0, self.rise[:, None], self.fall[:, None])
        return self.vector.T @ np.exp(-0.5 * (offset / width) ** 2)


def render(waves: Waves, samples: int, fs: float) -> Array:
    """Sum ``waves`` into a signal of their vector (d, samples) sampled at ``fs`` Hz from time 0.

    Each wave is evaluated only within `REACH` widths of its centre: all windows lie end to end in one flat
    array, which `numpy.bincount` adds up, so that no Python loop runs over samples, beats or waves.
    """
    first = np.ceil((waves.centre - REACH * waves.rise) * fs).astype(np.int64).clip(0, samples)
    last = np.floor((waves.centre + REACH * waves.fall) * fs).astype(np.int64).clip(-1, samples - 1)
    length = np.maximum(last - first + 1, 0)
    total = int(length.sum())
    if total == 0:
        return np.zeros((waves.vector.shape[1], samples))
    wave = np.repeat(np.arange(len(waves)), length)
    index = np.arange(total) - np.repeat(np.cumsum(length) - length - first, length)
    offset = index / fs - waves.centre[wave]
    width = np.where(offset < 0, waves.rise[wave], waves.fall[wave])
    value = np.exp(-0.5 * (offset / width) ** 2)
    signal = np.zeros((waves.vector.shape[1], samples))
    for row, axis in zip(signal, np.ascontiguousarray(waves.vector.T), strict=True):
        if axis.any():
            row[:] = np.bincount(index, weights=value * axis[wave], minlength=samples)
    return signal
