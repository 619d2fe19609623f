"""Building blocks shared by the models: positions, attention, gated MLP, stochastic depth.

Sources: SPEC of DERI (IJCAI 2025) for the token attention and the decoders; MERL (ICML 2024) for the attention pooling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def fit_positions(positions: Tensor, n: int, *, prefix: bool = False, mask: Tensor | None = None) -> Tensor:
    """Positions for ``n`` tokens from learned ones.

    Args:
        positions: (1, m, d).
        n: number of tokens.
        prefix: texts are left-aligned, so a short one takes the first positions; ECG tokens span the whole
            recording, so positions are stretched linearly. A text of more than m tokens is stretched as well.
        mask: (B, n) bool of the tokens that count, in front: each text of a batch gets positions by its own length.

    Returns:
        (1, n, d), ``positions`` itself where n = m; (B, n, d) for a batch of texts that is longer than m.
    """
    m = positions.shape[1]
    if n == m:
        return positions
    if prefix and n < m:
        return positions[:, :n]
    if prefix and mask is not None:
        lengths = mask.sum(dim=1).clamp_min(m).tolist()
        return torch.cat([F.pad(fit_positions(positions, length), (0, 0, 0, n - length)) for length in lengths])
    stretched = F.interpolate(positions.transpose(1, 2), size=n, mode="linear", align_corners=True)
    return stretched.transpose(1, 2)


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over tokens. x: (B, n, d); mask: (B, n) bool, True where a token counts, or None for all → (B, d)."""
    if mask is None:
        return x.mean(dim=1)
    weight = mask.to(x.dtype).unsqueeze(-1)
    return (x * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Multi-head attention: q (B, q, w), k and v (B, n, w), mask (B, n) bool of the keys that count → (B, q, w)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    keys = None if mask is None else mask[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keys).transpose(1, 2).flatten(2)


def extend_mask(mask: Tensor | None, before: int, after: int) -> Tensor | None:
    """The mask (B, n) with tokens that count put before and after: (B, before + n + after)."""
    return None if mask is None else F.pad(mask, (before, after), value=True)


def for_each(x: Tensor, tokens: Tensor) -> Tensor:
    """``x`` (…, d) for each sample of tokens (B, n, d): (B, 1, d)."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined]  # for ONNX, where the B of a long graph would become that of the example
        return x + 0 * tokens[:, :1]
    return x.expand(tokens.shape[0], 1, -1)


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch per sample with probability ``p`` while training (Huang et al. 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, …) → same shape."""
        if not self.training or self.p == 0:
            return x
        keep = self._draw(len(x), x).view(-1, *[1] * (x.dim() - 1)) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)

    def _draw(self, rows: int, x: Tensor) -> Tensor:
        return torch.rand(rows, device=x.device)


class GatedMLP(nn.Module):
    """``fc2(SiLU(drop(fc1 x)) · drop(fc3 x))``: (…, dim) → (…, out)."""

    def __init__(self, dim: int, hidden: int, out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)
        self.fc3 = nn.Linear(dim, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, dim) → (…, out)."""
        gated: Tensor = self.fc2(F.silu(self.dropout(self.fc1(x))) * self.dropout(self.fc3(x)))
        return gated


class SelfAttention(nn.Module):
    """Multi-head self-attention with one packed qkv projection and its own head width."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim)
        self.to_out = nn.Linear(heads * head_dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, n, dim); mask: (B, n) bool of the keys that count → (B, n, dim)."""
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        out: Tensor = self.to_out(attend(q, k, v, self.heads, mask))
        return out


class PackedAttention(nn.Module):
    """Multi-head attention with torch's packed (3d, d) input projection and heads of width d / heads.

    Numerically ``nn.MultiheadAttention`` without its dropout and weights; the queries may be fewer than the keys.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """query: (B, q, d); keys: (B, n, d); mask: (B, n) bool of the keys that count → (B, q, d)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, keys, keys), weights, biases, strict=True))
        out: Tensor = self.out_proj(attend(q, k, v, self.heads, mask))
        return out


def add_separators(
    tokens: Tensor, positions: Tensor, separator: Tensor, mask: Tensor | None, *, prefix: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Put the learned separator before and after the tokens and add positions to all n + 2.

    Args:
        tokens: (B, n, d).
        positions: (1, m + 2, d): first and last belong to the separators.
        separator: (d,).
        mask: (B, n) bool or None.
        prefix: see :func:`fit_positions`.

    Returns:
        (B, n + 2, d) and the mask (B, n + 2) or None.
    """
    inner = fit_positions(positions[:, 1:-1], tokens.shape[1], prefix=prefix, mask=mask)
    first = for_each(separator + positions[:, 0], tokens)
    last = for_each(separator + positions[:, -1], tokens)
    return torch.cat([first, tokens + inner, last], dim=1), extend_mask(mask, 1, 1)


class TokenAttention(nn.Module):
    """One self-attention layer over the tokens framed by a learned separator (no residual, norm or MLP)."""

    def __init__(self, n_tokens: int, dim: int, heads: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, n_tokens + 2, dim) / dim**0.5)
        self.separator = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.attention = PackedAttention(dim, heads)

    def init_released(self) -> None:
        """Draw positions with standard deviation 1 / d, and the separator with 1."""
        nn.init.normal_(self.positions, std=1 / self.positions.shape[-1])
        nn.init.normal_(self.separator)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens: (B, n, d); mask: (B, n) bool of the tokens that count → (B, n, d)."""
        framed, mask = add_separators(tokens, self.positions, self.separator, mask)
        return self.attention(framed, framed, mask)[:, 1:-1]


class AttentionPool(nn.Module):
    """MERL's attention pooling: a learned class token is the only query.

    Position 0 is added to the class token twice, as in the released model.
    """

    def __init__(self, n_tokens: int, dim: int, heads: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, n_tokens + 1, dim) / dim**0.5)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.attention = PackedAttention(dim, heads)
        self.projection = nn.Linear(dim, dim)

    def init_released(self) -> None:
        """Draw positions with standard deviation 1 / d."""
        nn.init.normal_(self.positions, std=1 / self.positions.shape[-1])

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """tokens: (B, n, d); mask: (B, n) bool → (B, d)."""
        first = self.positions[:, :1]
        inner = fit_positions(self.positions[:, 1:], tokens.shape[1])
        cls = for_each(self.cls_token + first, tokens)
        x = torch.cat([cls, tokens], dim=1) + torch.cat([first, inner], dim=1)
        pooled: Tensor = self.projection(self.attention(x[:, :1], x, extend_mask(mask, 1, 0))[:, 0])
        return pooled
