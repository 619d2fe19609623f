"""What a forward pass returns; names as in the method's description (docs/method.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor


@dataclass
class Output:
    """Embeddings of B pairs; d is the model's width, w the text encoder's. A field a model lacks is None.

    Attributes:
        ecg_aligned: (B, d) mean of the L2-normalised attended tokens (MERL: L2-normalised pooled embedding).
        text_aligned: (B, d) L2-normalised projection of the pooled text.
        ecg_views: two (B, d) embeddings of the masked (MERL: dropped-out) views.
        ecg_original: (B, d) mean of the ECG tokens before attention.
        text_original: (B, w) pooled output of the text encoder.
        text_decoded: (B, w) text features reconstructed from the ECG.
        ecg_decoded: (B, d) ECG features reconstructed from the text.
        ecg_mixed: (B, d) ecg_aligned plus the projected text_decoded.
        text_mixed: (B, d) text_aligned plus ecg_decoded.
        ecg_tokens: (B, n, d) attended ECG tokens.
        measured: (B, m) intervals and amplitudes read from the embedding, standardised.
        ecg_mask: (B, n) bool of the tokens that cover signal, or None where all do.
    """

    ecg_aligned: Tensor
    text_aligned: Tensor
    ecg_views: tuple[Tensor, Tensor]
    ecg_original: Tensor | None = None
    text_original: Tensor | None = None
    text_decoded: Tensor | None = None
    ecg_decoded: Tensor | None = None
    ecg_mixed: Tensor | None = None
    text_mixed: Tensor | None = None
    ecg_tokens: Tensor | None = None
    ecg_mask: Tensor | None = None
    measured: Tensor | None = None

    def map(self, function: Callable[..., Tensor], *others: Output) -> Output:
        """The output whose embeddings are ``function`` of the same embedding of this one and the ``others``."""

        def apply(*values: Any) -> Any:
            if values[0] is None:
                return None
            if isinstance(values[0], tuple):
                return tuple(apply(*parts) for parts in zip(*values, strict=True))
            return function(*values)

        each = (self, *others)
        return Output(**{f.name: apply(*(getattr(output, f.name) for output in each)) for f in fields(self)})


@dataclass
class TextFeatures:
    """Output of the text encoder: ``pooled`` (B, w), ``tokens`` (B, T, w), ``mask`` (B, T) bool."""

    pooled: Tensor
    tokens: Tensor
    mask: Tensor
