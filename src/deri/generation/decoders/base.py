"""What every decoder of reports offers to training and search, and how it takes in the memory of an ECG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from typing_extensions import Self

    from deri.generation.config import WriterConfig
    from deri.generation.tokenizer import ReportTokenizer

Shape = tuple[int, int]
"""(m, d) of the memory of an ECG."""
Built = tuple["ReportDecoder", "ReportTokenizer"]


class MemoryInput(nn.Module):
    """Memory as a decoder takes it: standardised, projected to the decoder's width, with learned positions.

    Contrastive embeddings lie in a narrow cone: what they share is many times larger than what tells two recordings
    apart. Mean and scale per dimension of the training records (one pair for all tokens, one for the embedding behind
    them) bring the differences to unit size; they are stored with the weights.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        m, d = shape
        self.register_buffer("mean", torch.zeros(m, d))
        self.register_buffer("scale", torch.ones(m, d))
        self.projection = nn.Linear(d, width)
        self.positions = nn.Parameter(torch.randn(m, width) * 0.02)

    def forward(self, memory: Tensor) -> Tensor:
        """(B, m, d) → (B, m, width)."""
        return self.projection((memory - self.mean) / self.scale) + self.positions

    def standardise(self, mean: np.ndarray, scale: np.ndarray) -> None:
        """Take the statistics (m, d) of the training records."""
        with torch.no_grad():
            self.mean.copy_(torch.from_numpy(mean))
            self.scale.copy_(torch.from_numpy(scale))


class ReportDecoder(nn.Module):
    """Text from the memory of an ECG; V is the size of the vocabulary.

    A state holds one row per text that is being written; each decoder has its own. States are changed in place.
    """

    default_lr: ClassVar[float] = 1e-3
    options: ClassVar[frozenset[str]] = frozenset()
    """Which of the config's options ``lora`` and ``tokenizer`` this decoder takes."""

    memory_input: MemoryInput

    @classmethod
    def build(cls, config: WriterConfig, shape: Shape, texts: list[str]) -> Built:
        """A new decoder and its tokenizer.

        Args:
            config: what to build.
            shape: (m, d) of the memory.
            texts: distinct reports of the training split, which a tokenizer may be trained on.
        """
        raise NotImplementedError

    @classmethod
    def rebuild(cls, config: WriterConfig, shape: Shape, architecture: dict[str, Any]) -> Self:
        """The decoder that :meth:`architecture` described, without its weights."""
        raise NotImplementedError

    def architecture(self) -> dict[str, Any]:
        """What :meth:`rebuild` needs besides the writer's config, as JSON values."""
        raise NotImplementedError

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """Summed cross-entropy (nats) of the tokens ``ids``; what lies beyond ``lengths`` does not count.

        Args:
            memory: (B, m, d).
            mask: (B, m) bool or None.
            ids: (B, T) tokens of the reports with their ends, without a begin token. Padding lies to the right, where
                causal attention does not look.
            lengths: (B,) real tokens.
        """
        raise NotImplementedError

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, Any]:
        """Logits (B · copies, V) of the first token and the state; the copies of one ECG lie side by side."""
        raise NotImplementedError

    def advance(self, tokens: Tensor, state: Any) -> Tensor:
        """Logits (rows, V) of the token behind ``tokens`` (rows,)."""
        raise NotImplementedError

    def reorder(self, state: Any, index: Tensor) -> None:
        """Row i of the state becomes row ``index[i]``, which is a copy of the same ECG."""
        raise NotImplementedError


def summed_loss(head: Any, hidden: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
    """Summed cross-entropy (nats) of ``ids`` (B, T) up to ``lengths``; ``head`` makes logits of ``hidden``."""
    real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    return F.cross_entropy(head(hidden[real]).float(), ids[real], reduction="sum")


def shifted(ids: Tensor, begin: int) -> Tensor:
    """The tokens (B, T) behind which those of ``ids`` (B, T) come: a begin token in front, the last one dropped."""
    return torch.cat([ids.new_full((len(ids), 1), begin), ids[:, :-1]], dim=1)
