"""From stored millivolts to model input; part of the model, because inference must repeat what training did."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deri.ecg.leads import LEADS, MIMIC_LEADS
from deri.ecg.normalise import normalise
from deri.ecg.standardise import low_pass, resample
from deri.recipes import schema

if TYPE_CHECKING:
    from deri.store import Store


class Preprocess:
    """Resample, crop or pad, order the leads and normalise a batch of signals."""

    def __init__(self, config: schema.Signal) -> None:
        self.config = config
        names = MIMIC_LEADS if config.lead_order == "mimic" else LEADS
        self._order = None if names == LEADS else [LEADS.index(lead) for lead in names]

    def __call__(
        self,
        signals: np.ndarray,
        fs: float,
        valid_samples: np.ndarray | None = None,
        lead_mask: np.ndarray | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Make model input.

        Args:
            signals: (B, 12, n) float32, mV, canonical lead order.
            fs: their sampling rate, Hz.
            valid_samples: (B,) samples before padding, or None where all are full.
            lead_mask: (B, 12) bool, leads that are there, or None where all are. The model sees the others as zeros.

        Returns:
            (B, 12, samples) float32 and, if given, the valid samples (B,) at the model's rate.
        """
        config = self.config
        if fs != config.fs:
            ratio = Fraction(config.fs / fs).limit_denominator(1000)
            if valid_samples is not None:
                valid_samples = np.ceil(np.asarray(valid_samples) * float(ratio)).astype(np.int64)
            signals = decimate(signals, ratio.denominator) if ratio.numerator == 1 else resample(signals, ratio)
        n = signals.shape[-1]
        if n > config.samples:
            signals = signals[..., : config.samples]
        elif n < config.samples:
            if valid_samples is None:
                valid_samples = np.full(len(signals), n)
            signals = np.pad(signals, ((0, 0), (0, 0), (0, config.samples - n)))
        if self._order is not None:
            signals = signals[:, self._order]
            lead_mask = None if lead_mask is None else lead_mask[:, self._order]
        if valid_samples is not None:
            valid_samples = np.minimum(valid_samples, config.samples).astype(np.int64)
        scaled = normalise(signals, config.normalise, lead_mask, valid_samples)
        ecg = torch.from_numpy(np.ascontiguousarray(scaled, dtype=np.float32))
        return ecg, None if valid_samples is None else torch.from_numpy(valid_samples)

    def of_store(self, store: Store, rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        """Model input of ``rows`` (B,) of a store and, where one of them is padded, their valid samples."""
        valid = store.index["valid_samples"].to_numpy()[rows].astype(np.int64)
        full = bool((valid >= store.samples).all())
        return self(store.signals(rows), store.fs, None if full else valid, store.lead_mask(rows))


def decimate(signals: np.ndarray, factor: int) -> np.ndarray:
    """:func:`deri.ecg.standardise.resample` by 1 / ``factor`` for a batch: (…, n) → (…, ceil(n / factor)).

    The same filter in float32, as one matrix product; six times as fast, which counts when every batch needs it.
    """
    taps = torch.from_numpy(low_pass(Fraction(1, factor)).astype(np.float32))
    reach = (len(taps) - 1) // 2
    n = signals.shape[-1]
    if n <= reach:
        return resample(signals, Fraction(1, factor))
    flat = torch.from_numpy(np.ascontiguousarray(signals, np.float32)).view(-1, n)
    mean = flat.mean(dim=1, keepdim=True)
    x = flat - mean
    out = -(-n // factor)
    band = _band(factor)
    size, block = band.shape
    blocks = -(-out // block)
    before = 2 * x[:, :1] - x[:, 1 : reach + 1].flip(1)
    after = 2 * x[:, -1:] - x[:, -reach - 1 : -1].flip(1)
    x = torch.cat([before, x, after], dim=1)
    missing = (blocks - 1) * block * factor + size - x.shape[1]
    x = torch.nn.functional.pad(x, (0, max(0, missing)))
    stretches = x.unfold(1, size, block * factor)[:, :blocks].reshape(-1, size)
    y = (stretches @ band).view(len(x), -1)[:, :out] + mean
    return y.numpy().reshape(*signals.shape[:-1], out)


@lru_cache(maxsize=8)
def _band(factor: int, block: int = 50) -> Tensor:
    """The filter as a matrix that makes ``block`` output samples of a stretch of input: (stretch, block)."""
    taps = torch.from_numpy(low_pass(Fraction(1, factor)).astype(np.float32))
    band = torch.zeros((block - 1) * factor + len(taps), block)
    for i in range(block):
        band[i * factor : i * factor + len(taps), i] = taps
    return band
