"""Objectives: named losses over a model's output."""

from deri.objectives.info_nce import info_nce
from deri.objectives.pairs import PairObjective
from deri.objectives.terms import TERMS, PairBatch

__all__ = ["TERMS", "PairBatch", "PairObjective", "info_nce"]
