"""Zero-shot classification: the score of a class is the cosine between a recording and the class's prompt."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from deri.errors import DeriError
from deri.evaluation.features import Features, unit
from deri.evaluation.metrics import best_thresholds
from deri.evaluation.options import EvalOptions, Protocol
from deri.evaluation.result import evaluate, provenance, scored_records
from deri.models import EcgTextModel
from deri.reports import prompts_for


def class_weights(
    model: EcgTextModel, prompts: dict[str, list[str]], *, protocol: Protocol = "corrected"
) -> np.ndarray:
    """One unit vector per class: (classes, d) float32.

    ``corrected``: the mean over a class's prompts of their unit embeddings, mixed as the model's recipe says.
    ``published``: the first prompt alone, un-mixed.
    """
    if protocol == "published":
        return unit(_aligned(model, [texts[0] for texts in prompts.values()]))
    embedded = model.encode_text([text for texts in prompts.values() for text in texts])
    bounds = np.cumsum([0, *(len(texts) for texts in prompts.values())])
    return unit(np.stack([embedded[a:b].mean(axis=0) for a, b in itertools.pairwise(bounds)]))


def zero_shot_scores(features: Features, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores (n, classes) of rows of a store: cosines of their embeddings and class weights (classes, d)."""
    return unit(features.rows(rows)) @ weights.T


def zero_shot_task(
    features: Features,
    task: str,
    options: EvalOptions | None = None,
    *,
    model_name: str | None,
    prompts: str | Path | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a task of a store; returns the JSON result that ``deri zeroshot`` writes.

    With ``corrected``, the thresholds of F1 and accuracy come from the validation split; where that is part of what is
    scored, or has no positives of a class, there is no threshold and no F1. With ``published`` they are chosen on the
    scored records themselves, which flatters F1.

    Args:
        features: of the model and the store.
        task: its name.
        options: ``split``, ``protocol``, and those of intervals are read.
        model_name: for the result.
        prompts: a file of class texts instead of the shipped ones.

    Raises:
        DeriError: no such task, no records in the split, or a class without a text.
    """
    return score_zero_shot(features, task, options or EvalOptions(seed=0), model_name=model_name, prompts=prompts)[0]


def score_zero_shot(
    features: Features,
    task: str,
    options: EvalOptions,
    *,
    model_name: str | None,
    prompts: str | Path | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """The result of :func:`zero_shot_task`, and the scores (n, classes) that it is of."""
    store = features.store
    rows, val = (store.task_rows(task, split) for split in (options.split, "val"))
    if not len(rows):
        raise DeriError(
            f"task {task}: split {options.split} of {store.path} has no records; see deri info {store.path}"
        )
    names, labels = store.labels(task, rows)
    texts = prompts_for(task, names, prompts)
    weights = class_weights(features.model, texts, protocol=options.protocol)
    scores = zero_shot_scores(features, rows, weights)
    thresholds: list[float | None] = [None] * len(names)
    if options.protocol == "published":
        thresholds = best_thresholds(labels, scores)
        note = "F1 and accuracy: thresholds chosen on the scored records (published protocol)"
    elif options.split in ("val", "all") or not len(val):
        why = (
            f"split {options.split} contains the validation records"
            if len(val)
            else "the store has no validation records"
        )
        note = f"no F1 or accuracy: {why}, so no threshold can be chosen on data that is not scored"
    else:
        thresholds = best_thresholds(store.labels(task, val)[1], zero_shot_scores(features, val, weights))
        note = f"F1 and accuracy: thresholds of highest F1 on the {len(val)} validation records"
    subjects = store.index["subject_id"].to_numpy()[rows]
    result = evaluate(scores[None], labels, subjects, options, classes=names, thresholds=[thresholds])
    head = scored_records(task, model_name, subjects, options)
    return (
        head
        | result.to_json()
        | provenance(features.model, store)
        | {
            "prompts": {"file": str(prompts) if prompts else None, "texts": texts},
            "notes": [note, *result.notes()],
        }
    ), scores


def _aligned(model: EcgTextModel, texts: list[str]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        model.eval()
        return model.text_aligned(model.text_encoder.read(texts)).float().cpu().numpy()
