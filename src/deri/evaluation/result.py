"""The metric part of a result file, and what has to be said about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from deri.evaluation.metrics import Scores


def result_json(scores: Scores) -> dict[str, Any]:
    """The metric part of a result file; docs/evaluation.md lists its keys."""
    reliable = [c for c in scores.classes.values() if c.auroc is not None and not c.few_positives]
    content: dict[str, Any] = {
        "macro_auroc": {"value": scores.macro_auroc, "ci": scores.macro_ci and list(scores.macro_ci)},
        "macro_auroc_reliable": {
            "value": scores.reliable_auroc,
            "ci": scores.reliable_ci and list(scores.reliable_ci),
            "min_pos": scores.min_pos,
            "n_classes": len(reliable),
        },
        "macro_auprc": scores.macro_auprc,
        "macro_f1": scores.macro_f1,
        "accuracy": scores.accuracy,
        "n_classes": len(scores.classes),
        "n_classes_scored": sum(c.auroc is not None for c in scores.classes.values()),
        "classes": {
            name: {
                "n_pos": c.n_pos,
                "few_positives": c.few_positives,
                "auroc": c.auroc,
                "ci": c.ci and list(c.ci),
                "auprc": c.auprc,
                "f1": c.f1,
                "accuracy": c.accuracy,
                "threshold": c.threshold,
                "ece": c.ece,
            }
            for name, c in scores.classes.items()
        },
    }
    calibration = scores.calibration
    content["calibration"] = calibration and {
        "bins": calibration.bins,
        "macro_ece": calibration.macro_ece,
        "pooled_ece": calibration.pooled_ece,
        "reliability": [asdict(row) for row in calibration.reliability],
    }
    return content


def macro_notes(scores: Scores) -> list[str]:
    """Which classes the averages leave out, and which have few positives."""
    notes = []
    undefined = [name for name, c in scores.classes.items() if c.auroc is None]
    if undefined:
        notes.append(f"no AUROC, left out of the mean (no positives or no negatives): {', '.join(undefined)}")
    few = [name for name, c in scores.classes.items() if c.few_positives and c.auroc is not None]
    if few:
        notes.append(
            f"fewer than {scores.min_pos} positives, so in macro_auroc but not in macro_auroc_reliable: "
            f"{len(few)} classes: {some(few)}"
        )
    return notes


def some(names: list[str], most: int = 6) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
