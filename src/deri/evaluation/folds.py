"""Linear probing by cross-validation over patients, for data sets too small for a fixed test split."""

from __future__ import annotations

from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.embed import Features, Show, encoder_digest
from deri.evaluation.metrics import MIN_POS, best_threshold, f1_and_accuracy, score_classes
from deri.evaluation.probe import DEFAULT_SEED, Protocol, Split, fit_probe
from deri.evaluation.result import macro_notes, result_json
from deri.models import EcgTextModel
from deri.store import Store


def patient_folds(subjects: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold 0 … folds − 1 of each record, (n,): patients are shuffled and dealt out in turn, never divided."""
    patients, inverse = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    if len(patients) < folds:
        raise DeriError(f"--folds {folds}: the task has only {len(patients)} patients; use fewer folds")
    of_patient = np.empty(len(patients), np.int64)
    of_patient[np.random.default_rng(seed).permutation(len(patients))] = np.arange(len(patients)) % folds
    return of_patient[inverse]


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
    the strength (or epoch) and thresholds, the others train. Figures are over the pooled out-of-fold probabilities,
    with intervals by patient; they do not include the variance of training itself. Arguments as for ``probe_task``.
    """
    if folds < 3:
        raise DeriError(f"--folds {folds}: at least 3 are needed (train, choose, score)")
    rows = store.task_rows(task, "all")
    features = features or Features(model, store)
    x = features.rows(rows, show)
    classes, labels = store.labels(task, rows)
    subjects = store.index["subject_id"].to_numpy().astype(str)[rows]
    fold = patient_folds(subjects, folds, seed)
    probability = np.empty(labels.shape)
    called = np.zeros(labels.shape)
    judged = np.zeros(labels.shape, bool)
    for k in range(folds):
        test, val = fold == k, fold == (k + 1) % folds
        train = ~(test | val)
        parts = [Split(x[part], labels[part], subjects[part]) for part in (train, val, test)]
        probe = fit_probe(*parts, protocol=protocol, seed=seed)
        probability[test] = probe.test
        for c in range(len(classes)):
            threshold = best_threshold(labels[val, c], probe.val[:, c])
            if threshold is not None:
                called[test, c] = probe.test[:, c] >= threshold
                judged[test, c] = True
    scores = score_classes(
        classes, labels, probability, subjects, thresholds=[None] * len(classes), draws=draws, seed=seed,
        min_pos=min_pos, probabilities=True,
    )  # fmt: skip
    content = result_json(scores)
    f1s, accuracies = [], []
    for c, name in enumerate(classes):
        # A class without a positive in some choosing fold has no threshold there, so no F1 over all records.
        f1, accuracy = f1_and_accuracy(labels[:, c], called[:, c], 0.5) if judged[:, c].all() else (None, None)
        content["classes"][name] |= {"f1": f1, "accuracy": accuracy}
        f1s.append(f1)
        accuracies.append(accuracy)
    content["macro_f1"] = _mean(f1s)
    content["accuracy"] = _mean(accuracies)
    notes = [
        f"{folds}-fold cross-validation by patient; figures over pooled out-of-fold probabilities",
        "F1 and accuracy: thresholds of highest F1 on each fold's choosing fold",
        *macro_notes(scores),
    ]
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
        "store": {"path": str(store.path), "dataset": store.meta["dataset"], "fingerprint": store.fingerprint},
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
