"""1-D vision transformers over ECG patches: ViT tiny, small, middle and base."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.ecg.leads import LEADS
from deri.models.backbones import Backbone
from deri.models.layers import SelfAttention, fit_positions
from deri.recipes import schema

SIZES = {"vit_tiny": (192, 3), "vit_small": (384, 6), "vit_middle": (512, 8), "vit_base": (768, 12)}
DEPTH = 12
PATCH = 50
HEAD_DIM = 64


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a GELU MLP of 4× width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, HEAD_DIM)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, n, width); mask: (B, n) bool → (B, n, width)."""
        x = x + self.attention(self.norm1(x), mask)
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class ViT1d(Backbone):
    """(B, 12, n) → patch tokens (B, width, n // 50) of 50 samples each, without the final norm."""

    stride = PATCH
    attends = True

    def __init__(self, config: schema.Model) -> None:
        super().__init__()
        self.width, heads = SIZES[config.backbone]
        self.patches = nn.Conv1d(len(LEADS), self.width, PATCH, stride=PATCH, bias=False)
        self.positions = nn.Parameter(torch.randn(1, self.n_tokens(config.signal.samples), self.width))
        self.blocks = nn.ModuleList(Block(self.width, heads) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(self.width)

    def n_tokens(self, samples: int) -> int:
        """Number of whole patches in ``samples``."""
        return samples // PATCH

    def forward(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """ecg: (B, leads, n); mask: (B, n // 50) bool → (B, width, n // 50)."""
        x = self.patches(ecg).transpose(1, 2)
        x = x + fit_positions(self.positions, x.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        return x.transpose(1, 2)

    def final_norm(self, tokens: Tensor) -> Tensor:
        """(…, width) → (…, width), a LayerNorm."""
        normed: Tensor = self.norm(tokens)
        return normed
