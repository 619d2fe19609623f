"""1-D ResNet backbones for 12-lead ECGs: ResNet-18, -34, -50 and -101."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from deri.ecg.leads import LEADS
from deri.models.backbones import Backbone
from deri.recipes import schema

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}


class BasicBlock(nn.Module):
    """Two k3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(width)
        self.shortcut = _shortcut(channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, n) → (B, width, ceil(n / stride))."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, k3 with the stride, 1×1 with expansion 4."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        self.conv2 = nn.Conv1d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(width)
        self.conv3 = nn.Conv1d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm1d(4 * width)
        self.shortcut = _shortcut(channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, n) → (B, 4·width, ceil(n / stride))."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.shortcut(x))


class ResNet1d(Backbone):
    """(B, 12, n) → (B, width, ceil(n / 16)): stem of stride 2 without max-pool, four stages of strides 1/2/2/2."""

    stride = 16

    def __init__(self, name: str, leads: int = 12, base_width: int = 64) -> None:
        super().__init__()
        block = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
        self.conv1 = nn.Conv1d(leads, base_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm1d(base_width)
        channels = base_width
        self.blocks: list[nn.Module] = []
        for stage, depth in enumerate(DEPTHS[name]):
            width = base_width * 2**stage
            blocks: list[nn.Module] = []
            for i in range(depth):
                blocks.append(block(channels, width, stride=2 if stage and not i else 1))
                channels = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            self.blocks += blocks
        self.width = channels
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """ecg: (B, leads, n) → (B, width, ceil(n / 16)); ``mask`` is not used."""
        x = F.relu(self.bn1(self.conv1(ecg)))
        for block in self.blocks:
            x = block(x)
        return x


def resnet(config: schema.Model) -> ResNet1d:
    """The ResNet that a recipe names."""
    return ResNet1d(config.backbone, len(LEADS), config.base_width)


def _shortcut(channels: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv1d(channels, width, 1, stride, bias=False), nn.BatchNorm1d(width))
