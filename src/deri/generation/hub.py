"""Language models that report writers start from."""

from __future__ import annotations

from typing import Any

from deri.models.hub import load_pretrained


def load_language_model(source: str, auto_class: Any, **options: Any) -> Any:
    """Language model, tokenizer or config (a class of transformers) of a directory or hub id that --writer names.

    Options are passed to ``from_pretrained``.
    """
    cure = "without a hub: --writer scratch, or a directory with a saved model"
    # That cross-attention is new is no news here.
    return load_pretrained("writer", source, auto_class, cure, quiet=True, **options)
