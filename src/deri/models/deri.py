"""DERI: deep ECG–report interaction (IJCAI 2025). docs/method.md states the method in full."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.models.base import EcgTextModel
from deri.models.decoder import CrossModalDecoder
from deri.models.layers import TokenAttention, extend_mask, for_each, masked_mean
from deri.models.output import Output, TextFeatures
from deri.models.text import TextEncoder
from deri.recipes import schema


class DERI(EcgTextModel):
    """Two alignments, mutual feature reconstruction in both directions, and the RME module."""

    family = "deri"
    random_views = True

    def __init__(self, config: schema.Model, text_encoder: TextEncoder) -> None:
        super().__init__(config, text_encoder)
        dim = config.dim
        n = self.n_tokens(config.signal.samples)
        self.token_conv = nn.Conv1d(self.backbone.width, dim, 1, stride=self.token_stride)
        self.token_attention = TokenAttention(n, dim, config.heads)
        views = config.views
        n_view = n if views.order == "ordered" else self._kept(n)
        self.view_attention = nn.ModuleList(TokenAttention(n_view, dim, views.heads) for _ in range(2))
        # One more token: the text→ECG decoder's separator follows the ECG tokens.
        self.ecg_to_text = CrossModalDecoder(n + 1, dim, text_encoder.width, config.decoder, prefix=False)
        self.text_to_ecg = CrossModalDecoder(config.text_positions, dim, dim, config.decoder, prefix=True)

    @property
    def token_stride(self) -> int:
        """Stride of the token convolution: of the recipe, or 3 on tokens that do not attend to each other."""
        return self.config.token_stride or (1 if self.backbone.attends else 3)

    def ecg_tokens(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :meth:`EcgTextModel.ecg_tokens`; before token attention."""
        x = self.backbone.final_norm(self.backbone(ecg, mask).transpose(1, 2)).transpose(1, 2)
        tokens: Tensor = self.token_conv(x).transpose(1, 2)
        return tokens

    def outputs(
        self, tokens: Tensor, mask: Tensor | None, text: TextFeatures, view_noise: tuple[Tensor, Tensor] | None
    ) -> Output:
        """See :meth:`EcgTextModel.outputs`."""
        attended = self.token_attention(tokens, mask)
        unit = F.normalize(attended, dim=-1)
        ecg_aligned = masked_mean(unit, mask)
        text_aligned = self.text_aligned(text)
        text_decoded = self._decode_text(unit, mask)
        ecg_decoded = self._decode_ecg(text)
        return Output(
            ecg_aligned=ecg_aligned,
            text_aligned=text_aligned,
            ecg_views=self.views(tokens, mask, view_noise),
            ecg_original=masked_mean(tokens, mask),
            text_original=text.pooled,
            text_decoded=text_decoded,
            ecg_decoded=ecg_decoded,
            ecg_mixed=ecg_aligned + self.text_projection(text_decoded),
            text_mixed=text_aligned + ecg_decoded,
            ecg_tokens=attended,
            ecg_mask=mask,
        )

    def views(
        self, tokens: Tensor, mask: Tensor | None, noise: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """RME: two masked views (B, d) of the tokens (B, n, d).

        ``noise``: (B, n) uniform draws per view; drawn from torch's generator, view 1 first, when not given.
        """
        b, n, _ = tokens.shape
        if noise is None:
            noise = (torch.rand(b, n, device=tokens.device), torch.rand(b, n, device=tokens.device))
        one = self._shuffled_view if self.config.views.order == "shuffled" else self._view
        first, second = (
            one(attention, tokens, mask, draw) for attention, draw in zip(self.view_attention, noise, strict=True)
        )
        return first, second

    def _view(self, attention: nn.Module, tokens: Tensor, mask: Tensor | None, draw: Tensor) -> Tensor:
        """Keep a random share of the real tokens at their own positions; hide the others from attention and mean."""
        n = tokens.shape[1]
        if mask is None:
            kept: Tensor | int = self._kept(n)
        else:
            draw = draw.masked_fill(~mask, 2.0)
            real = mask.sum(dim=1, keepdim=True)
            # In double precision, as without padding: in single, 0.7 of 90 tokens are one more.
            kept = (real.double() * (1 - self.config.views.mask_ratio)).long().clamp_min(1)
        keep = draw.argsort(dim=1).argsort(dim=1) < kept
        return masked_mean(attention(tokens, keep), keep)

    def _shuffled_view(self, attention: nn.Module, tokens: Tensor, mask: Tensor | None, draw: Tensor) -> Tensor:
        """Released behaviour: kept tokens stay in random order; view 2 takes the last ones of its own draw."""
        kept, order = self._kept(tokens.shape[1]), draw.argsort(dim=1)
        order = order[:, :kept] if attention is self.view_attention[0] else order[:, -kept:]
        view: Tensor = attention(tokens.gather(1, order.unsqueeze(-1).expand(-1, -1, tokens.shape[2]))).mean(dim=1)
        return view

    def _kept(self, n: int) -> int:
        return max(1, int(n * (1 - self.config.views.mask_ratio)))

    def _decode_text(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """ECG → text: attended tokens (B, n, d) → (B, w)."""
        separator = for_each(self.text_to_ecg.separator, tokens).to(tokens.dtype)
        tokens, mask = torch.cat([tokens, separator], dim=1), extend_mask(mask, 0, 1)
        return masked_mean(self.ecg_to_text(tokens, mask), mask)

    def _decode_ecg(self, text: TextFeatures) -> Tensor:
        """Text → ECG: token features (B, T, w) → (B, d)."""
        mask = text.mask if self.config.mask_padding else None
        return masked_mean(self.text_to_ecg(self.text_projection(text.tokens), mask), mask)

    def embed_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mixed embedding (B, d), from tokens normalised as in training (or not, as released)."""
        attended = self._attend(tokens, mask)
        decoded: Tensor = self.text_projection(self._decode_text(attended, mask))
        return masked_mean(attended, mask) + decoded

    def align_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean (B, d) of the attended tokens at unit length."""
        return masked_mean(F.normalize(self._attend(tokens, mask), dim=-1), mask)

    def _attend(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        attended: Tensor = self.token_attention(tokens, mask)
        return F.normalize(attended, dim=-1) if self.config.inference.normalise_tokens else attended

    def text_embedding(self, features: TextFeatures) -> Tensor:
        """Mixed (default) or aligned embedding of texts: (B, d)."""
        aligned = self.text_aligned(features)
        return aligned if self.config.inference.text == "aligned" else aligned + self._decode_ecg(features)
