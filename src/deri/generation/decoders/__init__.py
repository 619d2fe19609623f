"""What writes the tokens of a report: a table of decoders, a row each.

A decoder of one's own is a subclass of :class:`deri.generation.decoders.base.ReportDecoder` under a name of its own, by
``@DECODERS.register("name")`` or an entry point in the group ``deri.report_decoders``; ``--writer name`` or
``--writer name:SOURCE`` chooses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deri.registry import Registry

if TYPE_CHECKING:
    from deri.generation.config import WriterConfig
    from deri.generation.decoders.base import ReportDecoder
    from deri.generation.tokenizer import ReportTokenizer

_HERE = "deri.generation.decoders"
DECODERS: Registry[type[ReportDecoder]] = Registry(
    "report decoder",
    "deri.report_decoders",
    {
        "scratch": f"{_HERE}.gpt2:ScratchDecoder",
        "gpt2": f"{_HERE}.gpt2:Gpt2Decoder",
        "prefix": f"{_HERE}.prefix:PrefixDecoder",
        "r2gen": f"{_HERE}.r2gen:R2GenDecoder",
    },
)


def split_writer(writer: str) -> tuple[str, str]:
    """The row of :data:`DECODERS` and the source that ``--writer`` names; a plain hub id or directory is a GPT-2."""
    name, _, source = writer.partition(":")
    return (name, source or writer) if name in DECODERS else ("gpt2", writer)


def build_decoder(
    config: WriterConfig, shape: tuple[int, int], texts: list[str]
) -> tuple[ReportDecoder, ReportTokenizer]:
    """A new decoder and its tokenizer, the same for the same seed; see :meth:`ReportDecoder.build`."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return config.decoder.build(config, shape, texts)


def rebuild_decoder(config: WriterConfig, shape: tuple[int, int], architecture: dict[str, Any]) -> ReportDecoder:
    """The decoder that :meth:`ReportDecoder.architecture` described, whose weights are to be loaded."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return config.decoder.rebuild(config, shape, architecture)
