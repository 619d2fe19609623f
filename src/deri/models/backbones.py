"""Backbones, from a 12-lead ECG to tokens: what each gives, and the table that packages outside deri extend."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from deri.recipes import schema
from deri.registry import Registry


class Backbone(nn.Module):
    """(B, 12, n) → tokens (B, width, n_tokens).

    Attributes:
        width: channels of a token.
        stride: samples from one token to the next.
        leading: tokens before those of time, which belong to the whole recording and always count.
        attends: whether tokens attend to each other, as in a transformer. Then DERI keeps each of them unless the
            recipe says otherwise, and MERL takes their mean and an MLP instead of attention pooling.
        blocks: from input to output; fine-tuning trains the last k of them, and can slow down the first.
    """

    width: int
    stride: int
    leading: int = 0
    attends: bool = False
    blocks: Iterable[nn.Module]

    def n_tokens(self, samples: int) -> int:
        """Number of tokens of an input of ``samples``."""
        return self.leading - (-samples // self.stride)

    def forward(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """ecg: (B, 12, n); mask: (B, n_tokens) bool of the tokens that count → (B, width, n_tokens)."""
        raise NotImplementedError

    def final_norm(self, tokens: Tensor) -> Tensor:
        """(…, width) → (…, width), the norm behind the last block: MERL's of the mean token, DERI's of each."""
        return tokens

    def ends(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """The modules before the blocks and those behind them."""
        inside = {id(module) for block in self.blocks for module in block.modules()}
        before: list[nn.Module] = []
        behind: list[nn.Module] = []
        at = before
        for child in self.children():
            if any(id(module) in inside for module in child.modules()):
                at = behind
            else:
                at.append(child)
        return before, behind


_RESNET, _VIT = "deri.models.resnet:ResNet1d", "deri.models.vit:ViT1d"
BACKBONES: Registry[Callable[[schema.Model], Backbone]] = Registry(
    "backbone",
    "deri.backbones",
    {
        **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), _RESNET),
        **dict.fromkeys(("beat_resnet18", "beat_resnet34"), "deri.models.beats:BeatResNet1d"),
        **dict.fromkeys(("vit_tiny", "vit_small", "vit_middle", "vit_base"), _VIT),
    },
)
"""A row makes a backbone from the model section of a recipe."""
