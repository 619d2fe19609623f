"""1-D ResNet backbones for 12-lead ECGs: ResNet-18, -34, -50 and -101."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deri.ecg.leads import LEADS
from deri.models.backbones import Backbone
from deri.models.fused import WIDE, conv_norm
from deri.recipes import schema

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
BOTTLENECKS = ("resnet50", "resnet101")


class Block(nn.Module):
    """Two k3 convolutions, or a bottleneck (1×1, k3, 1×1 with expansion 4), and a shortcut; the first k3 strides."""

    def __init__(self, channels: int, width: int, stride: int, *, bottleneck: bool, fold: bool) -> None:
        super().__init__()
        # Output channels, kernel and stride of each convolution.
        layers = [(width, 3, stride), (width, 3, 1)]
        if bottleneck:
            layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        before = channels
        self.fold = fold  # see conv_norm
        self.depth = len(layers)
        for i, (out, kernel, step) in enumerate(layers, 1):
            self.add_module(f"conv{i}", nn.Conv1d(before, out, kernel, step, padding=kernel // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm1d(out))
            before = out
        self.width = before
        self.shortcut: Any = nn.Identity()
        if stride != 1 or channels != before:
            projection = nn.Conv1d(channels, before, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm1d(before))

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, n) → (B, self.width, ceil(n / stride))."""
        out, plain = x, isinstance(self.shortcut, nn.Identity)
        shortcut = x if plain else conv_norm(x, *self.shortcut, fold=self.fold, relu=False)
        for i in range(1, self.depth + 1):
            add = shortcut if i == self.depth else None
            out = conv_norm(out, getattr(self, f"conv{i}"), getattr(self, f"bn{i}"), fold=self.fold, add=add)
        return out


class ResNet1d(Backbone):
    """(B, 12, n) → (B, width, ceil(n / 16)): stem of stride 2 without max-pool, four stages of strides 1/2/2/2."""

    stride = 16

    def __init__(self, config: schema.Model) -> None:
        super().__init__()
        name, base_width = config.backbone, config.base_width
        self.fold = base_width >= WIDE
        self.conv1 = nn.Conv1d(len(LEADS), base_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm1d(base_width)
        self.width = base_width
        self.blocks: list[Block] = []
        for stage, depth in enumerate(DEPTHS[name]):
            blocks = []
            for i in range(depth):
                stride = 2 if stage and not i else 1
                out = base_width * 2**stage
                block = Block(self.width, out, stride, bottleneck=name in BOTTLENECKS, fold=self.fold)
                blocks.append(block)
                self.width = blocks[-1].width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.blocks += blocks
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def init_released(self) -> None:
        """Draw the convolutions by torch's default."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                module.reset_parameters()

    def forward(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """ecg: (B, leads, n) → (B, width, ceil(n / 16)); ``mask`` is not used."""
        x = conv_norm(ecg, self.conv1, self.bn1, fold=self.fold)
        for block in self.blocks:
            x = block(x)
        return x
