"""Beats of a recording, and its median beat: what intervals and features are measured in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_RATE = 250.0  # Hz, at which beats are looked for and measured
BEFORE, AFTER = 0.35, 0.45
"""s of a beat before and after the middle of its QRS complex."""
APART, SHARE, WINDOW = 0.24, 0.35, 1.5
"""A beat: s to a higher one at least, share of the typical peak, and s in which the typical one is looked for."""
_FLAT = 0.003  # mV per sample at 250 Hz; a lead set without any steeper slope has no beats


class Beat(NamedTuple):
    """The median beat of a recording.

    Attributes:
        each: (beats, leads, samples) mV, the whole beats that it is the median of.
        signal: (leads, samples) mV.
        centre: sample in the middle of its QRS complex.
        fs: Hz.
        rr: (beats found - 1,) s, the RR intervals of the recording.
    """

    each: np.ndarray
    signal: np.ndarray
    centre: int
    fs: float
    rr: np.ndarray

    @property
    def middle_rr(self) -> float:
        """Median RR interval in s; 1 with a single beat."""
        return float(np.median(self.rr)) if len(self.rr) else 1.0

    def at(self, seconds: float) -> int:
        """The sample so long after the middle of the QRS complex, within the beat."""
        return int(np.clip(self.centre + round(seconds * self.fs), 0, self.signal.shape[1] - 1))

    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """Medians of every other beat and of the rest, (leads, samples) each; of all twice where there is one beat."""
        one, other = (self.each[i::2] if len(self.each) > 1 else self.each for i in (0, 1))
        return np.median(one, axis=0), np.median(other, axis=0)


def find_beats(signal: np.ndarray, fs: float) -> np.ndarray:
    """Samples at which QRS complexes lie: (beats,) int64, ascending.

    The root of the summed squared slopes of all leads in the band 5–20 Hz, averaged over 80 ms; a beat is a peak of at
    least 0.35 of the typical one (median over windows of 1.5 s of their maxima), 240 ms or more from a higher one.

    Args:
        signal: (leads, n) mV.
        fs: Hz.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, find_peaks, sosfiltfilt

    n = signal.shape[1]
    if n < fs:
        return np.zeros(0, np.int64)
    band = sosfiltfilt(butter(2, (5, 20), "bandpass", fs=fs, output="sos"), signal, axis=1)
    slope = np.sqrt((np.diff(band, axis=1, append=band[:, -1:]) ** 2).sum(axis=0))
    energy = uniform_filter1d(slope, max(1, round(0.08 * fs)), mode="constant")
    window = round(WINDOW * fs)
    tops = [energy[i : i + window].max() for i in range(0, max(1, n - window // 2), window)]
    typical = float(np.median(tops))
    if typical < _FLAT * _RATE / fs:
        return np.zeros(0, np.int64)
    found, _ = find_peaks(energy, height=SHARE * typical, distance=max(1, round(APART * fs)))
    return found.astype(np.int64)


def at_beat_rate(signal: np.ndarray, fs: float) -> tuple[np.ndarray, float]:
    """Means over neighbours of a recording (leads, n) at 250 Hz or a little more, float64, and their rate in Hz."""
    step = max(1, round(fs / _RATE))
    n = signal.shape[1] // step
    return signal[:, : n * step].reshape(len(signal), n, step).mean(axis=2, dtype=np.float64), fs / step


def median_beat(x: np.ndarray, fs: float, beats: np.ndarray) -> Beat | None:
    """The median of the whole beats among ``beats`` (samples) of a recording (leads, n) in mV; None without any."""
    first, last = round(BEFORE * fs), round(AFTER * fs)
    whole = beats[(beats >= first) & (beats + last <= x.shape[1])]
    if not len(whole):
        return None
    each = np.stack([x[:, b - first : b + last] for b in whole])
    return Beat(each, np.median(each, axis=0), first, fs, np.diff(beats) / fs)
