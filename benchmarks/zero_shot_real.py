"""Zero-shot on real recordings that a model never saw, beside its bounds. Prints one JSON object.

    python benchmarks/zero_shot_real.py --real DIR [--model deri-sim] [--without ptbxl] [--supervised DIR]

DIR: recordings with an ``index.csv`` of file, source, subject, labels, dx and evaluate (rows to use). Its labels are
used as they are and, beside that, without those that the source's own text contradicts: "incomplete right bundle
branch block" contains the name of the complete block, and must not count as one. Rows: the model; the same network
with random weights (three seeds, mean of their AUROCs); and, with --supervised, a network fine-tuned with labels on
the same simulation by ``deri finetune``, which bounds from above what the simulation can teach this backbone.
Intervals: by patient (deri.evaluation.intervals).
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.evaluation.features import embed_store
from deri.evaluation.options import EvalOptions
from deri.evaluation.result import evaluate
from deri.evaluation.zero_shot import class_weights
from deri.models import EcgTextModel, load_model
from deri.models.build import build_model
from deri.reports import prompts_for
from deri.store import Store, prepare

CLASSES = [
    "AFIB", "AFLT", "SR", "SBRAD", "STACH", "CRBBB", "CLBBB", "IRBBB", "1AVB", "PAC", "PVC", "LVH", "PACE", "LAFB",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--model", default="deri-sim")
    parser.add_argument("--supervised", help="what deri finetune wrote, trained on simulated labels")
    parser.add_argument("--classes", nargs="*", default=CLASSES)
    parser.add_argument("--without", nargs="*", default=[], help="sources to leave out: a model may have seen them")
    parser.add_argument("--min-pos", type=int, default=8)
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    index = pd.read_csv(options.real / "index.csv")
    index = index[index["evaluate"].astype(bool) & ~index["source"].isin(options.without)]
    with tempfile.TemporaryDirectory() as folder:
        store = real_store(options.real, index, Path(folder))
        rows = store.task_rows("labels", "all")
        names, labels = store.labels("labels", rows)
        subjects = store.index["subject_id"].to_numpy()[rows].astype(str)
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
        files = store.index["file"].to_numpy()[rows]
    chosen = [c for c in options.classes if c in names and labels[:, names.index(c)].sum() >= options.min_pos]
    result = {}
    for title, truth in (("as labelled", labels), ("without contradicted labels", mended(labels, names, files, index))):
        columns = [names.index(c) for c in chosen]
        result[title] = {
            "n_pos": {c: int(truth[:, i].sum()) for c, i in zip(chosen, columns, strict=True)},
            "systems": {
                name: table(chosen, truth[:, columns], [scores[:, columns] for scores in runs], subjects, options)
                for name, runs in systems.items()
            },
        }
    about = {"model": options.model, "n": len(rows), "patients": len(set(subjects)), "min_pos": options.min_pos}
    print(json.dumps(about | {"labels": result}, indent=2))


def real_store(real: Path, index: pd.DataFrame, folder: Path) -> Store:
    """The rows of ``index`` as a store; patients of different sources are different."""
    rows = pd.DataFrame(
        {
            "file": index["file"],
            "labels": index["labels"],
            "subject": index["source"] + "/" + index["subject"].astype(str),
        }
    )
    rows.to_csv(folder / "labels.csv", index=False)
    prepare(open_dataset("folder", real, labels=folder / "labels.csv"), folder / "store")
    return Store.open(folder / "store")


def mended(labels: np.ndarray, names: list[str], files: np.ndarray, index: pd.DataFrame) -> np.ndarray:
    """Labels without CRBBB where the source's text has no "complete right …" but within "incomplete right …"."""
    texts = dict(zip(index["file"], index["dx"].fillna("").astype(str), strict=True))
    out = labels.copy()
    if "CRBBB" not in names:
        return out
    for row, file in enumerate(files):
        text = texts[file].lower()
        if "incomplete right bundle" in text and not re.search(r"(?<!in)complete right bundle", text):
            out[row, names.index("CRBBB")] = 0
    return out


def table(
    names: list[str],
    labels: np.ndarray,
    runs: list[np.ndarray],
    subjects: np.ndarray,
    options: argparse.Namespace,
) -> dict[str, object]:
    """Macro and class AUROC with intervals by patient; of several runs the mean, without an interval of the mean."""
    how = EvalOptions(seed=0, draws=options.draws, min_pos=1)
    scored = [evaluate(scores[None], labels, subjects, how, classes=names) for scores in runs]
    single = scored[0] if len(scored) == 1 else None
    return {
        "macro_auroc": float(np.mean([one.means["auroc"] for one in scored])),
        "ci": single.macro_ci if single else None,
        "classes": {
            c: {
                "auroc": float(np.mean([one.classes[c].metrics["auroc"] for one in scored])),
                "ci": single.classes[c].ci if single else None,
            }
            for c in names
        },
    }


def zero_shot_scores(model: EcgTextModel, store: Store, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, classes) cosines with the package's class prompts."""
    return embed_store(model, store, rows) @ class_weights(model, prompts_for("labels", names)).T


def supervised_scores(directory: str, store: Store, rows: np.ndarray, names: list[str]) -> np.ndarray:
    """(n, classes) probabilities; a class that the classifier does not have gets 0 for all."""
    model = load_model(directory)
    if model.head is None:
        raise DeriError(f"{directory} has no head: give what deri finetune or deri probe --save wrote")
    classes = model.head.classes
    valid = store.index["valid_samples"].to_numpy(np.int64)
    out = np.zeros((len(rows), len(names)))
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        content = store.signals(part), store.fs, valid[part], store.lead_mask(part)
        values = expit(model.head.logits(model.embed_signals(*content, normalise=False)))
        for column, name in enumerate(names):
            if name in classes:
                out[start : start + len(part), column] = values[:, classes.index(name)]
    return out


if __name__ == "__main__":
    main()
