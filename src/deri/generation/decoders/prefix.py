"""Any causal language model, told about an ECG by soft vectors before the text (Li & Liang 2021; ClipCap 2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deri.errors import DeriError, install
from deri.generation.config import LoRA, WriterConfig
from deri.generation.decoders.base import Built, MemoryInput, Shape, summed_loss
from deri.generation.decoders.language_model import (
    LanguageModelDecoder,
    LanguageModelState,
    load_language_model,
    own_config,
    published,
)


class PrefixDecoder(LanguageModelDecoder):
    """k learned queries read the memory; each becomes one vector of the language model's input.

    The last of them stands where a begin token would: it predicts the report's first token, so that no new token has
    to be learned where the language model is frozen.

    Args:
        lm: a transformers causal language model.
        shape: (m, d) of the memory.
        prefix: k.
        lora: adapters to put into ``lm``, whose own weights are frozen then.
    """

    default_lr = 2e-4
    options = frozenset({"lora"})

    def __init__(self, lm: Any, shape: Shape, prefix: int, lora: LoRA | None) -> None:
        super().__init__()
        embeddings = lm.get_input_embeddings().weight
        width = int(embeddings.shape[1])
        self.spread = nn.Parameter(embeddings.detach().float().std().clamp_min(1e-3).reshape(1))
        self.lm = lm if lora is None else _with_lora(lm, lora)
        inner = min(width, 256)
        self.memory_input = MemoryInput(shape, inner)
        self.queries = nn.Parameter(torch.randn(prefix, inner) * 0.5)
        self.attention = nn.MultiheadAttention(inner, 4 if inner % 4 == 0 else 1, batch_first=True)
        self.norm = nn.LayerNorm(inner)
        self.mlp = nn.Sequential(nn.Linear(inner, 4 * inner), nn.GELU(), nn.Linear(4 * inner, inner))
        self.out = nn.Sequential(nn.LayerNorm(inner), nn.Linear(inner, width))

    @classmethod
    def build(cls, config: WriterConfig, shape: Shape, texts: list[str]) -> Built:
        """Around the language model that ``config`` names, with its own tokenizer; see :meth:`ReportDecoder.build`."""
        from transformers import AutoConfig, AutoModelForCausalLM

        source = config.source
        limit = getattr(load_language_model(source, AutoConfig), "max_position_embeddings", None)
        if limit is not None and limit < config.prefix_tokens + config.max_tokens:
            raise DeriError(
                f"writer {source} has {limit} positions, {config.prefix_tokens} of them for the prefix; set "
                f"max_tokens={max(limit - config.prefix_tokens, 0)} or less"
            )
        lm, tokenizer = published(source, texts, AutoModelForCausalLM, dtype=torch.float32)
        decoder = cls(lm, shape, config.prefix_tokens, config.lora)
        if config.lora is None:
            lm.requires_grad_(config.train_lm)
        return decoder, tokenizer

    @classmethod
    def rebuild(cls, config: WriterConfig, shape: Shape, architecture: dict[str, Any]) -> PrefixDecoder:
        """See :meth:`ReportDecoder.rebuild`."""
        from transformers import AutoConfig, AutoModelForCausalLM

        own = AutoConfig.for_model(architecture["model_type"], **own_config(architecture))
        return cls(AutoModelForCausalLM.from_config(own).float(), shape, config.prefix_tokens, config.lora)

    def prefix(self, memory: Tensor, mask: Tensor | None) -> Tensor:
        """(B, m, d) → (B, k, width), of the size and type of the language model's own embeddings."""
        x = self.memory_input(memory)
        queries = self.queries.expand(len(x), -1, -1)
        hidden = None if mask is None else ~mask
        read, _ = self.attention(queries, x, x, key_padding_mask=hidden, need_weights=False)
        h = self.norm(queries + read)
        vectors = self.out(h + self.mlp(h)) * self.spread
        return vectors.to(self.lm.get_input_embeddings().weight.dtype)

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ReportDecoder.loss`."""
        prefix = self.prefix(memory, mask)
        inputs = torch.cat([prefix, self.lm.get_input_embeddings()(ids[:, :-1])], dim=1)
        logits = self.lm(inputs_embeds=inputs, use_cache=False).logits[:, prefix.shape[1] - 1 :]
        return summed_loss(nn.Identity(), logits, ids, lengths)

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, LanguageModelState]:
        """See :meth:`ReportDecoder.begin`."""
        prefix = self.prefix(memory, mask).repeat_interleave(copies, dim=0)
        out = self.lm(inputs_embeds=prefix, use_cache=True)
        return out.logits[:, -1].float(), LanguageModelState(out.past_key_values, {})

    def reorder(self, state: LanguageModelState, index: Tensor) -> None:
        """See :meth:`ReportDecoder.reorder`."""
        state.cache.reorder_cache(index)


def _with_lora(lm: Any, lora: LoRA) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise DeriError(f"lora needs the package peft: {install('report')}") from None
    return get_peft_model(
        lm,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
