"""The cross-modal decoder of mutual feature reconstruction (DERI §3; ``decode_t`` and ``decode_e`` of a checkpoint)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deri.models.layers import DropPath, GatedMLP, SelfAttention, add_separators
from deri.recipes import schema


class DecoderBlock(nn.Module):
    """Pre-norm attention and gated MLP, each in a residual branch with stochastic depth."""

    def __init__(self, dim: int, config: schema.Decoder, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, config.heads, config.head_dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = GatedMLP(dim, config.hidden, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, n, dim); mask: (B, n) bool → (B, n, dim)."""
        x = x + self.drop_path(self.attention(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossModalDecoder(nn.Module):
    """Tokens of one modality (B, n, d) → features of the other (B, n, out).

    ``n_tokens`` learned positions; other lengths are fitted (``prefix`` for texts: the first n are taken).
    """

    def __init__(self, n_tokens: int, dim: int, out: int, config: schema.Decoder, *, prefix: bool) -> None:
        super().__init__()
        self.prefix = prefix
        self.embed = GatedMLP(dim, config.hidden, dim, config.dropout)
        self.positions = nn.Parameter(torch.randn(1, n_tokens + 2, dim) * 0.02)
        self.separator = nn.Parameter(torch.randn(dim) * 0.02)
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(DecoderBlock(dim, config, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim)
        self.head = GatedMLP(dim, config.hidden, out, config.dropout)

    def init_released(self) -> None:
        """Draw positions and separator with standard deviation 1."""
        nn.init.normal_(self.positions)
        nn.init.normal_(self.separator)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens: (B, n, d); mask: (B, n) bool of the tokens that count → (B, n, out)."""
        x, mask = add_separators(self.embed(tokens), self.positions, self.separator, mask, prefix=self.prefix)
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.head(self.norm(x[:, 1:-1]))
        return out
