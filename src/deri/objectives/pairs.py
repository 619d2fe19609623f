"""The five terms of DERI (and the two of MERL) over the global batch of ECG–report pairs.

Source: DERI, IJCAI 2025, objective; docs/method.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from deri.models.output import Output
from deri.objectives.gather import gather
from deri.objectives.info_nce import info_nce
from deri.objectives.sigmoid import sigmoid_loss
from deri.recipes import schema

MAX_LOG_SCALE = math.log(100.0)
BIAS = -10.0
"""Where the bias of the sigmoid loss starts (Zhai et al. 2023)."""

# term → the two embeddings it pulls together, and which of them is made from the text. The two views of RME are both of
# ECGs: different ECGs repel even where their reports agree.
_TERMS: dict[str, tuple[str, str, Literal["left", "right"] | None]] = {
    "alignment": ("ecg_aligned", "text_aligned", "right"),
    "mixed_alignment": ("ecg_mixed", "text_mixed", "right"),
    "view_contrast": ("ecg_views.0", "ecg_views.1", None),
    "ecg_reconstruction": ("ecg_original", "ecg_decoded", "right"),
    "text_reconstruction": ("text_original", "text_decoded", "left"),
}


def pair_terms(
    output: Output,
    config: schema.Objective | None = None,
    report_ids: Tensor | None = None,
    *,
    findings: Tensor | None = None,
    everywhere: bool = True,
    scales: Mapping[str, Tensor] | None = None,
    biases: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The unweighted terms that this model's output allows, by name; scalars over the batch of all processes.

    Args:
        output: of a forward pass over the local batch.
        config: temperature and the rule for duplicates.
        report_ids: (B,) integers, equal for equal reports; needed to leave duplicates out.
        findings: (B, 2) int64, bits of the findings that the text of a pair names and of all that its report names;
            with them, a text that names nothing beyond another pair's report counts as shared by both.
        everywhere: gather the batches of all processes; False where one process computes alone.
        scales: trained logarithms of 1 / temperature by term, instead of ``config.temperature``.
        biases: trained biases by term, for the sigmoid loss.
    """
    collect: Callable[[Tensor], Tensor] = gather if everywhere else _local
    config = config or schema.Objective(duplicates="negative")
    same = None
    if config.duplicates != "negative":
        same = None if report_ids is None else collect(report_ids)
        if findings is not None:
            # Equal reports that name no known finding entail nothing, and still are equal.
            known = entailed(collect(findings))
            same = known if same is None else known | (same[:, None] == same[None, :])
    same_group: Literal["ignore", "positive"] = "positive" if config.duplicates == "positive" else "ignore"
    terms: dict[str, Tensor] = {}
    for name, (left, right, text) in _TERMS.items():
        a, b = _get(output, left), _get(output, right)
        if a is None or b is None:
            continue
        here = None if text is None else same
        if here is not None and here.dim() == 2 and text == "left":
            here = here.T
        temperature = torch.exp(-scales[name]) if scales else config.temperature
        if config.loss == "sigmoid":
            bias = biases[name] if biases else BIAS
            terms[name] = sigmoid_loss(collect(a), collect(b), temperature, bias, here, same_group=same_group)
        else:
            terms[name] = info_nce(collect(a), collect(b), temperature, here, same_group=same_group)
    return terms


def entailed(findings: Tensor) -> Tensor:
    """(B, B) bool: whether the text of pair j names findings, and none that the report of pair i does not name.

    Args:
        findings: (B, 2) int64 bits: of the text shown, and of the whole report.
    """
    stated, known = findings[:, 0], findings[:, 1]
    return ((stated[None, :] & ~known[:, None]) == 0) & (stated != 0)[None, :]


class PairObjective(nn.Module):
    """Weighted terms for the training loop, which sums what it gets and knows none by name.

    With ``train_temperature`` it has parameters: one ``log_scales`` (logarithm of 1 / temperature) and, for the sigmoid
    loss, one of ``biases`` for each term that has a weight.
    """

    def __init__(self, config: schema.Objective) -> None:
        super().__init__()
        self.config = config
        self.log_scales = nn.ParameterDict()
        self.biases = nn.ParameterDict()
        if config.train_temperature:
            for name in _TERMS:
                trained = float(getattr(config, name)) > 0
                start = torch.tensor(-math.log(config.temperature))
                self.log_scales[name] = nn.Parameter(start, requires_grad=trained)
                if config.loss == "sigmoid":
                    self.biases[name] = nn.Parameter(torch.tensor(BIAS), requires_grad=trained)

    def forward(
        self,
        output: Output,
        report_ids: Tensor | None = None,
        *,
        findings: Tensor | None = None,
        everywhere: bool = True,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``(losses, logged)``: weighted terms to be summed, and all terms unweighted and detached."""
        # A temperature below 0.01 (CLIP's bound) makes half-precision logits overflow and training unstable.
        scales = {name: scale.clamp(max=MAX_LOG_SCALE) for name, scale in self.log_scales.items()}
        terms = pair_terms(
            output,
            self.config,
            report_ids,
            findings=findings,
            everywhere=everywhere,
            scales=scales,
            biases=dict(self.biases.items()),
        )
        weights = {name: float(getattr(self.config, name)) for name in terms}
        losses = {name: weights[name] * term for name, term in terms.items() if weights[name] > 0}
        logged = {name: term.detach() for name, term in terms.items()}
        logged |= {f"temperature_{name}": torch.exp(-scales[name]).detach() for name in losses if name in scales}
        return losses, logged


def _get(output: Output, path: str) -> Tensor | None:
    name, _, index = path.partition(".")
    value: Tensor | tuple[Tensor, Tensor] | None = getattr(output, name)
    return value[int(index)] if isinstance(value, tuple) else value


def _local(x: Tensor) -> Tensor:
    return x
