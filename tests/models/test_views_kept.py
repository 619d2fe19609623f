from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from support import tiny


class Kept(nn.Module):
    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        self.counts = keep.sum(dim=1)
        return tokens


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5])
def test_a_view_keeps_as_many_tokens_with_a_mask_as_without(ratio: float) -> None:
    model, attention = tiny.model(f"model.views.mask_ratio={ratio}"), Kept()
    for n in range(1, 320):
        tokens, draw = torch.zeros(1, n, 4), torch.rand(1, n)
        model._view(attention, tokens, None, draw)
        expected = int(attention.counts)
        model._view(attention, tokens, torch.ones(1, n, dtype=torch.bool), draw)
        assert int(attention.counts) == expected, n
