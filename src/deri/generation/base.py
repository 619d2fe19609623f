"""What every decoder of reports offers to training and search."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deri.generation.memory import MemoryInput


class ReportDecoder(nn.Module):
    """Text from the memory of an ECG; V is the size of the vocabulary.

    A state holds one row per text that is being written; each decoder has its own. States are changed in place.
    """

    memory_input: MemoryInput

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """Summed cross-entropy (nats) of the tokens ``ids``; what lies beyond ``lengths`` does not count.

        Args:
            memory: (B, m, d).
            mask: (B, m) bool or None.
            ids: (B, T) tokens of the reports with their ends, without a begin token.
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

    def architecture(self) -> dict[str, Any]:
        """What :func:`deri.generation.build.rebuild_decoder` needs besides the writer's config, as JSON values."""
        raise NotImplementedError
