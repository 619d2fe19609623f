"""Measuring of simulated recordings by means that know nothing of how they were made."""

from __future__ import annotations

import numpy as np

from deri.ecg.leads import LEADS
from deri.simulate import Patient, generate

FS = 500
ROW = {lead: i for i, lead in enumerate(LEADS)}
PATIENTS = range(12)


def record(*codes: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([77, seed])
    return generate(codes, rng, patient=Patient.draw(rng), noise=False).astype(np.float64)


def speed(signal: np.ndarray) -> np.ndarray:
    """Root mean square over the leads of the slope, mV/s, averaged over 10 ms."""
    slope = np.sqrt((np.gradient(signal, 1 / FS, axis=1) ** 2).mean(axis=0))
    return np.convolve(slope, np.ones(5) / 5, mode="same")


def qrs_complexes(signal: np.ndarray, *, trigger: float = 0.45, floor: float = 0.12) -> list[tuple[int, int]]:
    """(first, last) sample of each QRS wholly inside: where the slope exceeds ``floor`` of its peak.

    ``trigger``: share of the steepest beats' slope that counts as a beat: low for wide beats among narrow ones.
    """
    slope = speed(signal)
    high = slope > trigger * np.percentile(slope, 99)
    found: list[tuple[int, int]] = []
    i = 0
    while i < len(slope):
        if high[i]:
            peak = i + int(np.argmax(slope[i : i + 60]))
            low = min(floor * slope[peak], 6.0)  # mV/s: a pointed R wave does not hide a slow start or end
            first = last = peak
            # A notch or a plateau up to 24 ms long does not end the complex.
            while first > 0 and slope[max(first - 12, 0) : first].max() > low:
                first -= 1
            while last < len(slope) - 1 and slope[last + 1 : last + 13].max() > low:
                last += 1
            if first > 100 and last < len(slope) - 250:
                found.append((first, last))
            i = last + 60
        else:
            i += 1
    return found


def beat_values(signal: np.ndarray, floor: float = 0.12) -> dict[str, np.ndarray]:
    """Medians over the beats: QRS width (ms); by lead (12,), in mV against the PR segment: extremes, area, ST and T."""
    values: dict[str, list[np.ndarray]] = {}
    for first, last in qrs_complexes(signal, floor=floor):
        base = signal[:, first - 4][:, None]
        qrs = signal[:, first : last + 1] - base
        t = signal[:, last + int(0.1 * FS) : last + int(0.34 * FS)] - base
        beat = {
            "width": np.array((last - first) * 1000 / FS),
            "high": qrs.max(axis=1),
            "low": qrs.min(axis=1),
            "area": qrs.sum(axis=1),
            "first_high": qrs[:, :45].max(axis=1),
            "first_low": qrs[:, :45].min(axis=1),
            "end": signal[:, last - int(0.03 * FS)] - base[:, 0],
            "st": signal[:, last + int(0.06 * FS)] - base[:, 0],
            "t_high": t.max(axis=1),
            "t_low": t.min(axis=1),
        }
        for name, value in beat.items():
            values.setdefault(name, []).append(value)
    return {name: np.median(np.array(value), axis=0) for name, value in values.items()}


def axis(area: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(2 / np.sqrt(3) * area[ROW["aVF"]], area[ROW["I"]])))


def sokolow(values: dict[str, np.ndarray]) -> float:
    return float(-values["low"][ROW["V1"]] + max(values["high"][ROW["V5"]], values["high"][ROW["V6"]]))


def rr_intervals(signal: np.ndarray) -> np.ndarray:
    """RR in s, from the steepest points."""
    return np.diff([first for first, _ in qrs_complexes(signal)]) / FS


def p_waves(signal: np.ndarray) -> list[tuple[float, float, np.ndarray]]:
    """Of each beat: PR and P duration (ms), and the P wave's samples (12, k) from its onset to its end."""
    size = np.sqrt((signal**2).mean(axis=0))
    found = []
    for first, _ in qrs_complexes(signal):
        start = max(first - int(0.30 * FS), 0)
        peak = start + int(np.argmax(size[start : first - 8]))
        low = 0.08 * size[peak]
        onset, end = peak, peak
        while onset > 0 and size[onset] > low:
            onset -= 1
        while end < first and size[end] > low:
            end += 1
        found.append(((first - onset) * 1000 / FS, (end - onset) * 1000 / FS, signal[:, onset : end + 1]))
    return found


def pr_interval(signal: np.ndarray) -> float:
    return float(np.median([pr for pr, _, _ in p_waves(signal)]))


def smooth(signal: np.ndarray) -> np.ndarray:
    """Without what lasts less than 8 ms."""
    from scipy.ndimage import median_filter

    return np.asarray(median_filter(signal, size=(1, 9)))
