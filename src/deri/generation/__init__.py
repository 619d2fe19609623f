"""Report generation: how good generated reports are."""

from __future__ import annotations

from deri.generation.evaluate import evaluate_reports, finding_scores, read_pairs
from deri.generation.metrics import (
    PAIR_METRICS,
    cider_d,
    corpus_bleu,
    meteor_exact,
    pair_scores,
    rouge_l,
    sentence_bleu,
)

__all__ = [
    "PAIR_METRICS",
    "cider_d",
    "corpus_bleu",
    "evaluate_reports",
    "finding_scores",
    "meteor_exact",
    "pair_scores",
    "read_pairs",
    "rouge_l",
    "sentence_bleu",
]
