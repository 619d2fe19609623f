"""MERL (ICML 2024), the baseline that DERI extends: alignment and two dropped-out views."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from deri.models.base import EcgTextModel
from deri.models.layers import AttentionPool, masked_mean
from deri.models.output import Output, TextFeatures
from deri.models.text import TextEncoder
from deri.recipes import schema


class MERL(EcgTextModel):
    """On a ResNet: tokens and attention pooling. On a ViT: an MLP with batch norm on the mean token."""

    family = "merl"

    def __init__(self, config: schema.Model, text_encoder: TextEncoder) -> None:
        super().__init__(config, text_encoder)
        dim = config.dim
        width = self.backbone.width
        if self.backbone.attends:
            self.token_width, self.joint_tokens = width, False
            self.ecg_projection = nn.Sequential(
                nn.Linear(width, dim),
                nn.BatchNorm1d(dim),
                nn.ReLU(),
                nn.Linear(dim, dim),
                nn.BatchNorm1d(dim),
            )
        else:
            self.token_conv = nn.Conv1d(width, dim, 1, stride=self.token_stride)
            self.attention_pool = AttentionPool(self.n_tokens(config.signal.samples), dim, config.heads)
        self.view_projection = nn.ModuleList(nn.Linear(self.token_width, dim, bias=False) for _ in range(2))
        self.view_dropout = nn.Dropout(config.view_dropout)

    def ecg_tokens(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :meth:`EcgTextModel.ecg_tokens`; those of a ViT are its own, before the final norm."""
        x = self.backbone(ecg, mask)
        return (x if self.backbone.attends else self.token_conv(x)).transpose(1, 2)

    def embed_tokens(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """See :meth:`EcgTextModel.embed_tokens`."""
        return self._embed(tokens, mask)[0]

    def _embed(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Embedding (B, d), and the mean token (B, token_width) that the views are made of."""
        pooled = self.backbone.final_norm(masked_mean(tokens, mask))
        if self.backbone.attends:
            return self.ecg_projection(pooled), pooled
        return self.attention_pool(tokens, mask), pooled

    def outputs(
        self, tokens: Tensor, mask: Tensor | None, text: TextFeatures, view_noise: tuple[Tensor, Tensor] | None
    ) -> Output:
        """See :meth:`EcgTextModel.outputs`; ``view_noise`` is not used: dropout makes the views."""
        embedding, pooled = self._embed(tokens, mask)
        first, second = (self.view_dropout(projection(pooled)) for projection in self.view_projection)
        return Output(
            ecg_aligned=F.normalize(embedding, dim=-1),
            text_aligned=self.text_aligned(text),
            ecg_views=(first, second),
            text_original=text.pooled,
            ecg_mask=mask,
        )
