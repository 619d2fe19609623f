"""Of several drafts of one report the one to keep: minimum Bayes risk (Kumar and Byrne, NAACL 2004).

A draft that was drawn stands for the reports that the writer holds possible. The one that agrees most with all of them
in words and in findings is expected to agree most with the true one; the likeliest text is often a short or
common one instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from deri.generation.metrics import sentence_bleu
from deri.reports.labeller import asserted


def agreement(one: str, other: str) -> float:
    """BLEU-4 of ``other`` against ``one`` plus the F1 of its findings, 0 … 2; two texts without any agree in these."""
    first, second = asserted(one), asserted(other)
    found = len(first) + len(second)
    f1 = 2 * len(first & second) / found if found else 1.0
    return sentence_bleu(one, other)[3] + f1


def most_agreed(drafts: Sequence[str]) -> int:
    """The position of the draft with the highest mean agreement with all drafts; the first of equals."""
    counts = Counter(drafts)
    best = max(counts, key=lambda text: sum(n * agreement(other, text) for other, n in counts.items()))
    return list(drafts).index(best)
