"""Decoders around a language model of transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deri.generation.decoders.base import ReportDecoder
from deri.generation.tokenizer import ReportTokenizer
from deri.models.hub import load_pretrained


@dataclass
class LanguageModelState:
    """What a language model keeps of the tokens so far, and what else it is given at every token."""

    cache: Any
    given: dict[str, Any]


class LanguageModelDecoder(ReportDecoder):
    """The part that is the same for all language models. Attribute ``lm``: a model of transformers."""

    lm: Any

    def advance(self, tokens: Tensor, state: LanguageModelState) -> Tensor:
        """See :meth:`ReportDecoder.advance`."""
        out = self.lm(tokens[:, None], past_key_values=state.cache, use_cache=True, **state.given)
        state.cache = out.past_key_values
        return out.logits[:, -1].float()

    def architecture(self) -> dict[str, Any]:
        """The language model's own config."""
        config = self.lm.config
        return {"model_type": config.model_type, "config": json.loads(config.to_json_string(use_diff=False))}


def own_config(architecture: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the language model's config, of what :meth:`LanguageModelDecoder.architecture` gave."""
    return {key: value for key, value in architecture["config"].items() if key != "model_type"}


def published(source: str, texts: list[str], auto_class: Any, **options: Any) -> tuple[Any, ReportTokenizer]:
    """The language model of a directory or hub id, with its own tokenizer fitted to ``texts``."""
    from transformers import AutoTokenizer

    tokenizer = ReportTokenizer.fitted(load_language_model(source, AutoTokenizer), texts)
    lm = load_language_model(source, auto_class, **options)
    if len(tokenizer) > lm.get_input_embeddings().weight.shape[0]:
        lm.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return lm, tokenizer


def load_language_model(source: str, auto_class: Any, **options: Any) -> Any:
    """Language model, tokenizer or config (a class of transformers) of a directory or hub id that --writer names.

    Options are passed to ``from_pretrained``.
    """
    cure = "without a hub: --writer scratch, or a directory with a saved model"
    # That cross-attention is new is no news here.
    return load_pretrained("writer", source, auto_class, cure, quiet=True, **options)
