"""Findings of the labeller: which ones texts assert, and how a model scores recordings for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deri.evaluation.features import Features, unit
from deri.evaluation.metrics import best_threshold
from deri.evaluation.zero_shot import class_weights
from deri.generation.data import report_texts, rows_with_report
from deri.models import EcgTextModel
from deri.progress import SILENT, Progress
from deri.reports import prompts_for
from deri.reports.labeller import asserted, known_findings
from deri.reports.prompts import LABELS

_OWN = {"INJ": ["subendocardial injury."]}
"""Findings that join several statements and have no prompt of their own."""


def finding_matrix(texts: Sequence[str], *, uncertain: bool = True) -> np.ndarray:
    """Which finding each text asserts, bool (n, findings), in the order of the labeller's table."""
    column = {code: i for i, code in enumerate(known_findings())}
    matrix = np.zeros((len(texts), len(column)), bool)
    for row, text in zip(matrix, texts, strict=True):
        row[[column[code] for code in asserted(text, uncertain=uncertain)]] = True
    return matrix


def finding_prompts() -> dict[str, list[str]]:
    """The shipped prompts of every finding of the labeller, in the order of its table."""
    shipped = prompts_for(LABELS, [code for code in known_findings() if code not in _OWN])
    return {code: _OWN[code] if code in _OWN else shipped[code] for code in known_findings()}


@dataclass(frozen=True)
class FindingScores:
    """Zero-shot scores of findings on the records of a split that have a report, and what the reports assert.

    Attributes:
        weights: (findings, d) float32, unit vectors of the prompts.
        scores: (n, findings) cosines.
        labels: (n, findings) bool, asserted or held possible by the record's own report.
        thresholds: the score of highest F1 per finding; None where no report asserts it.
    """

    weights: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    thresholds: list[float | None]


def score_findings(features: Features, split: str = "val", progress: Progress = SILENT) -> FindingScores:
    """Scores of all findings on the records of ``split`` that have a report; see :class:`FindingScores`."""
    store = features.store
    rows, _ = rows_with_report(store, split)
    weights = class_weights(features.model, finding_prompts())
    scores = unit(features.rows(rows, progress)) @ weights.T
    distinct, inverse = np.unique(store.report_ids[rows], return_inverse=True)
    labels = finding_matrix([report_texts(store)[i] for i in distinct])[inverse]
    thresholds = [best_threshold(labels[:, c], scores[:, c]) for c in range(labels.shape[1])]
    return FindingScores(weights, scores, labels, thresholds)


def embed_texts(model: EcgTextModel, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (n, d) of texts in the model's text space, each distinct one embedded once."""
    distinct, inverse = np.unique(np.array(list(texts), dtype=object), return_inverse=True)
    return model.encode_text(list(distinct))[inverse] if len(texts) else model.encode_text([])
