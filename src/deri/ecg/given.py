"""What a caller gives as recordings: ECGs, paths, or arrays with their sampling rate."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from deri.ecg.leads import LEADS
from deri.ecg.read import read_ecg
from deri.ecg.recording import ECG
from deri.errors import DeriError


def recordings(given: Any, fs: float | None = None) -> Iterator[ECG]:
    """Yield the recordings of what a caller gives, one in memory at a time.

    Args:
        given: an :class:`ECG`, a path (see :func:`deri.ecg.read_ecg`) or an array (12, n) of mV, leads in the order of
            ``LEADS``; an array (b, 12, n); or an iterable of such. Torch tensors count as arrays.
        fs: sampling rate of the arrays, Hz; ECGs and files state their own.

    Raises:
        DeriError: an array without ``fs``, of integers (they are counts of a converter, not mV) or of another shape;
            ``fs`` with something that states its rate.
        ReadError: of a path.
    """
    one = isinstance(given, ECG | str | os.PathLike) or getattr(given, "ndim", 0) == 2
    many: Iterable[Any] = [given] if one else given
    for item in many:
        yield _recording(item, fs)
        del item


def _recording(item: Any, fs: float | None) -> ECG:
    if isinstance(item, ECG | str | os.PathLike):
        if fs is not None:
            raise DeriError(f"fs={fs:g} is the rate of arrays; an ECG and a file state their own: leave fs out")
        return item if isinstance(item, ECG) else read_ecg(item)
    if not hasattr(item, "shape"):
        raise DeriError(f"a {type(item).__name__} is no recording: give an ECG, a path, or an array (12, n) with fs=")
    signal = np.asarray(item)
    if fs is None:
        raise DeriError(
            f"an array of shape {signal.shape} does not say its sampling rate: give fs= in Hz, from which it is "
            "resampled to the model's rate"
        )
    if signal.ndim != 2 or signal.shape[0] != len(LEADS):
        raise DeriError(f"an array of a recording has shape (12, samples), not {signal.shape}")
    if signal.dtype.kind != "f":
        raise DeriError(f"an array of {signal.dtype} holds counts, not mV: divide by the counts per mV first")
    return ECG(signal, fs)
