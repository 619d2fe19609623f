"""R2Gen's decoder (Chen et al., EMNLP 2020), written from the paper's description, over the memory of an ECG.

A transformer encoder reads the memory of the ECG. A few vectors, here *slots* (the paper's relational memory), run
along the report: at every token they attend to themselves and to the token before, and gates decide what is kept. In
each decoder layer the three layer norms are *conditional*: two small networks of the slots move their scale and shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.errors import DeriError
from deri.generation.config import WriterConfig
from deri.generation.decoders.base import Built, MemoryInput, ReportDecoder, Shape, shifted, summed_loss
from deri.generation.tokenizer import ReportTokenizer

KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Multi-head attention with separate projections, so that keys and values can be cached."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def keys(self, x: Tensor) -> KeysValues:
        """Keys and values of (B, n, width): two (B, heads, n, width / heads)."""
        return self._split(self.k(x)), self._split(self.v(x))

    def forward(self, query: Tensor, keys: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """query: (B, q, width); mask: (B, n) of the keys that count → (B, q, width)."""
        attended = F.scaled_dot_product_attention(
            self._split(self.q(query)),
            *keys,
            attn_mask=None if mask is None else mask[:, None, None, :],
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Slots(nn.Module):
    """The slots M (B, slots, width), which the paper calls relational memory, and their update by a token's embedding.

    ``Z`` = attention of M over [M; y]. ``M' = MLP(Z + M) + Z + M``. Forget and input gate are σ of linear maps of y and
    of tanh(M); the new M is ``forget · M + input · tanh(M')``.
    """

    def __init__(self, width: int, heads: int, slots: int, dropout: float) -> None:
        super().__init__()
        self.slots, self.width = slots, width
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.of_token = nn.Linear(width, 2 * width)
        self.of_memory = nn.Linear(width, 2 * width)

    def start(self, rows: int, like: Tensor) -> Tensor:
        """The first slots: rows of the unit matrix, so that they differ."""
        return torch.eye(self.slots, self.width, device=like.device, dtype=like.dtype).expand(rows, -1, -1)

    def forward(self, slots: Tensor, token: Tensor) -> Tensor:
        """slots: (B, slots, width); token: (B, width) → the next slots."""
        y = token.unsqueeze(1)
        z = self.attention(slots, self.attention.keys(torch.cat([slots, y], dim=1)))
        candidate = slots + z
        candidate = candidate + self.mlp(candidate)
        forget, enter = (self.of_token(y) + self.of_memory(slots.tanh())).chunk(2, dim=-1)
        return forget.sigmoid() * slots + enter.sigmoid() * candidate.tanh()


class ConditionalNorm(nn.Module):
    """Layer norm whose scale and shift are moved by the slots."""

    def __init__(self, width: int, slots: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.to_scale, self.to_shift = (_moved(slots * width, width) for _ in range(2))

    def forward(self, x: Tensor, slots: Tensor) -> Tensor:
        """x: (B, T, width); slots: (B, T, slots · width)."""
        plain = F.layer_norm(x, x.shape[-1:])
        return plain * (self.scale + self.to_scale(slots)) + self.shift + self.to_shift(slots)


class EncoderLayer(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp = _mlp(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x: (B, m, width) → same shape."""
        y = self.norm_1(x)
        x = x + self.dropout(self.attention(y, self.attention.keys(y), mask))
        return x + self.dropout(self.mlp(self.norm_2(x)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the ECG, and MLP, each behind a conditional norm."""

    def __init__(self, width: int, heads: int, slots: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ConditionalNorm(width, slots) for _ in range(3))
        self.self_attention = Attention(width, heads, dropout)
        self.cross_attention = Attention(width, heads, dropout)
        self.mlp = _mlp(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, slots: Tensor, ecg: KeysValues, mask: Tensor | None, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x: (B, T, width), all tokens, or with ``past`` the next one; returns keys and values as the next past."""
        y = self.norms[0](x, slots)
        own = self.self_attention.keys(y)
        if past is not None:
            own = (torch.cat([past[0], own[0]], dim=2), torch.cat([past[1], own[1]], dim=2))
        x = x + self.dropout(self.self_attention(y, own, causal=past is None and x.shape[1] > 1))
        x = x + self.dropout(self.cross_attention(self.norms[1](x, slots), ecg, mask))
        return x + self.dropout(self.mlp(self.norms[2](x, slots))), own


@dataclass
class _State:
    ecg: list[KeysValues]
    mask: Tensor | None
    slots: Tensor
    past: list[KeysValues | None]
    step: int = 0


class R2GenDecoder(ReportDecoder):
    """Encoder of the ECG's memory, and a decoder that the slots condition.

    Args:
        shape: (m, d) of the ECG's memory.
        vocabulary: number of tokens.
        bos: the token that every report starts with.
        positions: longest text.
        width, layers, heads, slots, dropout: see :class:`deri.generation.config.Network`.
    """

    default_lr = 3e-4
    options = frozenset({"tokenizer"})
    waves: Tensor

    def __init__(
        self,
        shape: Shape,
        vocabulary: int,
        bos: int,
        positions: int,
        *,
        width: int = 512,
        layers: int = 3,
        heads: int = 8,
        slots: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width % heads or width % 2:
            raise DeriError(f"network.width={width} must be even and divisible by network.heads={heads}")
        self._architecture = {"vocabulary": vocabulary, "bos": bos, "positions": positions} | {
            "width": width, "layers": layers, "heads": heads, "slots": slots, "dropout": dropout,
        }  # fmt: skip
        self.bos, self.width = bos, width
        self.memory_input = MemoryInput(shape, width)
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(width))
        self.register_buffer("waves", _waves(positions + 1, width), persistent=False)
        self.relational = Slots(width, heads, slots, dropout)
        self._decoder_layers = [DecoderLayer(width, heads, slots, dropout) for _ in range(layers)]
        self.layers = nn.ModuleList(self._decoder_layers)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def build(cls, config: WriterConfig, shape: Shape, texts: list[str]) -> Built:
        """With the tokenizer that ``config`` names, or one of the texts; see :meth:`ReportDecoder.build`."""
        name, size = config.tokenizer or "scratch", config.network
        if name == "scratch":
            tokenizer = ReportTokenizer.trained(texts, size.vocabulary)
        else:
            tokenizer = ReportTokenizer.named(name, texts)
        sizes = size.model_dump(include={"width", "layers", "heads", "slots", "dropout"}, exclude_none=True)
        return cls(shape, len(tokenizer), tokenizer.bos, config.max_tokens, **sizes), tokenizer

    @classmethod
    def rebuild(cls, config: WriterConfig, shape: Shape, architecture: dict[str, Any]) -> R2GenDecoder:
        """See :meth:`ReportDecoder.rebuild`."""
        return cls(shape, **architecture)

    def architecture(self) -> dict[str, Any]:
        """Sizes."""
        return dict(self._architecture)

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ReportDecoder.loss`."""
        embedded = self._embed(shifted(ids, self.bos))
        slots = self.relational.start(len(ids), embedded)
        steps = []
        for token in embedded.unbind(dim=1):
            slots = self.relational(slots, token)
            steps.append(slots.flatten(1))
        condition = torch.stack(steps, dim=1)
        x = self.dropout(embedded + self.waves[: ids.shape[1]])
        for layer, ecg in zip(self._decoder_layers, self._read(memory, mask), strict=True):
            x, _ = layer(x, condition, ecg, mask)
        return summed_loss(lambda real: self.head(self.norm(real)), x, ids, lengths)

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, _State]:
        """See :meth:`ReportDecoder.begin`."""
        rows = len(memory) * copies
        state = _State(
            [
                (k.repeat_interleave(copies, dim=0), v.repeat_interleave(copies, dim=0))
                for k, v in self._read(memory, mask)
            ],
            None if mask is None else mask.repeat_interleave(copies, dim=0),
            self.relational.start(rows, self.embedding.weight),
            [None] * len(self.layers),
        )
        return self.advance(torch.full((rows,), self.bos, device=memory.device), state), state

    def advance(self, tokens: Tensor, state: _State) -> Tensor:
        """See :meth:`ReportDecoder.advance`."""
        embedded = self._embed(tokens)
        state.slots = self.relational(state.slots, embedded)
        condition = state.slots.flatten(1).unsqueeze(1)
        x = (embedded + self.waves[state.step]).unsqueeze(1)
        for i, (layer, ecg) in enumerate(zip(self._decoder_layers, state.ecg, strict=True)):
            x, state.past[i] = layer(x, condition, ecg, state.mask, state.past[i])
        state.step += 1
        return self.head(self.norm(x[:, 0])).float()

    def reorder(self, state: _State, index: Tensor) -> None:
        """See :meth:`ReportDecoder.reorder`."""
        state.slots = state.slots[index]
        state.past = [None if pair is None else (pair[0][index], pair[1][index]) for pair in state.past]

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens) * math.sqrt(self.width)

    def _read(self, memory: Tensor, mask: Tensor | None) -> list[KeysValues]:
        """Keys and values of the encoded memory for every decoder layer."""
        x = self.dropout(self.memory_input(memory))
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.encoder_norm(x)
        return [layer.cross_attention.keys(x) for layer in self._decoder_layers]


def _moved(inner: int, width: int) -> nn.Sequential:
    last = nn.Linear(width, width)
    nn.init.normal_(last.weight, std=0.02 / math.sqrt(width))  # it starts as a plain layer norm
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inner, width), nn.ReLU(), last)


def _mlp(width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(4 * width, width))


def _waves(n: int, width: int) -> Tensor:
    """Sinusoidal positions (n, width) of Vaswani et al. 2017."""
    at = torch.arange(n)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([at.sin(), at.cos()], dim=-1).flatten(1)
