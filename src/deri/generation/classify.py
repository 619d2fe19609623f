"""Generated reports as a multi-label classifier of a task (the supplement's table of the paper).

``text``: the score of a class is the cosine of the generated report's embedding with the class's prompt, both in the
model's text space. ``labeller``: 1 if the report asserts a finding that belongs to the class, ½ if it holds one
possible, else 0; no model takes part. Thresholds are those of highest F1 on the reports generated for the validation
split.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd

from deri.errors import DeriError
from deri.evaluation.bootstrap import Bootstrap, interval
from deri.evaluation.contributions import patient_numbers
from deri.evaluation.intervals import as_list
from deri.evaluation.metrics import best_thresholds
from deri.evaluation.options import EvalOptions
from deri.evaluation.result import evaluate, provenance, scored_records
from deri.evaluation.zero_shot import class_weights
from deri.generation.agreement import mean_of_known
from deri.generation.efficacy import TextSpace
from deri.generation.findings import embed_texts
from deri.models import EcgTextModel
from deri.reports import clean_report, prompts_for
from deri.reports.labeller import known_findings, label_report
from deri.store import Store

_SCORES = {"present": 1.0, "uncertain": 0.5, "absent": 0.0}
# Findings without a statement in PTB-XL, by the superclass that they belong to.
_BESIDES = {"ptbxl-super": {"MI": {"MI"}}}


def classify_reports(
    store: Store,
    task: str,
    generated: pd.DataFrame,
    generated_val: pd.DataFrame,
    space: TextSpace | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> dict[str, Any]:
    """Score generated reports as a classifier; returns the JSON that ``deri report classify`` writes.

    Args:
        store: has the labels of the task.
        task: one of the store's.
        generated: record_id and generated, the records to score.
        generated_val: the same for records of the same store whose patients are none of those.
        space: the model in whose text space reports and classes are compared; None: the labeller reads the reports.
        seed: of the bootstrap.
        draws: bootstrap samples.

    Raises:
        DeriError: a record that the store does not have or that is there twice, no record with labels of the task, or a
            patient in both files.
    """
    rows, texts = _of_task(store, task, generated, "--generated")
    val_rows, val_texts = _of_task(store, task, generated_val, "--generated-val")
    all_subjects = store.index["subject_id"].to_numpy().astype(str)
    subjects = all_subjects[rows]
    if shared := set(subjects) & set(all_subjects[val_rows]):
        raise DeriError(
            f"--generated-val has {len(shared)} patients of --generated, {min(shared)} is one: thresholds must not be "
            "chosen on patients that are scored; generate the val split"
        )
    names, labels = store.labels(task, rows)
    _, val_labels = store.labels(task, val_rows)
    split = _split_of(store, rows)
    notes = [f"F1 and accuracy: thresholds of highest F1 on the reports of {len(val_rows)} validation records"]
    if missing := len(np.setdiff1d(store.task_rows(task, split), rows)):
        notes.append(f"{missing} records of the split have labels of the task but no generated report: left out")
    if space is None:
        belongs = class_findings(task, names)
        scores, val_scores = (_labeller_scores(some, task, belongs) for some in (texts, val_texts))
        if blank := [name for name, of in belongs.items() if not of]:
            notes.append(f"classes that no finding of the labeller belongs to, never called: {', '.join(blank)}")
    else:
        weights = class_weights(space.model, prompts_for(task, names, space.prompts))
        scores, val_scores = (_text_scores(some, space.model, weights) for some in (texts, val_texts))
    thresholds = best_thresholds(val_labels, val_scores)
    if space is None:
        # A report that does not name a class does not call it, whatever the best F1 would be.
        thresholds = [None if t is None else max(t, _SCORES["uncertain"]) for t in thresholds]
    options = EvalOptions(split=split, seed=seed, draws=draws)
    found = evaluate(scores[None], labels, subjects, options, classes=names, thresholds=[thresholds])
    bootstrap = Bootstrap(patient_numbers(subjects)[0], draws, seed)
    name, model, protocol = (
        (None, None, "generated reports, labeller") if space is None else (space.name, space.model, "generated reports")
    )
    return (
        scored_records(task, name, subjects, options, protocol=protocol)
        | found.to_json()
        | _intervals(labels, scores, thresholds, bootstrap)
        | provenance(model, store)
        | {"notes": [*notes, *found.notes()]}
    )


def class_findings(task: str, classes: Sequence[str]) -> dict[str, set[str]]:
    """The findings of the labeller that belong to each class of a task, by the statements of PTB-XL.

    For the tasks of PTB-XL, and for ``labels`` or others whose classes are codes of statements. A class that no finding
    belongs to has an empty set.
    """
    statements = _statement_classes()
    belongs: dict[str, set[str]] = {name: set() for name in classes}
    plain = {name.strip("_"): name for name in classes}
    for code, finding in known_findings().items():
        for statement in finding.scp or (code,):
            of = statements.get(statement, {}).get(task) if task.startswith("ptbxl-") else statement.strip("_")
            if of is not None and of.strip("_") in plain:
                belongs[plain[of.strip("_")]].add(code)
        for name in _BESIDES.get(task, {}).get(code, ()):
            if name in belongs:
                belongs[name].add(code)
    return belongs


@cache
def _statement_classes() -> dict[str, dict[str, str | None]]:
    from deri.datasets.ptbxl import read_statements

    with resources.as_file(resources.files("deri.datasets").joinpath("data/scp_statements.csv")) as path:
        return read_statements(path)


def _labeller_scores(texts: list[str], task: str, belongs: dict[str, set[str]]) -> np.ndarray:
    """(n, classes): how certainly the reports assert a finding of each class."""
    if not any(belongs.values()):
        raise DeriError(f"--by labeller: no class of {task} is a finding of the labeller; use --by text")
    said = [label_report(text) for text in texts]
    return np.array(
        [
            [max((_SCORES[one[code]] for code in of if code in one), default=0.0) for of in belongs.values()]
            for one in said
        ]
    ).reshape(len(texts), len(belongs))


def _text_scores(texts: list[str], model: EcgTextModel, weights: np.ndarray) -> np.ndarray:
    """(n, classes): cosines of reports and classes. An empty report is less like any class than any text: -1."""
    return np.where(np.array(list(map(bool, texts)))[:, None], embed_texts(model, texts) @ weights.T, -1.0)


def _of_task(store: Store, task: str, table: pd.DataFrame, option: str) -> tuple[np.ndarray, list[str]]:
    """Rows of the store that are part of the task, and their generated reports, cleaned."""
    if "record_id" not in table.columns:
        raise DeriError(f"{option} has no column record_id; use a file that deri report generate --data wrote")
    known = {str(record): row for row, record in enumerate(store.index["record_id"])}
    records = [str(record) for record in table["record_id"]]
    if unknown := [record for record in records if record not in known]:
        raise DeriError(f"{option}: record {unknown[0]} is not in {store.path}; generate the reports of this store")
    if len(set(records)) < len(records):
        raise DeriError(f"{option}: a record is there twice; give the reports of one system")
    text_of = {known[record]: clean_report(text) for record, text in zip(records, table["generated"], strict=True)}
    rows = np.intersect1d(store.task_rows(task), np.array(list(text_of), np.int64))
    if not len(rows):
        raise DeriError(f"{option}: no record has labels of {task} in {store.path}")
    return rows, [text_of[int(row)] for row in rows]


def _split_of(store: Store, rows: np.ndarray) -> str:
    for split in ("test", "val", "train"):
        if not len(np.setdiff1d(rows, store.rows(split))):
            return split
    return "all"


def _intervals(
    labels: np.ndarray, scores: np.ndarray, thresholds: list[float | None], bootstrap: Bootstrap
) -> dict[str, list[float] | None]:
    """95 % intervals of macro F1 and mean accuracy over draws of patients, thresholds fixed."""
    known = [c for c, t in enumerate(thresholds) if t is not None and 0 < labels[:, c].sum() < len(labels)]
    if not known:
        return {"macro_f1_ci": None, "accuracy_ci": None}
    positive = labels[:, known].astype(bool)
    called = scores[:, known] >= np.array([thresholds[c] for c in known], float)
    counted = [positive & called, called, positive, np.ones((len(labels), 1), bool)]
    sums = bootstrap.sums(np.concatenate(counted, axis=1).astype(float))
    hits, calls, there, drawn = np.split(sums, np.arange(1, 4) * len(known), axis=1)
    f1 = np.divide(2 * hits, calls + there, out=np.full(hits.shape, np.nan), where=there > 0)
    wrong = calls + there - 2 * hits
    return {
        "macro_f1_ci": as_list(interval(mean_of_known(f1))),
        "accuracy_ci": as_list(interval((1 - wrong / drawn).mean(axis=1))),
    }
