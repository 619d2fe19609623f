"""Linear probing by cross-validation over patients, for data sets too small for a fixed test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.cross_validation import log_likelihood_ratio, task_parts
from deri.evaluation.embed import Features, Show, encoder_digest
from deri.evaluation.metrics import MIN_POS, best_threshold, f1_and_accuracy, score_classes
from deri.evaluation.probe import DEFAULT_SEED, Protocol, Split, TaskData, fit_probe
from deri.evaluation.result import macro_notes, result_json, some
from deri.models import EcgTextModel
from deri.store import Store


def probe_folds(
    model: EcgTextModel,
    store: Store,
    task: str,
    *,
    model_name: str,
    folds: int = 5,
    protocol: Protocol = "corrected",
    seed: int = DEFAULT_SEED,
    draws: int = 1000,
    min_pos: int = MIN_POS,
    features: Features | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Probe a model by ``folds``-fold cross-validation over all records of a task, whatever their split.

    Each record is scored by a probe that saw none of its patient's records: one fold is scored, the next one chooses
    the strength (or epoch) and thresholds, the others train. The folds' scores are pooled as log
    likelihood ratios; a class that some fold had no positives to learn from is null. Intervals are by patient and do
    not include the variance of training itself. Arguments as for ``probe_task``.
    """
    if folds < 3:
        raise DeriError(f"--folds {folds}: at least 3 are needed (train, choose, score)")
    rows = store.task_rows(task, "all")
    features = features or Features(model, store)
    classes, labels = store.labels(task, rows)
    subjects = store.index["subject_id"].to_numpy().astype(str)[rows]
    whole = Split(features.rows(rows, show), labels, subjects)
    nothing = Split(whole.features[:0], labels[:0], subjects[:0])
    evidence = np.empty(labels.shape)
    called = np.zeros(labels.shape)
    judged = np.zeros(labels.shape, bool)
    learned = np.ones(len(classes), bool)
    for part in task_parts(TaskData(classes, nothing, nothing, whole), folds, seed):
        probe = fit_probe(part.train, part.val, part.test, protocol=protocol, seed=seed)
        evidence[part.place] = log_likelihood_ratio(probe.test, part.train.labels)
        learned &= part.train.labels.any(axis=0)
        for c in range(len(classes)):
            threshold = best_threshold(part.val.labels[:, c], probe.val[:, c])
            if threshold is not None:
                called[part.place, c] = probe.test[:, c] >= threshold
                judged[part.place, c] = True
    # A class without a positive in some training part was not learned there: its scores mean nothing.
    known = [name for name, has in zip(classes, learned, strict=True) if has]
    scores = score_classes(
        known, labels[:, learned], evidence[:, learned], subjects, thresholds=[None] * len(known), draws=draws,
        seed=seed, min_pos=min_pos,
    )  # fmt: skip
    content = result_json(scores)
    keys: dict[str, Any] = next(iter(content["classes"].values()), {})
    unlearned = {
        name: dict.fromkeys(keys) | {"n_pos": int(labels[:, c].sum())}
        for c, name in enumerate(classes)
        if not learned[c]
    }
    content["classes"] = {name: (content["classes"] | unlearned)[name] for name in classes}
    content["n_classes"] = len(classes)
    f1s, accuracies = [], []
    for c, name in enumerate(classes):
        # A class without a positive in some choosing fold has no threshold there, so no F1 over all records.
        f1, accuracy = (
            f1_and_accuracy(labels[:, c], called[:, c], 0.5) if judged[:, c].all() and learned[c] else (None, None)
        )
        content["classes"][name] |= {"f1": f1, "accuracy": accuracy}
        f1s.append(f1)
        accuracies.append(accuracy)
    content["macro_f1"] = _mean(f1s)
    content["accuracy"] = _mean(accuracies)
    notes = [
        f"{folds}-fold cross-validation by patient; folds are pooled as log likelihood ratios",
        "F1 and accuracy: thresholds of highest F1 on each fold's choosing fold",
        *macro_notes(scores),
    ]
    if unlearned:
        notes.append(f"no AUROC, left out of the mean (no positives to train on in some fold): {some(list(unlearned))}")
    about = {
        "task": task,
        "model": model_name,
        "split": f"{folds} folds",
        "n": len(rows),
        "n_patients": len(np.unique(subjects)),
        "protocol": protocol,
        "folds": folds,
        "seed": seed,
    }
    made_by = {
        "deri_version": __version__,
        "recipe": model.recipe_name,
        "store": store.provenance,
        "encoder": {
            "mode": "eval",
            "features": "inference embedding, not normalised",
            "weights_sha256": encoder_digest(model),
        },
        "notes": notes,
    }
    return about | content | made_by


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
