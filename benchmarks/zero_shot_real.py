"""Zero-shot on real recordings of a model that never saw one, beside its bounds. Prints one JSON object.

    python benchmarks/zero_shot_real.py --store STORE [--model deri-sim] [--supervised DIR] [--min-pos 8]

STORE: a prepared folder with the task ``labels``. Rows: the model; the same network with random weights (three seeds,
mean of their AUROCs); and, with --supervised, a network fine-tuned with labels on the same simulation by
``deri finetune``, which bounds from above what the simulation can teach this backbone. Intervals: bootstrap by patient.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from deri.evaluation.ablation import Target, compare_rows
from deri.evaluation.classifier import load_classifier
from deri.evaluation.metrics import score_classes
from deri.evaluation.zero_shot import class_weights, zero_shot
from deri.models import EcgTextModel, load_model
from deri.models.build import build_model
from deri.reports import prompts_for
from deri.store import Store

CLASSES = [
    "AFIB", "AFLT", "SR", "SBRAD", "STACH", "CRBBB", "CLBBB", "IRBBB", "1AVB", "PAC", "PVC", "LVH", "PACE", "LAFB",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", default="deri-sim")
    parser.add_argument("--supervised", help="what deri finetune wrote, trained on simulated labels")
    parser.add_argument("--classes", nargs="*", default=CLASSES)
    parser.add_argument("--min-pos", type=int, default=8)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    store = Store.open(options.store)
    rows = store.task_rows("labels", "all")
    names, labels = store.labels("labels", rows)
    subjects = store.index["subject_id"].to_numpy()[rows].astype(str)
    chosen = [c for c in options.classes if c in names and labels[:, names.index(c)].sum() >= options.min_pos]
    columns = [names.index(c) for c in chosen]
    model = load_model(options.model)
    systems = {
        "model": [zero_shot_scores(model, store, rows, names)],
        "random": [
            zero_shot_scores(build_model(model.config, seed=s, text_encoder=model.text_encoder), store, rows, names)
            for s in (1, 2, 3)
        ],
    }
    if options.supervised:
        systems["supervised"] = [supervised_scores(options.supervised, store, rows, names)]
    result = {}
    for name, runs in systems.items():
        macro, classes = [], []
        for scores in runs:
            scored = score_classes(
                chosen, labels[:, columns], scores[:, columns], subjects, thresholds=[None] * len(chosen),
                draws=options.draws, min_pos=options.min_pos,
            )  # fmt: skip
            macro.append((scored.macro_auroc, scored.macro_ci))
            classes.append({c: (s.auroc, s.ci) for c, s in scored.classes.items()})
        result[name] = {
            "macro_auroc": float(np.mean([value for value, _ in macro])),
            "ci": macro[0][1] if len(macro) == 1 else None,
            "classes": {
                c: {"auroc": float(np.mean([one[c][0] for one in classes])), "ci": classes[0][c][1]} for c in chosen
            },
        }
    paired = compare_rows(
        store,
        Target(store=options.store, task="labels", split="all", classes=tuple(chosen), min_pos=options.min_pos),
        {"model": systems["model"] * 3, "random": systems["random"]},
        "random",
        options.draws,
    )
    print(
        json.dumps(
            {
                "store": store.provenance,
                "model": options.model,
                "n": len(rows),
                "patients": len(set(subjects)),
                "n_pos": {c: int(labels[:, i].sum()) for c, i in zip(chosen, columns, strict=True)},
                "systems": result,
                "model_minus_random": paired["rows"]["model"]["difference"],
            },
            indent=2,
        )
    )


def zero_shot_scores(model: EcgTextModel, store: Store, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, classes) cosines with the package's class prompts."""
    from deri.evaluation.embed import embed_store

    return zero_shot(embed_store(model, store, rows), class_weights(model, prompts_for("labels", names)))


def supervised_scores(directory: str, store: Store, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, classes) probabilities; a class that the classifier does not have gets 0 for all."""
    classifier = load_classifier(directory)
    valid = store.index["valid_samples"].to_numpy(np.int64)
    out = np.zeros((len(rows), len(names)))
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        values = classifier.probabilities(store.signals(part), store.fs, valid[part])
        for column, name in enumerate(names):
            if name in classifier.classes:
                out[start : start + len(part), column] = values[:, classifier.classes.index(name)]
    return out


if __name__ == "__main__":
    main()
