"""What an embedding knows of the intervals and amplitudes that :mod:`deri.ecg.measure` measures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.ecg.measure import FEATURE_NAMES

_LIMIT = 4.0  # standard deviations: what lies farther out is a failed measurement more often than a rare heart


class MeasurementHead(nn.Module):
    """A linear map from embeddings of unit length to standardised measurements: (B, d) → (B, m).

    Attributes:
        centre: (m,) medians of the training records, in the units of :data:`deri.ecg.measure.FEATURE_NAMES`.
        scale: (m,) their spread.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, len(FEATURE_NAMES))
        self.register_buffer("centre", torch.zeros(len(FEATURE_NAMES)))
        self.register_buffer("scale", torch.ones(len(FEATURE_NAMES)))

    def fit(self, values: np.ndarray) -> None:
        """Take centre and scale of measurements (n, m) of training records, NaN where there is none."""
        low, middle, high = np.nanpercentile(values, (25, 50, 75), axis=0)
        spread = np.maximum((high - low) / 1.349, 0.25 * np.nanstd(values, axis=0))
        self.centre.copy_(torch.from_numpy(np.nan_to_num(middle).astype(np.float32)))
        self.scale.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0).astype(np.float32)))

    def standardise(self, values: np.ndarray) -> Tensor:
        """(n, m) in units → (n, m) in standard deviations, within ± 4; NaN stays."""
        return ((torch.from_numpy(values) - self.centre.cpu()) / self.scale.cpu()).clamp(-_LIMIT, _LIMIT)

    def forward(self, embedding: Tensor) -> Tensor:
        """See the class; normalises ``embedding``."""
        unit = F.normalize(embedding, dim=-1) * embedding.shape[-1] ** 0.5
        measured: Tensor = self.linear(unit)
        return measured
