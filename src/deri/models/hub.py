"""The local cache of the model hub, without a question to the hub itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def cache_alone() -> Iterator[None]:
    """Let nothing ask the hub meanwhile.

    ``from_pretrained(…, local_files_only=True)`` does not suffice: where peft is installed, transformers asks for an
    adapter all the same, and tries an unreachable hub six times in 23 s before it says that a model is not cached.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
