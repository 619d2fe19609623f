"""MERL (ICML 2024), the baseline that DERI extends: alignment and two dropped-out views."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from deri.models.base import EcgTextModel
from deri.models.layers import AttentionPool, masked_mean
from deri.models.output import Output, TextFeatures
from deri.models.text import TextEncoder
from deri.models.vit import ViT1d
from deri.recipes import schema


class MERL(EcgTextModel):
    """On a ResNet: tokens and attention pooling. On a ViT: an MLP with batch norm on the pooled output."""

    family = "merl"

    def __init__(self, config: schema.Model, text_encoder: TextEncoder) -> None:
        super().__init__(config, text_encoder)
        dim = config.dim
        width = self.backbone.width
        if isinstance(self.backbone, ViT1d):
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
            width = dim
        self.view_projection = nn.ModuleList(nn.Linear(width, dim, bias=False) for _ in range(2))
        self.view_dropout = nn.Dropout(config.view_dropout)

    def forward(
        self,
        ecg: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        features: TextFeatures | None = None,
        valid_samples: Tensor | None = None,
        view_noise: tuple[Tensor, Tensor] | None = None,
    ) -> Output:
        """See :meth:`EcgTextModel.forward`; ``view_noise`` is not used: dropout makes the views."""
        text = self.text_features(input_ids, attention_mask, features)
        embedding, pooled, mask = self._ecg(ecg, valid_samples)
        first, second = (self.view_dropout(projection(pooled)) for projection in self.view_projection)
        return Output(
            ecg_aligned=F.normalize(embedding, dim=-1),
            text_aligned=self.text_aligned(text),
            ecg_views=(first, second),
            text_original=text.pooled,
            ecg_mask=mask,
        )

    def _ecg(self, ecg: Tensor, valid_samples: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Embedding (B, d), pooled features for the views, and the token mask."""
        mask = self.token_mask(valid_samples, ecg.shape[-1])
        if isinstance(self.backbone, ViT1d):
            pooled = self.backbone.norm(masked_mean(self.backbone(ecg, mask).transpose(1, 2), mask))
            return self.ecg_projection(pooled), pooled, mask
        tokens = self.token_conv(self.backbone(ecg)).transpose(1, 2)
        return self.attention_pool(tokens, mask), masked_mean(tokens, mask), mask

    def ecg_embedding(self, ecg: Tensor, valid_samples: Tensor | None = None) -> Tensor:
        """(B, 12, n) → (B, d), not normalised."""
        return self._ecg(ecg, valid_samples)[0]

    def text_embedding(self, features: TextFeatures) -> Tensor:
        """(B, d): MERL has no mixed text."""
        return self.text_aligned(features)
