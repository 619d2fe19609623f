"""Number formats of models: which one, and the context in which a model runs in it."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from deri.errors import DeriError

Precision = Literal["fp32", "bf16", "fp16"]


def choose_precision(wanted: Precision | Literal["auto"], device: torch.device, *, fp16: bool = True) -> Precision:
    """``fp32``, ``bf16`` or ``fp16``: what ``wanted`` says, where ``auto`` takes the fastest one of ``device``.

    Args:
        wanted: a precision, or ``auto``.
        device: where the model runs.
        fp16: whether ``auto`` may take fp16 on a GPU without bf16; else fp32 there.
    """
    if wanted == "fp16" and device.type == "cpu":
        raise DeriError("precision fp16 (train.precision=fp16) needs a GPU; use fp32 or bf16 on a CPU")
    if wanted != "auto":
        return wanted
    if device.type != "cuda":
        return "bf16" if device.type == "cpu" and _fast_bf16() else "fp32"
    if torch.cuda.is_bf16_supported():
        return "bf16"
    return "fp16" if fp16 else "fp32"


def _fast_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices, by AVX512-BF16 or AMX; others convert them, and are slower."""
    flags = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    has = any(getattr(torch.cpu, flag, lambda: False)() for flag in flags)
    # oneDNN may be held to an older instruction set (ONEDNN_MAX_CPU_ISA).
    return has and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a model computes in ``precision``."""
    if precision == "fp32":
        return nullcontext()
    stack = ExitStack()
    stack.enter_context(torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16))
    if device.type == "cpu":  # where torch's fused attention takes three to four times as long in bf16
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    return stack
