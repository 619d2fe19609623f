"""Noise of electrodes and mains, in electrode space: it obeys Einthoven's law as real noise does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deri.simulate.leadfield import FROM_ELECTRODES

Noise32 = NDArray[np.float32]

_ELECTRODES = FROM_ELECTRODES.shape[1]
_SPREAD = np.array([0.65, 1.0, 0.55, 0.45])  # of muscle, wander, contact, mains between electrodes, in logarithms
_ROOT_MEAN_SQUARE = np.array([1.43, 2.18, 1.30, 1.20])  # of the factors so drawn
_BANK = 1 << 19  # samples


@dataclass(frozen=True)
class Noise:
    """How disturbed a recording is.

    In mV per electrode: ``wander``, ``muscle``, ``mains`` and ``contact`` root mean square, ``motion`` and ``drift``
    the height of an artefact.
    """

    wander: float = 0.02
    muscle: float = 0.006
    mains: float = 0.002
    mains_hz: float = 60.0
    motion: float = 0.0
    motion_events: int = 0
    bursts: bool = False  # muscle noise comes and goes
    quality: str = "clean"
    drift: float = 0.0  # height of slow changes at single electrodes
    contact: float = 0.0  # slow noise of 1-10 Hz, from an electrode's contact with the skin

    @classmethod
    def draw(cls, rng: np.random.Generator, mains_hz: float = 60.0) -> Noise:
        """Draw it: three in five recordings are clean, one in four is lightly and one in seven clearly disturbed.

        The kinds are those of the MIT-BIH noise stress test database (Moody, Muldrow and Mark 1984) and
        mains; their share is a choice. Levels spread over a decade, and one recording in five comes from a country
        of the other mains frequency, so that real recorders fall within what is drawn.
        """
        kind = rng.random()
        drift = 0.15 * rng.exponential() if rng.random() < 0.35 else 0.0
        u = rng.uniform(-1, 1, 5)
        spread = [math.exp(0.9 * value) for value in u]
        if u[4] < -0.6:
            mains_hz = 110.0 - mains_hz
        if kind < 0.85:
            clean = kind < 0.6
            levels = (0.034, 0.0075, 0.0006, 0.0095) if clean else (0.060, 0.013, 0.002, 0.014)
            wander, muscle, mains, contact = (a * b for a, b in zip(levels, spread[:4], strict=True))
            quality, drift = ("clean", 0.4 * drift) if clean else ("light", drift)
            return cls(wander, muscle, mains, mains_hz, quality=quality, drift=drift, contact=contact)
        dominant = str(rng.choice(["wander", "muscle", "mains", "motion"]))
        strong = 0.7 + 0.9 * rng.random()
        return cls(
            wander=0.17 * strong if dominant == "wander" else 0.045 * spread[0],
            muscle=0.028 * strong if dominant == "muscle" else 0.010 * spread[1],
            mains=0.022 * strong if dominant == "mains" else 0.003 * spread[2],
            mains_hz=mains_hz,
            motion=0.5 * strong if dominant == "motion" else 0.0,
            motion_events=int(rng.integers(1, 5)) if dominant == "motion" else 0,
            bursts=dominant == "muscle" and strong > 1.0,
            quality=dominant,
            drift=drift,
            contact=(0.025 if dominant == "motion" else 0.010) * spread[3],
        )


@lru_cache(maxsize=8)
def _bank(kind: str, fs: float) -> Noise32:
    """A long stretch of noise of unit power, of which recordings take pieces: drawing and shaping it anew costs more.

    ``wander``: 0.03-0.8 Hz, falling as 1/f; ``contact``: 0.8-12 Hz, falling as 1/f; ``muscle``: 22-150 Hz, where
    surface electromyograms lie behind a 150 Hz low-pass.
    """
    rng = np.random.default_rng([7, len(kind), round(fs * 1000)])
    frequency = np.fft.rfftfreq(_BANK, 1 / fs)
    low, high, slope = {"wander": (0.03, 0.8, 1.0), "contact": (0.8, 12.0, 1.0), "muscle": (22.0, 150.0, 0.6)}[kind]
    with np.errstate(divide="ignore"):
        shape = np.where(frequency > 0, frequency, np.inf) ** -slope
    shape /= np.sqrt(1 + (low / np.maximum(frequency, 1e-9)) ** 8) * np.sqrt(1 + (frequency / high) ** 12)
    spectrum = shape * (rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency)))
    noise = np.fft.irfft(spectrum, _BANK)
    return np.asarray(noise / noise.std(), dtype=np.float32)


@lru_cache(maxsize=8)
def _mains(samples: int, fs: float, hz: float) -> Noise32:
    """Sine and cosine of the mains frequency (2, samples)."""
    time = 2 * np.pi * hz * np.arange(samples) / fs
    return np.stack([np.sin(time), np.cos(time)]).astype(np.float32)


def electrode_noise(noise: Noise, samples: int, fs: float, rng: np.random.Generator) -> Noise32:
    """Potentials (9, samples) in mV of RA, LA, LL, C1 ... C6."""
    strength = np.exp(_SPREAD * rng.standard_normal((_ELECTRODES, 4)).clip(-2, 2)) / _ROOT_MEAN_SQUARE
    potential = np.zeros((_ELECTRODES, samples), dtype=np.float32)
    piece = np.empty(samples, dtype=np.float32)
    levels = {"muscle": noise.muscle, "wander": noise.wander, "contact": noise.contact}
    starts = rng.integers(0, _BANK - samples, (len(levels), _ELECTRODES)).tolist()
    for k, (kind, level) in enumerate(levels.items()):
        if not level:
            continue
        bank, gain = _bank(kind, fs), (level * strength[:, k]).astype(np.float32)
        for electrode, start in enumerate(starts[k]):
            np.multiply(bank[start : start + samples], gain[electrode], out=piece)
            potential[electrode] += piece
        if kind == "muscle" and noise.bursts:
            time = np.arange(samples) / fs
            centre, width = rng.uniform(0, samples / fs, 3), rng.uniform(0.4, 1.2, 3)
            envelope = 0.35 + 1.2 * np.exp(-0.5 * ((time - centre[:, None]) / width[:, None]) ** 2).sum(axis=0)
            potential *= envelope.astype(np.float32)
    if noise.mains:
        # Mains reaches all electrodes through the body with one phase, and each a little differently.
        phase = rng.standard_normal(2)
        weight = noise.mains * np.sqrt(2) * strength[:, 3:] * rng.uniform(-1.2, 1.2, (_ELECTRODES, 1))
        wave = (phase / np.linalg.norm(phase)) @ _mains(samples, fs, noise.mains_hz)
        potential += (weight * wave).astype(np.float32)
    if noise.drift:
        # Electrodes settle after the leads are switched on, or drift as the skin is stretched, each for itself.
        time = np.arange(samples, dtype=np.float32) / np.float32(fs)
        for electrode in rng.integers(_ELECTRODES, size=int(rng.integers(1, 5))):
            settle = np.exp(-time / np.float32(rng.uniform(0.3, 3.0)))
            bump = np.exp(-0.5 * ((time - rng.uniform(0, samples / fs)) / rng.uniform(0.3, 1.2)) ** 2)
            height = noise.drift * rng.standard_normal(2)
            potential[electrode] += (height[0] * settle + height[1] * bump).astype(np.float32)
    for _ in range(noise.motion_events):
        _add_motion(potential, noise.motion, fs, rng)
    return potential


def _add_motion(potential: Noise32, height: float, fs: float, rng: np.random.Generator) -> None:
    """One electrode shifts: a step that the amplifier's 0.05-0.5 Hz high-pass lets decay."""
    samples = potential.shape[1]
    start, decay = int(rng.integers(0, samples)), rng.uniform(0.15, 0.6)
    time = np.arange(samples - start) / fs
    shape = (1 - np.exp(-time / 0.03)) * np.exp(-time / decay)
    potential[int(rng.integers(_ELECTRODES)), start:] += (height * rng.choice([-1.0, 1.0]) * shape).astype(np.float32)
