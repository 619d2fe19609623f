"""Objectives: named losses over a model's output."""

from deri.objectives.info_nce import info_nce
from deri.objectives.pairs import PairObjective, pair_terms
from deri.objectives.sigmoid import sigmoid_loss

__all__ = ["PairObjective", "info_nce", "pair_terms", "sigmoid_loss"]
