"""Whether flags tell: how often flagged and other assertions of generated reports are in the true report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deri.reports.labeller import asserted


def flag_scores(references: Sequence[str], generated: Sequence[str], flags: Sequence[Any]) -> dict[str, Any]:
    """Precision of flagged and of unflagged assertions against the references that there are; None without any.

    Args:
        references: true reports; pairs with an empty one are left out.
        generated: the reports.
        flags: per report the flagged findings, each a mapping with the key ``finding``.
    """
    right = {True: 0, False: 0}
    total = {True: 0, False: 0}
    for reference, text, found in zip(references, generated, flags, strict=True):
        if not reference.strip():
            continue
        marked = {item["finding"] for item in (found if found is not None else ())}
        truth = asserted(reference)
        for code in asserted(text):
            total[code in marked] += 1
            right[code in marked] += code in truth
    return {
        "flagged": total[True],
        "unflagged": total[False],
        "precision_flagged": right[True] / total[True] if total[True] else None,
        "precision_unflagged": right[False] / total[False] if total[False] else None,
    }
