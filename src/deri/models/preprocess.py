"""From stored millivolts to model input; part of the model, because inference must repeat what training did."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from deri.ecg.leads import LEADS, MIMIC_LEADS
from deri.ecg.normalise import normalise
from deri.recipes import schema


class Preprocess:
    """Resample, crop or pad, order the leads and normalise a batch of signals."""

    def __init__(self, config: schema.Signal) -> None:
        self.config = config
        names = MIMIC_LEADS if config.lead_order == "mimic" else LEADS
        self._order = None if names == LEADS else [LEADS.index(lead) for lead in names]

    def __call__(
        self, signals: np.ndarray, fs: float, valid_samples: np.ndarray | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Make model input.

        Args:
            signals: (B, 12, n) float32, mV, canonical lead order.
            fs: their sampling rate, Hz.
            valid_samples: (B,) samples before padding, or None where all are full.

        Returns:
            (B, 12, samples) float32 and, if given, the valid samples (B,) at the model's rate.
        """
        config = self.config
        if fs != config.fs:
            from deri.ecg.standardise import resample

            ratio = Fraction(config.fs / fs).limit_denominator(1000)
            if valid_samples is not None:
                valid_samples = np.round(np.asarray(valid_samples) * config.fs / fs).astype(np.int64)
            signals = resample(signals, ratio)
        n = signals.shape[-1]
        if n > config.samples:
            signals = signals[..., : config.samples]
        elif n < config.samples:
            if valid_samples is None:
                valid_samples = np.full(len(signals), n)
            signals = np.pad(signals, ((0, 0), (0, 0), (0, config.samples - n)))
        if self._order is not None:
            signals = signals[:, self._order]
        ecg = torch.from_numpy(np.ascontiguousarray(normalise(signals, config.normalise), dtype=np.float32))
        if valid_samples is None:
            return ecg, None
        return ecg, torch.from_numpy(np.minimum(valid_samples, config.samples).astype(np.int64))
