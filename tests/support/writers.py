"""Tiny language models and report writers for tests; nothing of a hub is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from deri.generation.config import WriterConfig, load_config
from deri.generation.decoders import build_decoder
from deri.generation.decoders.base import ReportDecoder
from deri.generation.tokenizer import ReportTokenizer

TEXTS = [
    "sinus rhythm. normal ecg.",
    "atrial fibrillation. left bundle branch block. abnormal ecg.",
    "sinus tachycardia with 1st degree a-v block. rsr' pattern in v1.",
    "sinus bradycardia. st-t changes of ischemia. inferior infarct - age undetermined.",
]
SMALL = ["network.width=16", "network.layers=2", "network.heads=2", "network.vocabulary=300", "max_tokens=24"]


def save_gpt2(folder: Path, *, pad: bool = False, positions: int = 64) -> Path:
    """A random GPT-2 with a tokenizer like GPT-2's: one special token, ``<|endoftext|>``, for everything."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer("<|endoftext|>", pad)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = GPT2Config(vocab_size=len(tokenizer), n_positions=positions, n_embd=16, n_layer=2, n_head=2)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return folder


def save_llama(folder: Path, positions: int = 64) -> Path:
    """A random Llama whose tokenizer has a begin and an end token, and none for padding."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer("</s>", False)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    with torch.random.fork_rng():
        torch.manual_seed(2)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=positions,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return folder


def _tokenizer(end: str, pad: bool) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    )
    bos = {"bos_token": end} if end == "<|endoftext|>" else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=end, **bos, **({"pad_token": "[PAD]"} if pad else {})
    )


def config(*overrides: str, **fields: Any) -> WriterConfig:
    return load_config([*SMALL, *overrides], **fields)


def decoder(content: WriterConfig, shape: tuple[int, int] = (5, 8)) -> tuple[ReportDecoder, ReportTokenizer]:
    """An untrained decoder in eval mode; its weights are spread so that its choices are no near-ties."""
    made, tokenizer = build_decoder(content, shape, TEXTS)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() >= 2 and "positions" not in name:
                size = 2.0 if "wte" in name or "embed" in name else 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size / parameter.shape[-1] ** 0.25)
    return made.eval(), tokenizer
