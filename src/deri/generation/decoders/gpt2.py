"""GPT-2 with cross-attention on the memory of an ECG: from scratch, or any published size."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deri.errors import DeriError
from deri.generation.config import WriterConfig
from deri.generation.decoders.base import Built, MemoryInput, Shape, shifted, summed_loss
from deri.generation.decoders.language_model import (
    LanguageModelDecoder,
    LanguageModelState,
    load_language_model,
    own_config,
    published,
)
from deri.generation.tokenizer import ReportTokenizer


class Gpt2Decoder(LanguageModelDecoder):
    """The memory goes through a linear layer to GPT-2's width and is what its cross-attention looks at.

    Args:
        lm: a transformers ``GPT2LMHeadModel`` with cross-attention.
        shape: (m, d) of the memory.
        bos: the token that every report starts with.
    """

    def __init__(self, lm: Any, shape: Shape, bos: int) -> None:
        super().__init__()
        self.lm = lm
        self.bos = bos
        lm.config.pad_token_id = None  # else transformers looks for it in every batch; padding is told by lengths
        self.memory_input = MemoryInput(shape, int(lm.config.n_embd))

    @classmethod
    def build(cls, config: WriterConfig, shape: Shape, texts: list[str]) -> Built:
        """A published GPT-2 with its own tokenizer; see :meth:`ReportDecoder.build`."""
        from transformers import AutoConfig, GPT2LMHeadModel

        source = config.source
        found = load_language_model(source, AutoConfig)
        if found.model_type != "gpt2":
            raise DeriError(
                f"writer {source} is a {found.model_type} model, not a GPT-2; for any causal language model: "
                f"--writer prefix:{source}"
            )
        if found.n_positions < config.max_tokens + 1:
            raise DeriError(
                f"writer {source} has {found.n_positions} positions; set max_tokens={found.n_positions - 1} or less"
            )
        lm, tokenizer = published(source, texts, GPT2LMHeadModel, add_cross_attention=True)
        return cls(lm, shape, tokenizer.bos), tokenizer

    @classmethod
    def rebuild(cls, config: WriterConfig, shape: Shape, architecture: dict[str, Any]) -> Gpt2Decoder:
        """See :meth:`ReportDecoder.rebuild`."""
        from transformers import GPT2Config, GPT2LMHeadModel

        return cls(GPT2LMHeadModel(GPT2Config(**own_config(architecture))), shape, int(architecture["bos"]))

    def architecture(self) -> dict[str, Any]:
        """GPT-2's own config, and the token that every report starts with."""
        return {"config": super().architecture()["config"], "bos": self.bos}

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ReportDecoder.loss`."""
        hidden = self.lm.transformer(
            shifted(ids, self.bos),
            encoder_hidden_states=self.memory_input(memory),
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        return summed_loss(self.lm.lm_head, hidden, ids, lengths)

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, LanguageModelState]:
        """See :meth:`ReportDecoder.begin`."""
        given = {
            "encoder_hidden_states": self.memory_input(memory).repeat_interleave(copies, dim=0),
            "encoder_attention_mask": None if mask is None else mask.repeat_interleave(copies, dim=0),
        }
        state = LanguageModelState(None, given)
        first = torch.full((len(memory) * copies,), self.bos, device=memory.device)
        return self.advance(first, state), state

    def reorder(self, state: LanguageModelState, index: Tensor) -> None:
        """See :meth:`ReportDecoder.reorder`. What cross-attention cached is the same for all copies."""
        state.cache.self_attention_cache.reorder_cache(index)


class ScratchDecoder(Gpt2Decoder):
    """A small GPT-2 that is trained from scratch."""

    @classmethod
    def build(cls, config: WriterConfig, shape: Shape, texts: list[str]) -> Built:
        """With a tokenizer that is trained on ``texts``; see :meth:`ReportDecoder.build`."""
        from transformers import GPT2Config, GPT2LMHeadModel

        size = config.network
        tokenizer = ReportTokenizer.trained(texts, size.vocabulary)
        width, heads = size.width or 192, size.heads or 4
        if width % heads:
            raise DeriError(f"network.width={width} is not divisible by network.heads={heads}")
        own = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=config.max_tokens + 1,
            n_embd=width,
            n_layer=size.layers or 3,
            n_head=heads,
            resid_pdrop=size.dropout,
            embd_pdrop=size.dropout,
            attn_pdrop=0.0,  # with it, attention has no fused kernel on a CPU
            activation_function="gelu",  # fused, unlike GPT-2's approximation of it
            add_cross_attention=True,
            bos_token_id=tokenizer.bos,
            eos_token_id=tokenizer.eos,
        )
        return cls(GPT2LMHeadModel(own), shape, tokenizer.bos), tokenizer
