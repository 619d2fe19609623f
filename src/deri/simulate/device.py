"""What a recorder does to the eight independent leads: filters, saturation, resolution, and mistakes at the patient.

Bands as in AHA/ACCF/HRS recommendations, part I (Kligfield et al. 2007): 0.05-150 Hz for diagnosis; monitors and
archives cut at 0.5-0.67 and 40 Hz. All is linear, or done lead by lead before III, aVR, aVL and aVF are computed, so
that Einthoven's law holds for what comes out, but of archives that bring every lead to the same size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

Signal = NDArray[np.float32]


@dataclass(frozen=True)
class Device:
    """A recorder, and how it was attached. Frequencies in Hz, ``resolution`` and ``limit`` in mV; 0 is none."""

    high_pass: float = 0.0
    sharp: bool = False  # the high-pass keeps phases, as digital ones do; else it is a simple RC circuit
    low_pass: float = 0.0
    notch: float = 0.0
    resolution: float = 0.0
    limit: float = 0.0
    arms_swapped: bool = False
    chest_swapped: tuple[int, int] | None = None  # two of 0 ... 5 for V1 ... V6
    flat: tuple[int, ...] = ()  # of 0 ... 5
    despiked: bool = False  # takes pacing stimuli out, as many recorders do

    @classmethod
    def draw(cls, rng: np.random.Generator, mains_hz: float = 60.0) -> Device:
        """Draw it, so widely that a real recorder looks like one more. Mistakes are rare: one recording in fifty."""
        u = rng.random(11)
        high = (0.05, 0.05, 0.05, 0.15, 0.3, 0.5, 0.5, 0.67, 0.0, 0.0)[int(10 * u[0])]
        low = (0.0, 0.0, 0.0, 0.0, 150.0, 150.0, 100.0, 100.0, 75.0, 38.0)[int(10 * u[1])]
        resolution = (0.0, 0.0, 0.001, 0.001, 0.00244, 0.00488, 0.005, 0.005, 0.01, 0.0)[int(10 * u[2])]
        swapped = int(5 * u[6] / 0.006) if u[6] < 0.006 else None
        flat: tuple[int, ...] = (int(6 * u[8]),) if u[7] < 0.010 else ()
        if u[7] < 0.002:
            flat = tuple(sorted({*flat, (flat[0] + 1) % 6}))
        return cls(
            high_pass=high,
            sharp=bool(u[3] < 0.6),
            low_pass=low,
            notch=mains_hz if u[4] < 0.45 else 0.0,
            resolution=resolution,
            limit=1.8 + 3.0 * u[9] if u[9] < 0.03 else 0.0,
            arms_swapped=bool(u[5] < 0.006),
            chest_swapped=(swapped, swapped + 1) if swapped is not None else None,
            flat=flat,
            despiked=bool(u[10] < 0.3),
        )


@lru_cache(maxsize=512)
def _response(high: float, sharp: bool, low: float, notch: float, samples: int, fs: float) -> NDArray[np.complex64]:
    """Complex gain at the frequencies of a real Fourier transform of ``samples``."""
    f = np.fft.rfftfreq(samples, 1 / fs)
    gain = np.ones(len(f), dtype=np.complex128)
    if high:
        gain *= f**4 / (f**4 + high**4) if sharp else 1j * f / (1j * f + high)
    if low:
        gain /= np.sqrt(1 + (f / low) ** 8)
    if notch:
        gain *= 1 - np.exp(-0.5 * ((f - notch) / 0.7) ** 2)
    return gain.astype(np.complex64)


def record(device: Device, leads: Signal, fs: float) -> Signal:
    """What ``device`` makes of I, II, V1 ... V6 (8, n) in mV. May change ``leads``."""
    if device.arms_swapped:  # I is turned round, II and III change places
        leads[1] -= leads[0]
        leads[0] *= -1
    if device.chest_swapped is not None:
        a, b = device.chest_swapped
        leads[[2 + a, 2 + b]] = leads[[2 + b, 2 + a]]
    if device.high_pass or device.low_pass or device.notch:
        n = leads.shape[1]
        # A Fourier transform takes the end to be followed by the start: a straight line between them is taken out,
        # and put back where slow changes pass.
        line = (
            np.linspace(-0.5, 0.5, n, dtype=np.float32)
            * (leads[:, -25:].mean(axis=1) - leads[:, :25].mean(axis=1))[:, None]
        )
        leads = leads - line
        gain = _response(device.high_pass, device.sharp, device.low_pass, device.notch, n, fs)
        leads = irfft(rfft(leads, axis=1) * gain, n, axis=1)
        if device.high_pass < 0.04:
            leads += line
    if device.limit:
        np.clip(leads, -device.limit, device.limit, out=leads)
    if device.resolution:
        leads = np.rint(leads / np.float32(device.resolution)) * np.float32(device.resolution)
    if device.flat:
        leads[[2 + k for k in device.flat]] = 0.0
    return leads
