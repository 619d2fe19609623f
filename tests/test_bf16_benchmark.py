from __future__ import annotations

import runpy
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "bf16_training.py"


def test_emulated_products_are_those_in_fp32_rounded_in_both_passes() -> None:
    emulated = runpy.run_path(str(SCRIPT))["EmulatedBf16"]
    draw = torch.Generator().manual_seed(0)
    signal, kernel, matrix = (torch.randn(*n, generator=draw).bfloat16() for n in ((3, 4, 50), (8, 4, 5), (46, 6)))

    def products(signal: Tensor, kernel: Tensor, matrix: Tensor) -> list[Tensor]:
        given = [value.clone().requires_grad_() for value in (signal, kernel, matrix)]
        found = F.conv1d(given[0], given[1])
        out = found @ given[2]
        out.float().sum().backward()
        return [found.detach(), out.detach(), *(value.grad for value in given if value.grad is not None)]

    with emulated():
        rounded = products(signal, kernel, matrix)
    kernels = products(signal, kernel, matrix)
    exact = F.conv1d(signal.float(), kernel.float()).bfloat16()
    assert len(rounded) == 5
    assert all(value.dtype == torch.bfloat16 for value in rounded)
    torch.testing.assert_close(rounded[0], exact, rtol=0, atol=0)
    torch.testing.assert_close(rounded[1], (exact.float() @ matrix.float()).bfloat16(), rtol=0, atol=0)
    back = (torch.ones(3, 8, 6) @ matrix.float().T).bfloat16()  # what the convolution's backward pass is given
    expected = F.conv_transpose1d(back.float(), kernel.float()).bfloat16()
    torch.testing.assert_close(rounded[2], expected, rtol=0.01, atol=0.01)  # the order of the sum is not the same
    for ours, theirs in zip(rounded, kernels, strict=True):
        assert (ours.float() - theirs.float()).norm() < 0.02 * theirs.float().norm()
