"""The five terms of DERI (and the two of MERL) over the global batch of ECG–report pairs.

Source: DERI, IJCAI 2025, objective; docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from deri.models.output import Output
from deri.objectives.gather import gather
from deri.objectives.info_nce import info_nce
from deri.recipes import schema

# term → the two embeddings it pulls together, and whether pairs with the same report must not repel each other in it
# (the two views of RME are both of ECGs: different ECGs repel even where their reports agree).
_TERMS: dict[str, tuple[str, str, bool]] = {
    "alignment": ("ecg_aligned", "text_aligned", True),
    "mixed_alignment": ("ecg_mixed", "text_mixed", True),
    "view_contrast": ("ecg_views.0", "ecg_views.1", False),
    "ecg_reconstruction": ("ecg_original", "ecg_decoded", True),
    "text_reconstruction": ("text_original", "text_decoded", True),
}


def pair_terms(
    output: Output,
    config: schema.Objective | None = None,
    report_ids: Tensor | None = None,
    *,
    everywhere: bool = True,
) -> dict[str, Tensor]:
    """The unweighted terms that this model's output allows, by name; scalars over the batch of all processes.

    Args:
        output: of a forward pass over the local batch.
        config: temperature and the rule for duplicates.
        report_ids: (B,) integers, equal for equal reports; needed to leave duplicates out.
        everywhere: gather the batches of all processes; False where one process computes alone.
    """
    collect: Callable[[Tensor], Tensor] = gather if everywhere else _local
    config = config or schema.Objective(duplicates="negative")
    ignore = config.duplicates == "ignore" and report_ids is not None
    groups = collect(report_ids) if ignore and report_ids is not None else None
    terms: dict[str, Tensor] = {}
    for name, (left, right, grouped) in _TERMS.items():
        a, b = _get(output, left), _get(output, right)
        if a is not None and b is not None:
            terms[name] = info_nce(collect(a), collect(b), config.temperature, groups if grouped else None)
    return terms


class PairObjective:
    """Weighted terms for the training loop, which sums what it gets and knows none by name."""

    def __init__(self, config: schema.Objective) -> None:
        self.config = config

    def __call__(
        self, output: Output, report_ids: Tensor | None = None, *, everywhere: bool = True
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``(losses, logged)``: weighted terms to be summed, and all terms unweighted and detached."""
        terms = pair_terms(output, self.config, report_ids, everywhere=everywhere)
        weights = {name: float(getattr(self.config, name)) for name in terms}
        losses = {name: weights[name] * term for name, term in terms.items() if weights[name] > 0}
        return losses, {name: term.detach() for name, term in terms.items()}


def _get(output: Output, path: str) -> Tensor | None:
    name, _, index = path.partition(".")
    value: Tensor | tuple[Tensor, Tensor] | None = getattr(output, name)
    return value[int(index)] if isinstance(value, tuple) else value


def _local(x: Tensor) -> Tensor:
    return x
