"""Calibration of a model on recordings that it was not calibrated on. Prints one JSON object.

    python benchmarks/calibration.py --data STORE --split val [--model deri-open] [--figure FILE.png] [--leads I,II]

Of every task of the store that the model is calibrated for and every class with at least --min-pos positives:
positives, AUROC, expected calibration error (15 bins of equal width) of the probabilities at the prevalence of the
calibration, and ``floor``, the mean error of as many recordings whose labels are drawn from these very probabilities:
what a perfect calibration would show on a sample of this size. ``reliability``: of all recordings and classes together.
``--leads``: the recordings as they would be with these leads alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from deri.ecg.leads import LEADS
from deri.evaluation.calibration import calibrate, expected_calibration_error
from deri.evaluation.features import Features, unit
from deri.evaluation.metrics import auroc
from deri.evaluation.zero_shot import class_weights
from deri.models import load_model
from deri.models.calibration import TaskCalibration, log_odds
from deri.store import Store

DRAWS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", default="deri-open")
    parser.add_argument("--min-pos", type=int, default=20)
    parser.add_argument("--leads", help="I,V2 … [default: all]")
    parser.add_argument("--figure", type=Path, help="reliability curves, a panel a task")
    options = parser.parse_args()
    model = load_model(options.model)
    features = Features(model, Store.open(options.data))
    leads = LEADS if options.leads is None else tuple(options.leads.split(","))
    known = {} if model.calibration is None else model.calibration.tasks
    tasks = {task: known[task] for task in features.store.tasks if task in known}
    found = {task: score(features, task, one, options.split, options.min_pos, leads) for task, one in tasks.items()}
    if options.figure is not None:
        draw(found, options.figure)
    about = {"model": options.model, "split": options.split, "min_pos": options.min_pos, "leads": leads}
    print(json.dumps({**about, "tasks": found}))


def embed(features: Features, rows: np.ndarray, leads: Sequence[str]) -> np.ndarray:
    """Unit embeddings (n, d) of rows of a store, as if the recordings had only these leads."""
    if set(leads) == set(LEADS):
        return unit(features.rows(rows))
    store, model, keep = features.store, features.model, np.isin(LEADS, leads)
    parts = [rows[i : i + 32] for i in range(0, len(rows), 32)]
    valid = store.column("valid_samples")
    return np.concatenate(
        [
            model.embed_signals(
                store.signals(part) * keep[:, None], store.fs, valid[part], store.lead_mask(part) & keep
            )
            for part in parts
        ]
    )


def score(
    features: Features, task: str, known: TaskCalibration, split: str, min_pos: int, leads: Sequence[str]
) -> dict[str, Any]:
    """The calibration of the classes of one task."""
    rows = features.store.task_rows(task, split)
    names, labels = features.store.labels(task, rows)
    kept = [i for i, name in enumerate(names) if labels[:, i].sum() >= min_pos and name in known.classes]
    maps = {names[i]: known.classes[names[i]] for i in kept}
    weights = class_weights(features.model, {name: list(one.prompts) for name, one in maps.items()})
    scores = (embed(features, rows, leads) @ weights.T).astype(np.float64)
    ratios = np.stack([one.log_ratio(score) for one, score in zip(maps.values(), scores.T, strict=True)], axis=1)
    probabilities = expit(ratios + log_odds(np.array([one.prevalence for one in maps.values()])))
    labels = labels[:, kept]
    rng = np.random.default_rng(0)
    classes = {}
    for name, label, probability in zip(maps, labels.T, probabilities.T, strict=True):
        drawn = rng.random((DRAWS, len(probability))) < probability
        classes[name] = {
            "n_pos": int(label.sum()),
            "auroc": auroc(label, probability),
            "prevalence": {"calibration": maps[name].prevalence, "here": float(label.mean())},
            "mean_probability": float(probability.mean()),
            "ece": expected_calibration_error(label, probability),
            "floor": float(np.mean([expected_calibration_error(one, probability) or 0.0 for one in drawn])),
        }
    return {"n": len(rows), "classes": classes} | calibrate(labels, probabilities)


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Reliability curves of the tasks, all their classes together; the size of a point is that of its bin."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(found), 3.3), layout="constrained")
    for i, (task, one) in enumerate(found.items()):
        rows = [row for row in one["reliability"] if row["n"]]
        axes = figure.add_subplot(1, len(found), i + 1)
        x, y = ([row[name] for row in rows] for name in ("predicted", "observed"))
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        axes.plot(x, y, color="tab:blue", linewidth=1)
        axes.scatter(x, y, s=[3 + 12 * np.log10(row["n"]) for row in rows], color="tab:blue")
        axes.set(title=f"{task}\n{len(one['classes'])} findings, ECE {one['macro_ece']:.3f}", aspect="equal")
        axes.set(xlabel="mean probability", xlim=(0, 1), ylim=(0, 1))
        if i == 0:
            axes.set_ylabel("share with the finding")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
