"""Baselines of report generation: what a report costs that no writer wrote.

``frequent`` gives every record the commonest report of the training split, ``neighbour`` the report of the nearest
training record by the model's ECG embedding, ``template`` a sentence for each finding that the model's zero-shot scores
call. All three use the training and validation splits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from deri.errors import DeriError
from deri.evaluation.features import Features, unit
from deri.files import parse_yaml, shipped_text
from deri.generation.data import rows_with_report
from deri.generation.findings import score_findings
from deri.models import EcgTextModel
from deri.progress import SILENT, Progress
from deri.reports import clean_report
from deri.reports.labeller import known_findings
from deri.store import Store

_CHUNK = 1024


def baseline_reports(
    model: EcgTextModel,
    store: Store,
    rows: np.ndarray,
    kinds: Sequence[str] | None = None,
    *,
    features: Features | None = None,
    progress: Progress = SILENT,
) -> dict[str, list[str]]:
    """The reports of ``rows`` by each of ``kinds``, in the order of ``rows``.

    Args:
        model: the ECG model; ``frequent`` does not look at it.
        store: holds reports in its train split, and for ``template`` in its val split.
        rows: (n,) rows of the store.
        kinds: of ``KINDS``; all when not given.
        features: embeddings kept between calls.
        progress: is told how many recordings are embedded.

    Raises:
        DeriError: an unknown kind, or a split without reports.
    """
    kinds = KINDS if kinds is None else kinds
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise DeriError(f"baseline {unknown[0]!r} is not known; there are {', '.join(KINDS)}")
    features = features or Features(model, store)
    return {kind: _WRITERS[kind](features, rows, progress) for kind in kinds}


def frequent_reports(features: Features, rows: np.ndarray, progress: Progress = SILENT) -> list[str]:
    """For every row the report that most training records have; of equally frequent ones the first of the store."""
    store = features.store
    counts = np.bincount(store.report_ids[_with_reports(store, "train")], minlength=len(store.reports))
    return [store.reports[int(counts.argmax())]] * len(rows)


def nearest_reports(features: Features, rows: np.ndarray, progress: Progress = SILENT) -> list[str]:
    """The report of the training record whose embedding has the highest cosine with the row's: exact search.

    Of equally near records the first in the store. A training record finds itself.
    """
    store = features.store
    train = _with_reports(store, "train")
    bank = torch.from_numpy(unit(features.rows(train, progress)))
    queries = torch.from_numpy(unit(features.rows(rows, progress)))
    nearest = [(queries[i : i + _CHUNK] @ bank.T).argmax(dim=1).numpy() for i in range(0, len(queries), _CHUNK)]
    ids = store.report_ids[train[np.concatenate(nearest)]] if nearest else []
    return [store.reports[i] for i in ids]


def template_reports(features: Features, rows: np.ndarray, progress: Progress = SILENT) -> list[str]:
    """A sentence for every finding that the zero-shot scores call; ``""`` where they call none.

    A finding is called at or above the score of highest F1 against what the validation reports assert; one that no
    validation report asserts is never called.
    """
    _with_reports(features.store, "val")
    found = score_findings(features, "val", progress)
    scores = unit(features.rows(rows, progress)) @ found.weights.T
    thresholds = np.array([np.inf if t is None else t for t in found.thresholds])
    return [
        write_findings([c for c, on in zip(known_findings(), called, strict=True) if on])
        for called in scores >= thresholds
    ]


_WRITERS = {"frequent": frequent_reports, "neighbour": nearest_reports, "template": template_reports}
KINDS = tuple(_WRITERS)


def write_findings(codes: Sequence[str]) -> str:
    """A report of one sentence per finding, cleaned as all reports are: rhythm first, in the order of the templates."""
    return clean_report([sentence for code, sentence in templates().items() if code in codes])


@cache
def templates() -> dict[str, str]:
    """The sentence of each finding."""
    content = parse_yaml(shipped_text("deri.generation", "templates.yaml"))
    return {str(code): sentence for code, sentence in content["sentences"].items()}


def _with_reports(store: Store, split: str) -> np.ndarray:
    rows, _ = rows_with_report(store, split)
    if not len(rows):
        raise DeriError(f"the store {store.path} has no record with a report in split {split}, which baselines need")
    return rows
