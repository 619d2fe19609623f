"""Tiny models for tests: a one-layer BERT with a word-level tokenizer, no hub needed."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from deri.models import EcgTextModel, TextEncoder, build_model
from deri.recipes import Model, load_recipe

WORDS = "sinus rhythm atrial fibrillation normal ecg left bundle branch block tachycardia bradycardia a b c".split()


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def text_encoder(layers: int = 2, positions: int = 64, **config: Any) -> TextEncoder:
    import torch

    hf = BertConfig(
        vocab_size=32,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=positions,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        bert = BertModel(hf).eval()
    return TextEncoder(bert, load_recipe("deri").model.text.model_copy(update=config), tokenizer())


def config(*overrides: str, recipe: str = "deri") -> Model:
    small = ["model.base_width=4", "model.dim=32", "model.decoder.hidden=16", "model.decoder.head_dim=8"]
    return load_recipe(recipe, [*small, *overrides]).model


def model(*overrides: str, recipe: str = "deri", seed: int = 0, **text: Any) -> EcgTextModel:
    content = config(*overrides, recipe=recipe)
    encoder = text_encoder(**{**_text_switches(content), **text})
    return build_model(content.model_copy(update={"text": encoder.config}), seed=seed, text_encoder=encoder).eval()


def _text_switches(content: Model) -> dict[str, Any]:
    return {k: v for k, v in content.text.model_dump().items() if k not in ("encoder", "max_tokens", "pad_to_max")}
