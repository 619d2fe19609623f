"""The objective of pre-training: weighted terms over the global batch of ECG–report pairs."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from deri.errors import DeriError
from deri.models.output import Output
from deri.objectives.terms import SHIPPED, TERMS, PairBatch
from deri.recipes import schema

Terms = dict[str, Tensor]


class PairObjective:
    """Weighted terms for the training loop, which sums what it gets and knows none by name.

    Raises:
        DeriError: ``config.terms`` names a term that nobody registered, or one that has a key of its own.
    """

    def __init__(self, config: schema.Objective) -> None:
        if double := [name for name in config.terms if name in SHIPPED]:
            raise DeriError(f"objective.terms: the weight of {double[0]} is objective.{double[0]}")
        self.config = config
        self.weights = {name: float(getattr(config, name)) for name in SHIPPED} | config.terms
        self._terms = {name: TERMS[name] for name in self.weights}

    def __call__(self, output: Output, about: PairBatch) -> tuple[Terms, Terms]:
        """``(losses, logged)``: weighted terms to be summed, and all terms unweighted and detached.

        Arguments as for :meth:`terms`.
        """
        terms = self.terms(output, about)
        losses = {name: self.weights[name] * term for name, term in terms.items() if self.weights[name] > 0}
        return losses, {name: term.detach() for name, term in terms.items()}

    def terms(self, output: Output, about: PairBatch) -> Terms:
        """The unweighted terms that this model's output allows, by name; scalars over the batch of all processes.

        Args:
            output: of a forward pass over the local batch.
            about: what else is known of it; ``same`` is made here. Report ids are needed to leave duplicates out. With
                findings, a text that names nothing beyond another pair's report or classes counts as shared by both,
                see :func:`entailed`.
        """
        collect = about.gather
        same = None
        if self.config.duplicates != "negative":
            same = None if about.report_ids is None else collect(about.report_ids)
            if about.findings is not None:
                # Equal reports that name no known finding entail nothing, and still are equal.
                known = entailed(collect(about.findings))
                same = known if same is None else known | (same[:, None] == same[None, :])
        batch = replace(about, same=same)
        values = {name: term(output, batch, self.config) for name, term in self._terms.items()}
        return {name: value for name, value in values.items() if value is not None}


def entailed(findings: Tensor) -> Tensor:
    """(B, B) bool: whether the text of pair j names findings, and none that the report of pair i does not name.

    Or, where it is the text of a class, whether pair i has that class.

    Args:
        findings: (B, 2, words) int64 bits: of the text shown, and of the whole pair. The first word holds the findings
            of texts and reports, the others classes.
    """
    stated, known = findings[:, 0], findings[:, 1]
    beyond = stated[None, :] & ~known[:, None]  # (B, B, words)
    by_finding = (beyond[..., 0] == 0) & (stated[:, 0] != 0)[None, :]
    by_class = (beyond[..., 1:] == 0).all(dim=-1) & (stated[:, 1:] != 0).any(dim=-1)[None, :]
    return by_finding | by_class
