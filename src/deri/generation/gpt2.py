"""GPT-2 with cross-attention on the memory of an ECG: from scratch, or any published size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deri.errors import DeriError
from deri.generation.base import ReportDecoder
from deri.generation.config import WriterConfig
from deri.generation.hub import load_language_model
from deri.generation.memory import MemoryInput
from deri.generation.tokenizer import ReportTokenizer


@dataclass
class _State:
    cache: Any
    memory: Tensor
    mask: Tensor | None


class Gpt2Decoder(ReportDecoder):
    """The memory goes through a linear layer to GPT-2's width and is what its cross-attention looks at.

    Args:
        lm: a transformers ``GPT2LMHeadModel`` with cross-attention.
        shape: (m, d) of the memory.
        bos: the token that every report starts with.
    """

    def __init__(self, lm: Any, shape: tuple[int, int], bos: int) -> None:
        super().__init__()
        self.lm = lm
        self.bos = bos
        lm.config.pad_token_id = None  # else transformers looks for it in every batch; padding is told by lengths
        self.memory_input = MemoryInput(shape, int(lm.config.n_embd))

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ReportDecoder.loss`. Padding lies to the right, where causal attention does not look."""
        begin = ids.new_full((len(ids), 1), self.bos)
        hidden = self.lm.transformer(
            torch.cat([begin, ids[:, :-1]], dim=1),
            encoder_hidden_states=self.memory_input(memory),
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        logits = self.lm.lm_head(hidden[real])
        return F.cross_entropy(logits.float(), ids[real], reduction="sum")

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, _State]:
        """See :meth:`ReportDecoder.begin`."""
        projected = self.memory_input(memory).repeat_interleave(copies, dim=0)
        state = _State(None, projected, None if mask is None else mask.repeat_interleave(copies, dim=0))
        first = torch.full((len(projected),), self.bos, device=projected.device)
        return self.advance(first, state), state

    def advance(self, tokens: Tensor, state: _State) -> Tensor:
        """See :meth:`ReportDecoder.advance`."""
        out = self.lm(
            tokens[:, None],
            past_key_values=state.cache,
            encoder_hidden_states=state.memory,
            encoder_attention_mask=state.mask,
            use_cache=True,
        )
        state.cache = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits.float()

    def reorder(self, state: _State, index: Tensor) -> None:
        """See :meth:`ReportDecoder.reorder`. What cross-attention cached is the same for all copies."""
        state.cache.self_attention_cache.reorder_cache(index)

    def architecture(self) -> dict[str, Any]:
        """GPT-2's own config."""
        return {"config": json.loads(self.lm.config.to_json_string(use_diff=False)), "bos": self.bos}


def build_gpt2(config: WriterConfig, shape: tuple[int, int], texts: list[str]) -> tuple[Gpt2Decoder, ReportTokenizer]:
    """A new decoder: ``scratch`` with a tokenizer trained on ``texts``, else a published GPT-2 with its own."""
    from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel

    if config.writer == "scratch":
        tokenizer = ReportTokenizer.trained(texts, config.network.vocabulary)
        size = config.network
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
        return Gpt2Decoder(GPT2LMHeadModel(own), shape, tokenizer.bos), tokenizer
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
    tokenizer = ReportTokenizer.fitted(load_language_model(source, AutoTokenizer), texts)
    lm = load_language_model(source, GPT2LMHeadModel, add_cross_attention=True)
    if len(tokenizer) > lm.config.vocab_size:
        lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return Gpt2Decoder(lm, shape, tokenizer.bos), tokenizer


def rebuild_gpt2(architecture: dict[str, Any], shape: tuple[int, int]) -> Gpt2Decoder:
    """The decoder of :meth:`Gpt2Decoder.architecture`, without its weights."""
    from transformers import GPT2Config, GPT2LMHeadModel

    content = {key: value for key, value in architecture["config"].items() if key != "model_type"}
    return Gpt2Decoder(GPT2LMHeadModel(GPT2Config(**content)), shape, int(architecture["bos"]))
