"""Any causal language model, told about an ECG by soft vectors before the text (Li & Liang 2021; ClipCap 2021)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deri.errors import DeriError
from deri.generation.base import ReportDecoder
from deri.generation.config import LoRA, WriterConfig
from deri.generation.hub import load_language_model
from deri.generation.memory import MemoryInput
from deri.generation.tokenizer import ReportTokenizer


@dataclass
class _State:
    cache: Any


class PrefixDecoder(ReportDecoder):
    """k learned queries read the memory; each becomes one vector of the language model's input.

    The last of them stands where a begin token would: it predicts the report's first token, so that no new token has
    to be learned where the language model is frozen.

    Args:
        lm: a transformers causal language model.
        shape: (m, d) of the memory.
        prefix: k.
        lora: adapters to put into ``lm``, whose own weights are frozen then.
    """

    def __init__(self, lm: Any, shape: tuple[int, int], prefix: int, lora: LoRA | None) -> None:
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

    def prefix(self, memory: Tensor, mask: Tensor | None) -> Tensor:
        """(B, m, d) → (B, k, width), of the size of the language model's own embeddings."""
        x = self.memory_input(memory)
        queries = self.queries.expand(len(x), -1, -1)
        hidden = None if mask is None else ~mask
        read, _ = self.attention(queries, x, x, key_padding_mask=hidden, need_weights=False)
        h = self.norm(queries + read)
        vectors: Tensor = self.out(h + self.mlp(h)) * self.spread
        return vectors

    def loss(self, memory: Tensor, mask: Tensor | None, ids: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`ReportDecoder.loss`. Padding lies to the right, where causal attention does not look."""
        prefix = self.prefix(memory, mask)
        text = self.lm.get_input_embeddings()(ids[:, :-1])
        inputs = torch.cat([prefix.to(text.dtype), text], dim=1)
        logits = self.lm(inputs_embeds=inputs, use_cache=False).logits[:, prefix.shape[1] - 1 :]
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        return F.cross_entropy(logits[real].float(), ids[real], reduction="sum")

    def begin(self, memory: Tensor, mask: Tensor | None, copies: int) -> tuple[Tensor, _State]:
        """See :meth:`ReportDecoder.begin`."""
        prefix = self.prefix(memory, mask).repeat_interleave(copies, dim=0)
        dtype = self.lm.get_input_embeddings().weight.dtype
        out = self.lm(inputs_embeds=prefix.to(dtype), use_cache=True)
        return out.logits[:, -1].float(), _State(out.past_key_values)

    def advance(self, tokens: Tensor, state: _State) -> Tensor:
        """See :meth:`ReportDecoder.advance`."""
        out = self.lm(tokens[:, None], past_key_values=state.cache, use_cache=True)
        state.cache = out.past_key_values
        logits: Tensor = out.logits[:, -1]
        return logits.float()

    def reorder(self, state: _State, index: Tensor) -> None:
        """See :meth:`ReportDecoder.reorder`."""
        state.cache.reorder_cache(index)

    def architecture(self) -> dict[str, Any]:
        """The language model's own config."""
        config = self.lm.config
        return {"model_type": config.model_type, "config": json.loads(config.to_json_string(use_diff=False))}


def build_prefix(
    config: WriterConfig, shape: tuple[int, int], texts: list[str]
) -> tuple[PrefixDecoder, ReportTokenizer]:
    """A new decoder around the language model that ``config`` names, with its own tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    source = config.source
    found = load_language_model(source, AutoConfig)
    limit = getattr(found, "max_position_embeddings", None)
    if limit is not None and limit < config.prefix_tokens + config.max_tokens:
        raise DeriError(
            f"writer {source} has {limit} positions, {config.prefix_tokens} of them for the prefix; set "
            f"max_tokens={max(limit - config.prefix_tokens, 0)} or less"
        )
    tokenizer = ReportTokenizer.fitted(load_language_model(source, AutoTokenizer), texts)
    lm = load_language_model(source, AutoModelForCausalLM, dtype=torch.float32)
    if len(tokenizer) > lm.get_input_embeddings().weight.shape[0]:
        lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    decoder = PrefixDecoder(lm, shape, config.prefix_tokens, config.lora)
    if config.lora is None:
        lm.requires_grad_(config.train_lm)
    return decoder, tokenizer


def rebuild_prefix(architecture: dict[str, Any], config: WriterConfig, shape: tuple[int, int]) -> PrefixDecoder:
    """The decoder of :meth:`PrefixDecoder.architecture`, without its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    content = {key: value for key, value in architecture["config"].items() if key != "model_type"}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture["model_type"], **content)).float()
    return PrefixDecoder(lm, shape, config.prefix_tokens, config.lora)


def _with_lora(lm: Any, lora: LoRA) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise DeriError("lora needs the package peft: pip install 'deri[report]'") from None
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
