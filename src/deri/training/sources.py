"""What pre-training reads: the pairs of one or several stores, with their texts, classes and measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deri.errors import DeriError
from deri.models import EcgTextModel
from deri.models.text import TextEncoder
from deri.progress import SILENT, Progress
from deri.recipes import Recipe
from deri.store import Store
from deri.store import TextFeatures as TextFeatureCache
from deri.store.measurements import measure_store
from deri.store.statements import store_statements
from deri.training.batches import ClassPrompts, PairReader, SingleStatements
from deri.training.class_texts import classes_of, read_class_texts
from deri.training.distributed import Replica
from deri.training.mixture import Mixture


def open_sources(
    stores: Sequence[Store],
    model: EcgTextModel,
    recipe: Recipe,
    replica: Replica,
    *,
    fit: bool,
    progress: Progress = SILENT,
) -> Mixture:
    """The pairs of ``stores``; what is computed from them once is computed by one process.

    ``fit``: centre and scale of measurements are taken from the training records, else they are the model's.
    """
    shared = _shared_ids(stores)
    classes = classes_of(stores) if recipe.train.class_texts else []
    if recipe.train.class_texts and not classes:
        raise DeriError("train.class_texts needs labels, and no store has any: prepare one with labels, or set it to 0")
    readers: list[PairReader] = []
    prompts: TextFeatureCache | None = None  # the same for all stores: kept with the first
    for store, ids in zip(stores, shared, strict=True):
        _require_contrast(store)
        source = _Source(store, model.text_encoder, recipe, replica)
        shown = None
        if classes:
            texts = read_class_texts(store, classes)
            prompts = source.features(texts.texts, "classes") if prompts is None else prompts
            shown = ClassPrompts(texts, prompts, recipe.train.class_texts)
        readers.append(
            PairReader(
                store,
                model,
                source.features() if recipe.model.text.cacheable else None,
                source.statements(),
                classes=shown,
                shared_ids=ids,
                measurements=source.measurements(progress) if model.measured is not None else None,
            )
        )
    if fit and model.measured is not None:
        known = [reader.measured("train") for reader in readers]
        model.measured.fit(np.concatenate(known))
    return Mixture(readers)


def _shared_ids(stores: Sequence[Store]) -> list[np.ndarray | None]:
    """The number of each store's reports among all: equal texts have one. None for a store alone."""
    if len(stores) == 1:
        return [None]
    numbers: dict[str, int] = {}
    return [
        np.array([numbers.setdefault(text, len(numbers)) for text in store.reports], dtype=np.int64) for store in stores
    ]


def _require_contrast(store: Store) -> None:
    """DeriError where all training pairs have the same text: one text is nothing to tell apart."""
    ids = store.report_ids[store.rows("train")]
    if len(known := np.unique(ids[ids >= 0])) == 1:
        raise DeriError(
            f"the training records of {store.path} all have one report, {store.reports[known[0]][:60]!r}: there is "
            "nothing to contrast; prepare the store with the reports of the recordings"
        )


class _Source:
    """What is made of one store."""

    def __init__(self, store: Store, encoder: TextEncoder, recipe: Recipe, replica: Replica) -> None:
        self.store, self.encoder, self.recipe, self.replica = store, encoder, recipe, replica

    def features(self, texts: list[str] | None = None, kind: str = "") -> TextFeatureCache:
        """Features of the reports, or ``texts``."""
        dtype = self.recipe.model.text.cache_dtype
        return self.replica.first(
            lambda: TextFeatureCache.build(self.store, self.encoder, texts=texts, kind=kind, dtype=dtype)
        )

    def statements(self) -> SingleStatements | None:
        """The sentences of the reports, where pairs share texts by what these say."""
        if self.recipe.objective.shared != "findings":
            return None
        statements = self.replica.first(lambda: store_statements(self.store))
        share = self.recipe.train.statements
        shown = share and statements.texts
        return SingleStatements(statements, self.features(statements.texts, "statements") if shown else None, share)

    def measurements(self, progress: Progress) -> np.ndarray:
        """Of all rows."""
        return self.replica.first(lambda: measure_store(self.store, progress=progress))
