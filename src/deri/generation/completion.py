"""What a draft leaves out: findings that the ECG model scores high and the draft does not name.

A writer says what is likelier than not, so that rare findings are seldom said. Here each finding has a score of its own
from which it is better added than left out, learnt from the drafts of validation records.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from deri.evaluation.metrics import called_from
from deri.generation.baselines import templates
from deri.reports import clean_report
from deri.reports.labeller import asserted
from deri.reports.language import report_language
from deri.reports.prompts import load_prompts

_NORMAL = "NORM"


def completion_threshold(label: np.ndarray, score: np.ndarray, said: np.ndarray) -> float | None:
    """The score from which adding a finding to the drafts that leave it out gives the highest F1.

    Args:
        label: (n,) whether the report of a record asserts the finding.
        score: (n,) of the record for the finding.
        said: (n,) whether its draft asserts the finding.

    Returns:
        None where the drafts are best as they are.
    """
    rest = ~said
    if not rest.any():
        return None
    thresholds, hits, added = called_from(label[rest], score[rest])
    right, total = int((label & said).sum()), int(label.sum() + said.sum())
    f1 = 2 * (right + hits) / np.maximum(total + added, 1)
    best = int(np.argmax(f1))
    return float(thresholds[best]) if f1[best] > 2 * right / max(total, 1) else None


def fits(finding: str, said: Container[str]) -> bool:
    """Whether a finding can be missing in a draft that asserts ``said``.

    A normal ECG is never missing, and no rhythm where the draft has one.
    """
    rhythms = load_prompts("ptbxl-rhythm")
    has_rhythm = any(rhythm in said for rhythm in rhythms)
    return finding not in said and finding != _NORMAL and not (has_rhythm and finding in rhythms)


def completed(draft: str, findings: Sequence[str], language: str | None = None) -> str:
    """The draft, and behind it a sentence for each of ``findings``.

    A draft of a normal ECG stays as it is: it would contradict itself.

    Args:
        draft: as the writer wrote it.
        findings: codes of the labeller, of what the draft leaves out.
        language: of the sentences, German or English; None: that of the draft.
    """
    if not findings or _NORMAL in asserted(draft):
        return draft
    sentences = templates(language or report_language(draft))
    return clean_report([draft, *(sentence for code, sentence in sentences.items() if code in findings)])
