"""The prepared data set on disk: written in parallel, read by memory map. The format is in ``docs/store.md``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deri.store.dataset import StoreDataset as StoreDataset
    from deri.store.reader import Store as Store
    from deri.store.summary import Summary as Summary
    from deri.store.text_features import TextEncoder as TextEncoder
    from deri.store.text_features import TextFeatures as TextFeatures
    from deri.store.writer import prepare as prepare

# Worker processes import this package for one small module of it; pandas need not come with it.
_LAZY = {
    "Store": "deri.store.reader",
    "StoreDataset": "deri.store.dataset",
    "Summary": "deri.store.summary",
    "TextEncoder": "deri.store.text_features",
    "TextFeatures": "deri.store.text_features",
    "prepare": "deri.store.writer",
}

__all__ = ["Store", "StoreDataset", "Summary", "TextEncoder", "TextFeatures", "prepare"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'deri.store' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
