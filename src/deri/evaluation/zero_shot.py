"""Zero-shot classification: the score of a class is the cosine between a recording and the class's prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.embed import Features
from deri.evaluation.metrics import MIN_POS, best_threshold, score_classes
from deri.evaluation.result import macro_notes, result_json
from deri.models import EcgTextModel
from deri.reports import prompts_for
from deri.store import Store

Protocol = Literal["corrected", "published"]


def class_weights(
    model: EcgTextModel, prompts: dict[str, list[str]], *, protocol: Protocol = "corrected"
) -> np.ndarray:
    """One unit vector per class: (classes, d) float32.

    ``corrected``: the mean over a class's prompts of their unit embeddings, mixed as the model's recipe says.
    ``published``: the first prompt alone, un-mixed.
    """
    if protocol == "published":
        first = [texts[0] for texts in prompts.values()]
        return _unit(_aligned(model, first))
    flat = [text for texts in prompts.values() for text in texts]
    embedded = model.encode_text(flat)
    bounds = np.cumsum([0, *(len(texts) for texts in prompts.values())])
    means = [embedded[a:b].mean(axis=0) for a, b in itertools.pairwise(bounds)]
    return _unit(np.stack(means))


def zero_shot(ecg: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores (n, classes): cosines of unit embeddings (n, d) and class weights (classes, d)."""
    return ecg @ weights.T


def zero_shot_task(
    model: EcgTextModel,
    store: Store,
    task: str,
    *,
    model_name: str,
    split: str = "test",
    protocol: Protocol = "corrected",
    prompts: str | Path | None = None,
    seed: int = 0,
    draws: int = 1000,
    min_pos: int = MIN_POS,
    features: Features | None = None,
    show: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a task of a store; returns the JSON result that ``deri zeroshot`` writes.

    With ``corrected``, the thresholds of F1 and accuracy come from the validation split; where that is part of what is
    scored, or has no positives of a class, there is no threshold and no F1. With ``published`` they are chosen on the
    scored records themselves, which flatters F1. ``features`` keeps embeddings between tasks of one model and store.
    """
    features = features or Features(model, store)
    rows = store.task_rows(task, split)
    if not len(rows):
        raise DeriError(f"task {task}: split {split} of {store.path} has no records; see deri info {store.path}")
    names, labels = store.labels(task, rows)
    texts = prompts_for(task, names, prompts)
    weights = class_weights(model, texts, protocol=protocol)
    scores = zero_shot(_unit(features.rows(rows, show)), weights)
    notes: list[str] = []
    thresholds: list[float | None]
    if protocol == "published":
        thresholds = [best_threshold(labels[:, c], scores[:, c]) for c in range(len(names))]
        notes.append("F1 and accuracy: thresholds chosen on the scored records (published protocol)")
    else:
        thresholds = _validation_thresholds(features, task, split, weights, notes)
    subjects = store.index["subject_id"].to_numpy()[rows]
    result = score_classes(
        names, labels, scores, subjects, thresholds=thresholds, draws=draws, seed=seed, min_pos=min_pos
    )
    notes += macro_notes(result)
    about = {
        "task": task,
        "model": model_name,
        "split": split,
        "n": len(rows),
        "n_patients": len(np.unique(subjects.astype(str))),
        "protocol": protocol,
        "seed": seed,
    }
    made_by = {
        "deri_version": __version__,
        "recipe": model.recipe_name,
        "store": store.provenance,
        "prompts": {"file": str(prompts) if prompts else None, "texts": texts},
        "notes": notes,
    }
    return about | result_json(result) | made_by


def _validation_thresholds(
    features: Features, task: str, split: str, weights: np.ndarray, notes: list[str]
) -> list[float | None]:
    store = features.store
    rows = store.task_rows(task, "val")
    if split in ("val", "all") or not len(rows):
        why = f"split {split} contains the validation records" if len(rows) else "the store has no validation records"
        notes.append(f"no F1 or accuracy: {why}, so no threshold can be chosen on data that is not scored")
        return [None] * len(weights)
    _, labels = store.labels(task, rows)
    scores = zero_shot(_unit(features.rows(rows)), weights)
    thresholds = [best_threshold(labels[:, c], scores[:, c]) for c in range(len(weights))]
    notes.append(f"F1 and accuracy: thresholds of highest F1 on the {len(rows)} validation records")
    return thresholds


def _aligned(model: EcgTextModel, texts: list[str]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        model.eval()
        ids, mask = model.text_encoder.tokenize(texts)
        features = model.text_encoder(ids.to(model.device), mask.to(model.device))
        return model.text_aligned(features).float().cpu().numpy()


def _unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
