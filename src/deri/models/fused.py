"""Convolution, batch norm, sum and ReLU of an encoder at inference, in one kernel of oneDNN where it pays.

A 1-D convolution of torch changes the order of its input and output in memory each time, and batch norm, sum and ReLU
pass over memory again. Here the norm is folded into the weights and a signal stays channels-last from layer to layer.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

WIDE = 64
"""Base width of a ResNet from which on it pays: by a fifth to a half; deri-open, of 16, would gain 8 %."""

_folded: WeakKeyDictionary[nn.Module, tuple[Any, Tensor, Tensor]] = WeakKeyDictionary()


def conv_norm(
    x: Tensor, conv: nn.Conv1d, norm: nn.BatchNorm1d, *, fold: bool, add: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``norm(conv(x))``, plus ``add``, through a ReLU: (B, c, n) → (B, conv.out_channels, n').

    With ``fold``, in inference mode and eval mode, on an x86 CPU in fp32, in one kernel; weights are folded once for
    each state of the modules.
    """
    if not (fold and _possible(x, conv, norm)):
        _folded.pop(norm, None)  # a step of training may follow
        out = norm(conv(x))
        out = out if add is None else out + add
        return F.relu(out) if relu else out
    sizes = [[0, *conv.padding], [1, *conv.stride], [1, *conv.dilation]]
    key = _state(conv, norm)
    known = _folded.get(norm)
    if known is None or known[0] != key:
        known = _folded[norm] = (key, *_fold(conv, norm, sizes, [*x.shape[:2], 1, x.shape[2]]))
    _, weight, bias = known
    x4 = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    rest, last = (*sizes, 1), "relu" if relu else "none"
    if add is None:
        out = torch.ops.mkldnn._convolution_pointwise(x4, weight, bias, *rest, last, [], "")
    else:
        other = add.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        after = "relu" if relu else None
        fused = torch.ops.mkldnn._convolution_pointwise.binary
        out = fused(x4, other, weight, bias, *rest, "add", 1.0, after, [], None)
    result: Tensor = out.squeeze(2)
    return result


def _possible(x: Tensor, conv: nn.Conv1d, norm: nn.BatchNorm1d) -> bool:
    return (
        torch.is_inference_mode_enabled()
        and not norm.training
        and x.dtype == conv.weight.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not conv.weight.is_inference()  # no version tells when such a weight changed
        and _has_kernel()
    )


@cache
def _has_kernel() -> bool:
    there = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    return there and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _state(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> list[tuple[int, int]]:
    """Changes with every change of a weight or statistic."""
    used = (conv.weight, *norm.parameters(), *norm.buffers())
    return [(value.data_ptr(), value._version) for value in used]


def _fold(conv: nn.Conv1d, norm: nn.BatchNorm1d, sizes: list[list[int]], shape: list[int]) -> tuple[Tensor, Tensor]:
    """Weights (out, in, 1, k) in the order of oneDNN, and biases, with the norm in them."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, mean, var, norm.eps, norm.weight, norm.bias)
    plain = weight.detach().unsqueeze(2).contiguous(memory_format=torch.channels_last)
    ordered: Tensor = torch.ops.mkldnn._reorder_convolution_weight(plain, *sizes, 1, shape)
    return ordered, bias.detach()
