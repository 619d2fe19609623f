"""Symmetric InfoNCE over a batch of pairs.

Source: van den Oord et al. 2018 (InfoNCE); Radford et al. 2021 (symmetric, two modalities); Khosla et al. 2020 (several
positives). DERI takes the *sum*, not the mean, of both directions.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor = 0.07,
    groups: Tensor | None = None,
    *,
    same_group: Literal["ignore", "positive"] = "ignore",
) -> Tensor:
    """Sum of the cross-entropies a→b and b→a, each a mean over the batch.

    Args:
        a: (B, d), L2-normalised here.
        b: (B, d), the partner of each row of ``a``.
        temperature: τ; logits are cosines / τ.
        groups: (B,) integers; two rows of the same group (the same report) are not each other's negatives. A negative
            group is a group of its own. Or (B, B) bool: whether row i of ``a`` goes with row j of ``b``, too.
        same_group: ``ignore`` leaves them out of the denominators; ``positive`` makes them positives with equal weight.

    Returns:
        A scalar in float32. A batch of one has no negatives and gives 0.
    """
    a = F.normalize(a.float(), dim=-1)
    b = F.normalize(b.float(), dim=-1)
    logits = a @ b.T / temperature
    target = torch.arange(len(a), device=a.device)
    if groups is not None:
        same = same_pairs(groups)
        if same_group == "positive":
            same = same.float().fill_diagonal_(1.0)
            forth, back = same / same.sum(dim=1, keepdim=True), same.T / same.T.sum(dim=1, keepdim=True)
            return F.cross_entropy(logits, forth) + F.cross_entropy(logits.T, back)
        logits = logits.masked_fill(same, float("-inf"))
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)


def same_pairs(groups: Tensor) -> Tensor:
    """(B, B) bool: different rows that go together; the diagonal and negative groups are False."""
    if groups.dim() == 2:
        return groups.clone().fill_diagonal_(False)
    same = (groups[:, None] == groups[None, :]) & (groups[:, None] >= 0)
    return same.fill_diagonal_(False)
