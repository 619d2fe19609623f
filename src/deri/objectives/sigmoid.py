"""Pairwise sigmoid loss: every ECG–report pair of a batch is judged by itself, matching or not.

Source: Zhai et al. 2023, Sigmoid loss for language image pre-training.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deri.objectives.info_nce import same_pairs


def sigmoid_loss(
    a: Tensor,
    b: Tensor,
    temperature: float | Tensor,
    bias: float | Tensor,
    groups: Tensor | None = None,
    *,
    same_group: Literal["ignore", "positive"] = "ignore",
) -> Tensor:
    """Sum over all pairs of the binary cross-entropy of cosine / τ + bias, divided by the batch size.

    Args:
        a: (B, d), L2-normalised here.
        b: (B, d), the partner of each row of ``a``.
        temperature: τ.
        bias: added to every logit; starts far below 0, because nearly all pairs do not match.
        groups: (B,) integers; rows of the same group are not negatives; or (B, B) bool, as in :func:`info_nce`.
        same_group: ``ignore`` leaves such pairs out; ``positive`` counts them as matching.

    Returns:
        A scalar in float32.
    """
    a = F.normalize(a.float(), dim=-1)
    b = F.normalize(b.float(), dim=-1)
    logits = a @ b.T / temperature + bias
    matching = torch.eye(len(a), dtype=torch.bool, device=a.device)
    counted = torch.ones_like(matching)
    if groups is not None:
        same = same_pairs(groups)
        if same_group == "positive":
            matching = matching | same
        else:
            counted = ~same
    signs = matching.float() * 2 - 1
    return -(F.logsigmoid(signs * logits) * counted).sum() / len(a)
