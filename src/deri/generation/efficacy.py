"""Clinical efficacy as in the paper: do generated and true report fall into the same class of the model's text space?

It is the model's own view of both texts, so it flatters a writer that was trained on that model; the labeller's
findings (:mod:`deri.generation.evaluate`) are the figure that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deri.evaluation.zero_shot import class_weights
from deri.generation.evaluate import Bootstrap, interval, prf
from deri.generation.findings import embed_texts
from deri.models import EcgTextModel
from deri.reports import load_prompt_file, load_prompts
from deri.reports.prompts import LABELS


def text_classes(model: EcgTextModel, texts: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """The class of each text, int64 (n,): that of the prompt with the highest cosine; the first of equal ones."""
    found: np.ndarray = (embed_texts(model, texts) @ weights.T).argmax(axis=1)
    return found


def model_efficacy(
    model: EcgTextModel,
    references: Sequence[str],
    generated: Sequence[str],
    groups: np.ndarray,
    *,
    model_name: str,
    task: str | None = None,
    prompts: str | Path | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Precision, recall and F1 of the classes of generated texts against those of the references, macro averages.

    Averages are over the classes that occur on either side, as scikit-learn has it; a class that was never generated
    has precision 0, one without a reference recall 0. The interval of F1 draws ``groups``.

    Args:
        model: whose text space it is.
        references: n texts, none empty.
        generated: n texts; an empty one has no class, which is never right.
        groups: (n,) subject of each pair, 0 … k - 1.
        model_name: for the result.
        task: whose shipped prompts; all known classes when neither this nor ``prompts`` is given.
        prompts: a prompt file instead.
        draws: bootstrap samples.
        seed: of the bootstrap.
    """
    known = load_prompt_file(prompts) if prompts is not None else load_prompts(task or LABELS)
    # The union of all tasks holds aliases: one class under several codes would be a draw between equals.
    distinct = {tuple(texts): code for code, texts in reversed(known.items())}
    classes = [code for code, texts in known.items() if distinct[tuple(texts)] == code]
    weights = class_weights(model, {code: known[code] for code in classes})
    truth, said = (text_classes(model, texts, weights) for texts in (references, generated))
    said = np.where([bool(text.strip()) for text in generated], said, -1)
    one_hot = np.arange(len(classes))
    left, right = truth[:, None] == one_hot, said[:, None] == one_hot
    present = np.flatnonzero(left.any(axis=0) | right.any(axis=0))
    left, right = left[:, present], right[:, present]
    stacked = np.concatenate([left & right, left, right], axis=1).astype(float)
    precision, recall, f1 = prf(*np.split(stacked.sum(axis=0), 3))
    weighted = Bootstrap(groups, draws, seed)
    ci = None
    if weighted.draws:
        drawn = prf(*np.split(weighted.sums(stacked), 3, axis=1))[2]
        with np.errstate(invalid="ignore"):
            ci = interval(np.nanmean(drawn, axis=1))
    return {
        "model": model_name,
        "prompts": str(prompts) if prompts is not None else task or LABELS,
        "classes_in_all": len(classes),
        "classes": len(present),
        "precision": float(np.nan_to_num(precision).mean()),
        "recall": float(np.nan_to_num(recall).mean()),
        "f1": float(np.nan_to_num(f1).mean()),
        "ci": ci,
        "accuracy": float((truth == said).mean()),
    }
