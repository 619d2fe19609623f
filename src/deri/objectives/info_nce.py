"""Symmetric InfoNCE over a batch of pairs.

Source: van den Oord et al. 2018 (InfoNCE); Radford et al. 2021 (symmetric, two modalities). DERI takes the *sum*, not
the mean, of both directions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(a: Tensor, b: Tensor, temperature: float = 0.07, groups: Tensor | None = None) -> Tensor:
    """Sum of the cross-entropies a→b and b→a, each a mean over the batch.

    Args:
        a: (B, d), L2-normalised here.
        b: (B, d), the partner of each row of ``a``.
        temperature: τ; logits are cosines / τ.
        groups: (B,) integers; two rows of the same group (the same report) are not each other's negatives: they are
            left out of the denominators. A negative group is a group of its own.

    Returns:
        A scalar in float32. A batch of one has no negatives and gives 0.
    """
    a = F.normalize(a.float(), dim=-1)
    b = F.normalize(b.float(), dim=-1)
    logits = a @ b.T / temperature
    if groups is not None:
        same = (groups[:, None] == groups[None, :]) & (groups[:, None] >= 0)
        same.fill_diagonal_(False)
        logits = logits.masked_fill(same, float("-inf"))
    target = torch.arange(len(a), device=a.device)
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
