"""Report writers: training, decoding, and how good generated reports are."""

from __future__ import annotations

from deri.generation.evaluate import evaluate_reports, paired_difference
from deri.generation.meteor import meteor_exact
from deri.generation.metrics import (
    METRICS,
    cider_d,
    corpus_bleu,
    pair_scores,
    rouge_l,
    sentence_bleu,
)
from deri.generation.tables import read_pairs

__all__ = [
    "METRICS",
    "cider_d",
    "corpus_bleu",
    "evaluate_reports",
    "meteor_exact",
    "pair_scores",
    "paired_difference",
    "read_pairs",
    "rouge_l",
    "sentence_bleu",
]
