"""A backbone of two branches: a ResNet over the whole recording, and a finer one over its median beat.

The first hears rhythm; the second sees the shape of a beat at the full rate, with the noise of single beats taken out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.ecg.beats import AFTER, APART, BEFORE, SHARE, WINDOW
from deri.models.backbones import Backbone
from deri.models.resnet import ResNet1d
from deri.recipes import schema

_MOST = 16  # beats that a median is made of
_POOL, _JOIN = 3, 2  # samples of the recording that the first branch averages, and tokens of it that become one


class MedianBeat(nn.Module):
    """(B, leads, n) mV → (B, leads, samples): the median beat of each recording, zeros where no beat is found.

    A beat is what :func:`deri.ecg.beats.find_beats` calls one, found for a batch on its device by slopes over 20 ms
    instead of a filter. The first 16 whole beats count.
    """

    def __init__(self, fs: float) -> None:
        super().__init__()
        self.fs = fs
        self.first, self.samples = round(BEFORE * fs), round(BEFORE * fs) + round(AFTER * fs)

    @torch.no_grad()
    def positions(self, ecg: Tensor) -> Tensor:
        """(B, leads, n) → (B, 16) int64, samples at which whole beats lie, ascending; -1 where there are no more."""
        n, near, step = ecg.shape[-1], round(APART * self.fs), max(1, round(0.02 * self.fs))
        # A difference over 20 ms passes the slopes of QRS complexes, neither wander nor mains of 50 Hz.
        rise = ecg[..., step:].float() - ecg[..., :-step].float()
        slope = F.pad(rise.square().sum(dim=1).sqrt(), (step // 2, step - step // 2))
        energy, width = slope[:, None], 2 * round(0.02 * self.fs) + 1
        for _ in range(2):  # twice: its peak is a point, not a plateau
            energy = F.avg_pool1d(energy, width, 1, width // 2)
        window = min(round(WINDOW * self.fs), n)
        tops = F.max_pool1d(energy, window, window, ceil_mode=True)[:, 0]
        # The lower median of those above 0: what is to be exported can sort, and knows no nanmedian.
        middle = tops.shape[1] - 1 - (tops > 0).sum(dim=1, keepdim=True) // 2
        typical = tops.sort(dim=1).values.gather(1, middle)
        high = F.max_pool1d(energy, 2 * near + 1, 1, near)[:, 0]
        energy = energy[:, 0]
        at = torch.arange(n, device=ecg.device)
        whole = (at >= self.first) & (at + self.samples - self.first <= n)
        peaks = (energy == high) & (energy > SHARE * typical) & whole
        order = torch.where(peaks, n - at, 0)
        order = order.topk(_MOST, dim=1).values
        return torch.where(order > 0, n - order, -1)

    def forward(self, ecg: Tensor) -> Tensor:
        """See the class; an input shorter than a beat gives zeros."""
        b, leads, n = ecg.shape
        if n <= self.samples:
            return ecg.new_zeros(b, leads, self.samples)
        at = self.positions(ecg)
        offsets = torch.arange(self.samples, device=ecg.device) - self.first
        index = (at.clamp_min(self.first)[:, :, None] + offsets).flatten(1)  # (B, beats · samples)
        beats = ecg.gather(2, index[:, None].expand(-1, leads, -1)).unflatten(2, (-1, self.samples))
        # What is missing is as often above as below all beats, so that the middle is the lower median of those there.
        missing, extreme = (at < 0)[:, None, :, None], beats.new_full((at.shape[1], 1), torch.inf)
        extreme[::2] = -torch.inf
        middle = _sorted(torch.where(missing, extreme, beats).unbind(2))[(at.shape[1] - 1) // 2]
        return middle.masked_fill(~middle.isfinite(), 0.0)


def _sorted(values: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one shape, sorted element by element; Batcher's network, far faster than a sort of short rows."""
    out, n = list(values), len(values)
    size = 1
    while size < n:
        step = size
        while step:
            for low in range(step % size, n - step):
                inside = (low - step % size) // step % 2 == 0  # of the pairs that this pass compares
                if inside and low // (2 * size) == (low + step) // (2 * size):
                    high = low + step
                    out[low], out[high] = torch.minimum(out[low], out[high]), torch.maximum(out[low], out[high])
            step //= 2
        size *= 2
    return out


class Twin(nn.Module):
    """One block of each branch."""

    def __init__(self, rhythm: nn.Module, beat: nn.Module) -> None:
        super().__init__()
        self.rhythm, self.beat = rhythm, beat

    def forward(self, rhythm: Tensor, beat: Tensor) -> tuple[Tensor, Tensor]:
        """(B, channels, n) of both."""
        return self.rhythm(rhythm), self.beat(beat)


class BeatResNet1d(Backbone):
    """(B, 12, n) → (B, width, leading + ceil(n / 96)): tokens of the median beat, then tokens in time.

    The branch of the beat has twice the channels of the other. Their depth is that of a ResNet.
    """

    stride = 16 * _POOL * _JOIN

    def __init__(self, config: schema.Model) -> None:
        super().__init__()
        depth = config.backbone.removeprefix("beat_")
        plain = config.model_copy(update={"backbone": depth})
        rhythm = ResNet1d(plain)
        beat = ResNet1d(plain.model_copy(update={"base_width": 2 * config.base_width}))
        self.median_beat = MedianBeat(config.signal.fs)
        self.leading = beat.n_tokens(self.median_beat.samples)
        self.rhythm_stem, self.beat_stem = nn.Sequential(rhythm.conv1, rhythm.bn1), nn.Sequential(beat.conv1, beat.bn1)
        self.twins = nn.ModuleList(Twin(one, two) for one, two in zip(rhythm.blocks, beat.blocks, strict=True))
        self.blocks = list(self.twins)
        self.width = rhythm.width
        self.beat_out = nn.Conv1d(beat.width, self.width, 1)

    def forward(self, ecg: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class; ``mask`` is not used."""
        x = F.relu(self.rhythm_stem(F.avg_pool1d(ecg, _POOL, ceil_mode=True)))
        y = F.relu(self.beat_stem(self.median_beat(ecg)))
        for block in self.blocks:
            x, y = block(x, y)
        return torch.cat([self.beat_out(y), F.avg_pool1d(x, _JOIN, ceil_mode=True)], dim=2)
