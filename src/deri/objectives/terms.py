"""The terms of the objective: the five of DERI (and the two of MERL), measurements, and those of other packages.

Source: DERI, IJCAI 2025, objective; docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from deri.models.output import Output
from deri.objectives.gather import gather
from deri.objectives.info_nce import info_nce
from deri.recipes import schema
from deri.registry import Registry


def itself(tensor: Tensor) -> Tensor:
    """What one process alone gathers."""
    return tensor


@dataclass(frozen=True)
class PairBatch:
    """What a term may use besides the output of the local batch of B pairs.

    Attributes:
        gather: makes the global batch of a (B, …) tensor with exact gradients; every process must compute the same
            function of the result. By default all have equal B; :func:`itself` is for a process that computes alone.
        same: which pairs of the global batch share a text, for :func:`deri.objectives.info_nce`: one number per pair,
            or a matrix that says whether ECG i goes with text j; None where that plays no part.
        report_ids: (B,) integers, equal for equal reports.
        findings: (B, 2, words) int64, bits of the findings and classes that the text and the whole report name.
        measurements: (B, m) what is measured in the ECGs, standardised; NaN where it cannot be.
    """

    gather: Callable[[Tensor], Tensor] = gather
    same: Tensor | None = None
    report_ids: Tensor | None = None
    findings: Tensor | None = None
    measurements: Tensor | None = None


Term = Callable[[Output, PairBatch, schema.Objective], Tensor | None]
"""Scalar over the batch of all processes; None where the model's output lacks what the term needs."""

SHIPPED = (
    "alignment", "mixed_alignment", "view_contrast", "ecg_reconstruction", "text_reconstruction", "measurements",
)  # fmt: skip
"""The terms of this package; each has its weight under its own name in a recipe."""

TERMS: Registry[Term] = Registry(
    "objective term", "deri.terms", {name: f"deri.objectives.terms:{name}" for name in SHIPPED}
)
"""Terms by name. The weight of one from another package is ``objective.terms.NAME`` of a recipe."""


def alignment(output: Output, batch: PairBatch, config: schema.Objective) -> Tensor | None:
    """Aligned ECG against aligned text."""
    return _contrast(output.ecg_aligned, output.text_aligned, batch, config)


def mixed_alignment(output: Output, batch: PairBatch, config: schema.Objective) -> Tensor | None:
    """Mixed ECG against mixed text."""
    return _contrast(output.ecg_mixed, output.text_mixed, batch, config)


def view_contrast(output: Output, batch: PairBatch, config: schema.Objective) -> Tensor | None:
    """The two views of RME. Both are of ECGs: different ECGs repel even where their reports agree."""
    return _contrast(*output.ecg_views, batch, config, text=None)


def ecg_reconstruction(output: Output, batch: PairBatch, config: schema.Objective) -> Tensor | None:
    """Original ECG against the ECG that is decoded from the text."""
    return _contrast(output.ecg_original, output.ecg_decoded, batch, config)


def text_reconstruction(output: Output, batch: PairBatch, config: schema.Objective) -> Tensor | None:
    """Original text against the text that is decoded from the ECG."""
    return _contrast(output.text_original, output.text_decoded, batch, config, text="left")


def measurements(output: Output, batch: PairBatch, config: schema.Objective) -> Tensor | None:
    """Intervals and amplitudes read from the embedding against those measured: mean smooth L1 over what is known."""
    if output.measured is None or batch.measurements is None:
        return None
    read, true = batch.gather(output.measured.float()), batch.gather(batch.measurements)
    known = true.isfinite()
    error = F.smooth_l1_loss(read, true.nan_to_num(), reduction="none")
    return (error * known).sum() / known.sum().clamp_min(1)


def _contrast(
    left: Tensor | None,
    right: Tensor | None,
    batch: PairBatch,
    config: schema.Objective,
    text: Literal["left", "right"] | None = "right",
) -> Tensor | None:
    """InfoNCE between two embeddings of the pairs; ``text``: which of them is made from the text."""
    if left is None or right is None:
        return None
    same = batch.same if text else None
    if same is not None and same.dim() == 2 and text == "left":
        same = same.T
    rule: Literal["positive", "ignore"] = "positive" if config.duplicates == "positive" else "ignore"
    return info_nce(batch.gather(left), batch.gather(right), config.temperature, same, same_group=rule)
