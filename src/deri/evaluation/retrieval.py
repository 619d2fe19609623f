"""Retrieval between ECGs and reports: how often the right report is among the k nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deri.errors import DeriError
from deri.evaluation.features import embed_store
from deri.evaluation.result import provenance
from deri.models import EcgTextModel
from deri.progress import SILENT, Progress
from deri.store import Store


def recall_at_k(
    ecg: np.ndarray, text: np.ndarray, report_ids: np.ndarray, ks: Sequence[int] = (1, 5, 10), chunk: int = 2048
) -> dict[str, float]:
    """Recall at k in both directions, where an identical report counts as the right one.

    Args:
        ecg: (n, d) L2-normalised embeddings of recordings.
        text: (n, d) L2-normalised embeddings of their reports, row by row.
        report_ids: (n,) equal for equal reports.
        ks: how many nearest to look at.
        chunk: queries ranked at once, which bounds memory to chunk × n.

    Returns:
        ``ecg_to_text_r1``, ``text_to_ecg_r1`` …, and the median ranks ``ecg_to_text_median`` and
        ``text_to_ecg_median`` (1 is first). Text→ECG asks with every recording's report; each distinct text is one
        candidate of ECG→text, so that frequent reports do not fill the list. Ties count against the model.
    """
    report_ids = np.asarray(report_ids)
    if not len(report_ids) == len(ecg) == len(text):
        raise ValueError(f"unequal lengths: {len(ecg)} ECGs, {len(text)} texts, {len(report_ids)} report ids")
    _, first, inverse = np.unique(report_ids, return_index=True, return_inverse=True)
    ranks_ecg = _ranks(ecg, text[first], lambda rows: inverse[rows, None] == np.arange(len(first)), chunk)
    ranks_text = _ranks(text, ecg, lambda rows: inverse[rows, None] == inverse[None, :], chunk)
    result = {}
    for name, ranks in (("ecg_to_text", ranks_ecg), ("text_to_ecg", ranks_text)):
        for k in ks:
            result[f"{name}_r{k}"] = float((ranks < k).mean()) if len(ranks) else float("nan")
        result[f"{name}_median"] = float(np.median(ranks + 1)) if len(ranks) else float("nan")
    return result


def _ranks(queries: np.ndarray, candidates: np.ndarray, right: object, chunk: int) -> np.ndarray:
    """How many wrong candidates score at least as high as the best right one, per query."""
    ranks = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), chunk):
        rows = np.arange(start, min(start + chunk, len(queries)))
        scores = queries[rows] @ candidates.T
        is_right = right(rows)  # type: ignore[operator]
        best = np.where(is_right, scores, -np.inf).max(axis=1, keepdims=True)
        ranks[rows] = (~is_right & (scores >= best)).sum(axis=1)
    return ranks


def retrieval_on_store(
    model: EcgTextModel, store: Store, *, model_name: str, split: str = "test", progress: Progress = SILENT
) -> dict[str, Any]:
    """Retrieval among the recordings of a split that have a report; the JSON that ``deri retrieval`` writes."""
    rows = store.rows(split)
    rows = rows[store.report_ids[rows] >= 0]
    if len(rows) < 2:
        raise DeriError(f"split {split} of {store.path} has {len(rows)} recordings with a report; two are the least")
    ids = store.report_ids[rows]
    distinct, inverse = np.unique(ids, return_inverse=True)
    texts = model.encode_text([store.reports[i] for i in distinct])
    figures = recall_at_k(embed_store(model, store, rows, progress=progress), texts[inverse], ids)
    return {
        "model": model_name,
        "split": split,
        "n": len(rows),
        "n_texts": len(distinct),
        **figures,
        "chance_ecg_to_text_r1": 1 / len(distinct),
        **provenance(model, store),
    }
