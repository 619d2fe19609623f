"""Noise of electrodes and mains, in electrode space: it obeys Einthoven's law as real noise does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deri.simulate.leadfield import FROM_ELECTRODES

_ELECTRODES = FROM_ELECTRODES.shape[1]
# Taps 0, 2, 4 of (a, b, c, c, b, a), with a + b + c = 0: no power at 0 Hz and the Nyquist frequency, most at 30-160 Hz
# of 500, where surface electromyograms lie behind a 150 Hz low-pass. Unit power.
_MUSCLE = (np.array([-0.7, 1.0, -0.3]) / np.sqrt(1.58)).astype(np.float32)


@dataclass(frozen=True)
class Noise:
    """How disturbed a recording is.

    In mV per electrode: ``wander``, ``muscle``, ``mains`` root mean square, ``motion`` the height of an artefact.
    """

    wander: float = 0.02
    muscle: float = 0.006
    mains: float = 0.002
    mains_hz: float = 60.0
    motion: float = 0.0
    motion_events: int = 0
    bursts: bool = False  # muscle noise comes and goes
    quality: str = "clean"

    @classmethod
    def draw(cls, rng: np.random.Generator, mains_hz: float = 60.0) -> Noise:
        """Draw it: three in five recordings are clean, one in four is lightly and one in seven clearly disturbed.

        The kinds are those of the MIT-BIH noise stress test database (Moody, Muldrow and Mark 1984) and
        mains; their share is a choice.
        """
        kind = rng.random()
        spread = float(rng.uniform(0.7, 1.4))
        if kind < 0.6:
            return cls(0.02 * spread, 0.005 * spread, 0.0015 * spread, mains_hz)
        if kind < 0.85:
            return cls(0.05 * spread, 0.010 * spread, 0.004 * spread, mains_hz, quality="light")
        dominant = str(rng.choice(["wander", "muscle", "mains", "motion"]))
        return cls(
            wander=(0.16 if dominant == "wander" else 0.05) * spread,
            muscle=(0.026 if dominant == "muscle" else 0.010) * spread,
            mains=(0.025 if dominant == "mains" else 0.004) * spread,
            mains_hz=mains_hz,
            motion=0.5 * spread if dominant == "motion" else 0.0,
            motion_events=int(rng.integers(1, 4)) if dominant == "motion" else 0,
            bursts=dominant == "muscle",
            quality=dominant,
        )


@lru_cache(maxsize=8)
def _basis(samples: int, fs: float, mains_hz: float) -> NDArray[np.float32]:
    """Sines and cosines below 0.5 Hz, falling as 1/f, of unit power in all; then those of the mains: (14, samples)."""
    frequency = np.array([0.05, 0.11, 0.17, 0.24, 0.31, 0.43])
    weight = 1 / frequency
    weight /= np.sqrt((weight**2).sum())
    time = 2 * np.pi * np.arange(samples) / fs
    angle = frequency[:, None] * time
    wander = [weight[:, None] * np.sin(angle), weight[:, None] * np.cos(angle)]
    mains = [np.sin(mains_hz * time)[None], np.cos(mains_hz * time)[None]]
    return np.concatenate([*wander, *mains]).astype(np.float32)


def electrode_noise(noise: Noise, samples: int, fs: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Potentials (9, samples) in mV of RA, LA, LL, C1 ... C6."""
    strength = rng.uniform(0.6, 1.4, (_ELECTRODES, 3)).astype(np.float32)
    # Drawn at half the rate, which halves the cost of a recording's dearest part, then shaped by a symmetric band-pass
    # of six taps: each of its two phases, one for even and one for odd samples, has the three distinct ones.
    half = rng.standard_normal((_ELECTRODES, samples // 2 + 3), dtype=np.float32)
    potential = np.empty((_ELECTRODES, samples), dtype=np.float32)
    for phase, taps in enumerate((_MUSCLE, _MUSCLE[::-1])):
        count = (samples + 1 - phase) // 2
        potential[:, phase::2] = sum(tap * half[:, k : k + count] for k, tap in enumerate(taps))
    scale = np.float32(noise.muscle) * strength[:, :1]
    if noise.bursts:
        time = np.arange(samples) / fs
        centre, width = rng.uniform(0, samples / fs, 3), rng.uniform(0.4, 1.2, 3)
        envelope = 0.35 + 1.2 * np.exp(-0.5 * ((time - centre[:, None]) / width[:, None]) ** 2).sum(axis=0)
        potential *= scale * envelope.astype(np.float32)
    else:
        potential *= scale
    basis = _basis(samples, fs, noise.mains_hz)
    weights = rng.standard_normal((_ELECTRODES, len(basis)), dtype=np.float32)
    weights[:, :-2] *= np.float32(noise.wander) * strength[:, 1:2]
    # Mains reaches all electrodes through the body with one phase, and each a little differently.
    weights[:, -2:] = noise.mains * np.sqrt(2) * strength[:, 2:] * (weights[:1, -2:] / np.linalg.norm(weights[:1, -2:]))
    weights[:, -2:] *= rng.uniform(-1.2, 1.2, (_ELECTRODES, 1)).astype(np.float32)
    potential += weights @ basis
    for _ in range(noise.motion_events):
        _add_motion(potential, noise.motion, fs, rng)
    return potential


def _add_motion(potential: NDArray[np.float32], height: float, fs: float, rng: np.random.Generator) -> None:
    """One electrode shifts: a step that the amplifier's 0.05-0.5 Hz high-pass lets decay."""
    samples = potential.shape[1]
    start, decay = int(rng.integers(0, samples)), rng.uniform(0.15, 0.6)
    time = np.arange(samples - start) / fs
    shape = (1 - np.exp(-time / 0.03)) * np.exp(-time / decay)
    potential[int(rng.integers(_ELECTRODES)), start:] += (height * rng.choice([-1.0, 1.0]) * shape).astype(np.float32)


def lead_noise(noise: Noise, samples: int, fs: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """The same in the 12 leads (12, samples), mV, canonical order."""
    return FROM_ELECTRODES.astype(np.float32) @ electrode_noise(noise, samples, fs, rng)
