"""Decoders by their config: new ones for training, and again from a writer directory."""

from __future__ import annotations

from typing import Any

import torch

from deri.generation.base import ReportDecoder
from deri.generation.config import WriterConfig
from deri.generation.tokenizer import ReportTokenizer


def build_decoder(
    config: WriterConfig, shape: tuple[int, int], texts: list[str]
) -> tuple[ReportDecoder, ReportTokenizer]:
    """A new decoder and its tokenizer, the same for the same seed.

    Args:
        config: what to build.
        shape: (m, d) of the memory.
        texts: distinct reports of the training split, which a tokenizer may be trained on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.kind == "gpt2":
            from deri.generation.gpt2 import build_gpt2

            return build_gpt2(config, shape, texts)
        if config.kind == "prefix":
            from deri.generation.prefix import build_prefix

            return build_prefix(config, shape, texts)
        from deri.generation.r2gen import build_r2gen

        return build_r2gen(config, shape, texts)


def rebuild_decoder(config: WriterConfig, shape: tuple[int, int], architecture: dict[str, Any]) -> ReportDecoder:
    """The decoder that :meth:`ReportDecoder.architecture` described, whose weights are to be loaded."""
    with torch.random.fork_rng(devices=[]):
        if config.kind == "gpt2":
            from deri.generation.gpt2 import rebuild_gpt2

            return rebuild_gpt2(architecture, shape)
        if config.kind == "prefix":
            from deri.generation.prefix import rebuild_prefix

            return rebuild_prefix(architecture, config, shape)
        from deri.generation.r2gen import rebuild_r2gen

        return rebuild_r2gen(architecture, shape)
