"""Scaling a standardised signal for a model. It happens when data are read, so a recipe can choose it."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deri.errors import DeriError

Normalisation = Literal["millivolt", "minmax"]

MILLIVOLT_LIMIT = 10.0
"""``millivolt`` clips to this many mV: QRS complexes stay below it, loose electrodes do not."""


def normalise(
    signal: np.ndarray,
    mode: str = "millivolt",
    lead_mask: np.ndarray | None = None,
    valid_samples: np.ndarray | None = None,
) -> np.ndarray:
    """Scale signals for a model; the batch is handled as a whole.

    Args:
        signal: (..., 12, n) in mV, finite. Not modified.
        mode: ``millivolt`` subtracts each lead's mean over time and clips to ±10 mV: amplitudes, which carry meaning
            (hypertrophy, low voltage), stay in mV. ``minmax`` maps the smallest and largest value over all leads and
            samples of a record to 0 and 1, as published (SPEC §2).
        lead_mask: bool (..., 12), the leads that are there, whatever the rows of the others hold. None: all are there.
        valid_samples: (...) samples before padding. ``millivolt`` takes the mean over these and leaves the padding
            zero. None: no padding.

    Returns:
        float32, same shape; rows of zeros for the leads that are missing, in either mode.

    Raises:
        DeriError: unknown mode; ``minmax`` of a record that is flat; values that are not finite.
    """
    if mode not in ("millivolt", "minmax"):
        raise DeriError(f"unknown normalisation {mode!r}; choose millivolt or minmax")
    signal = np.asarray(signal, dtype=np.float32)
    there = None if lead_mask is None or np.all(lead_mask) else np.asarray(lead_mask, bool)[..., None]
    if mode == "millivolt":
        out = _centred(signal, valid_samples)
        if not np.isfinite(out[..., :1]).all():  # the mean carries a NaN of any sample into every sample
            raise DeriError("cannot normalise: the signal has samples that are not finite; standardise it first")
        np.clip(out, -MILLIVOLT_LIMIT, MILLIVOLT_LIMIT, out=out)
        return out if there is None else np.where(there, out, np.float32(0))
    of_low, of_high = (signal, signal) if there is None else (np.where(there, signal, v) for v in (np.inf, -np.inf))
    low = of_low.min(axis=(-2, -1), keepdims=True)
    span = of_high.max(axis=(-2, -1), keepdims=True) - low
    if not np.isfinite(span).all():
        raise DeriError("cannot normalise: the signal has samples that are not finite; standardise it first")
    flat = np.flatnonzero(span <= 0)
    if flat.size:
        which = f" (record {flat[0]} of the batch)" if signal.ndim > 2 else ""
        raise DeriError(f"min-max normalisation of a flat record{which}: all its samples have one value; leave it out")
    out = signal - low
    out /= span
    return out if there is None else np.where(there, out, np.float32(0))


def _centred(signal: np.ndarray, valid_samples: np.ndarray | None) -> np.ndarray:
    """Each lead without its mean over the samples before padding, which stays zero."""
    n = signal.shape[-1]
    if valid_samples is None or np.all(np.asarray(valid_samples) >= n):
        centred: np.ndarray = signal - signal.mean(axis=-1, keepdims=True, dtype=np.float32)
        return centred
    valid = np.clip(valid_samples, 1, n)[..., None, None]
    real = np.arange(n) < valid
    total = np.where(real, signal, np.float32(0)).sum(axis=-1, keepdims=True, dtype=np.float32)
    return np.where(real, signal - total / valid.astype(np.float32), np.float32(0))
