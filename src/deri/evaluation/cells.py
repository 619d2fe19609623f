"""The cells of a benchmark: one system, one task, one way of scoring; computed once and kept as a file.

A cell is ``cells/WHAT-KEY.json`` with the test scores beside it in ``cells/WHAT-KEY.npz``. KEY is a digest of all that
decides the numbers (weights, store, task, protocol, seeds, versions), so that a benchmark that is run again computes
what is new and nothing else. Features are kept under ``embeddings/`` in the same way.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deri._version import __version__
from deri.evaluation import classical
from deri.evaluation.cross_validation import log_likelihood_ratio, task_parts
from deri.evaluation.embed import Show, encoder_digest
from deri.evaluation.metrics import best_threshold, score_runs
from deri.evaluation.probe import Probe, Split, TaskData, fit_probe, sample_training
from deri.evaluation.result import macro_notes, result_json, some
from deri.evaluation.systems import Options, System, Task
from deri.evaluation.zero_shot import class_weights, zero_shot
from deri.files import atomic_path, write_json
from deri.reports import prompts_for
from deri.store import Store

VERSION = 1
"""Of the cells' content; part of their keys."""

_PART = 2048  # recordings per file of features: what a killed run loses at most


class FeatureCache:
    """Features of a system on a store: read from files where they are, computed and kept where not."""

    def __init__(self, folder: Path, system: System, store: Store, show: Show | None = None) -> None:
        self.system, self.store, self._show = system, store, show
        key = digest_of({"system": system.digest, "store": store.fingerprint, "deri": __version__, "version": VERSION})
        self._folder = folder / f"{system.kind}-{key}"
        self._parts: dict[int, np.ndarray] = {}

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Features (n, d) float32 of ``rows``."""
        # Whole parts, so that two tasks of a store share their files whatever records they have.
        places = np.unique(rows // _PART)
        for done, part in enumerate(places):
            if int(part) not in self._parts:
                self._parts[int(part)] = self._load(int(part), done, len(places))
        if not len(rows):
            return np.zeros((0, self.system.width), np.float32)
        return np.stack([self._parts[int(row // _PART)][row % _PART] for row in rows])

    def _load(self, part: int, done: int, parts: int) -> np.ndarray:
        file = self._folder / f"part-{part:05d}.npy"
        if file.is_file():
            return np.load(file)
        rows = np.arange(part * _PART, min((part + 1) * _PART, len(self.store)), dtype=np.int64)
        total = min(parts * _PART, len(self.store))
        show = self._show and (lambda k, n: self._show(done * _PART + k, total))  # type: ignore[misc]
        features = self.system.features(self.store, rows, show)
        model = self.system.model
        if model is not None and encoder_digest(model) != self.system.digest:
            raise RuntimeError(f"embedding {self.store.path} changed the weights or statistics of the frozen encoder")
        with atomic_path(file) as path, open(path, "wb") as handle:
            np.save(handle, features)
        return features

    def task(self, task: Task, *, whole: bool = False) -> TaskData:
        """The task with its features, as :func:`deri.evaluation.probe.load_task` gives it; splits may be empty.

        With ``whole`` all records are test records, and there are no others.
        """
        subjects = self.store.index["subject_id"].to_numpy().astype(str)
        parts = {}
        for split in ("train", "val", "test"):
            rows = self.store.task_rows(task.name, "all" if whole else split)
            rows = rows[:0] if whole and split != "test" else rows
            parts[split] = Split(self.rows(rows), self.store.labels(task.name, rows)[1], subjects[rows])
        return TaskData(task.classes, parts["train"], parts["val"], parts["test"])


@dataclass(frozen=True)
class Cell:
    """A finished cell: its figures, and the test scores (runs, n, classes) that they come from."""

    content: dict[str, Any]
    scores: np.ndarray
    new: bool


def cached_cell(
    folder: Path, name: str, key: dict[str, Any], compute: Callable[[], tuple[dict[str, Any], np.ndarray]]
) -> Cell:
    """The cell with this key from its files, else computed and written; the JSON comes last, so it stands for both."""
    key = {"cell_version": VERSION, "deri_version": __version__} | key
    stem = f"{_slug(name)}-{digest_of(key)}"
    file, arrays = folder / f"{stem}.json", folder / f"{stem}.npz"
    if file.is_file() and arrays.is_file():
        return Cell(json.loads(file.read_text(encoding="utf-8")), np.load(arrays)["scores"], False)
    content, scores = compute()
    content = content | {"file": f"cells/{file.name}", "key": key}
    with atomic_path(arrays) as path, open(path, "wb") as handle:
        np.savez(handle, scores=scores)
    write_json(file, content)
    return Cell(content, scores, True)


def zero_shot_cell(system: System, task: Task, features: FeatureCache, options: Options, folder: Path) -> Cell:
    """Zero-shot of a model on a task: the figures of :func:`deri.evaluation.zero_shot.zero_shot_task`."""
    model = system.model
    if model is None:
        raise ValueError("the classical row has no texts")
    prompts = prompts_for(task.name, task.classes)

    def compute() -> tuple[dict[str, Any], np.ndarray]:
        data = features.task(task, whole=options.folds > 0)
        weights = class_weights(model, prompts, protocol=options.protocol)
        val, test = (zero_shot(_unit(part.features), weights) for part in (data.val, data.test))
        if options.protocol == "published":
            chosen, where = (data.test.labels, test), "thresholds chosen on the scored records (published protocol)"
        else:
            chosen, where = (data.val.labels, val), f"thresholds of highest F1 on the {len(val)} validation records"
            if not len(val):
                where = "none, as the task has no validation records to choose thresholds on"
        thresholds = [best_threshold(chosen[0][:, c], chosen[1][:, c]) for c in range(len(task.classes))]
        content = _scored(data, test[None], [thresholds], options, probabilities=False)
        content.pop("runs")  # zero-shot has one
        content["notes"].insert(0, f"F1 and accuracy: {where}")
        return _about(system, task, data, options, "zero-shot", None) | content, test[None]

    key = _key(system, task, options, "zero-shot") | {
        "text_encoder": model.text_encoder.fingerprint,
        "prompts": digest_of(prompts),
    }
    return cached_cell(folder, f"{system.kind}-{task.name}-zero-shot", key, compute)


def probe_cell(
    system: System, task: Task, features: FeatureCache, fraction: float, options: Options, folder: Path
) -> Cell:
    """A probe on a fraction of the training records: the figures of :func:`deri.evaluation.probe.probe_fraction`."""

    def compute() -> tuple[dict[str, Any], np.ndarray]:
        data = features.task(task, whole=options.folds > 0)
        content, scores = score_probes(system, data, fraction, options)
        return _about(system, task, data, options, "probe", fraction) | content, scores

    key = _key(system, task, options, "probe") | {
        "fraction": fraction, "sampling": options.sampling, "seeds": options.seeds
    }  # fmt: skip
    return cached_cell(folder, f"{system.kind}-{task.name}-probe{fraction:g}", key, compute)


def score_probes(
    system: System, data: TaskData, fraction: float, options: Options
) -> tuple[dict[str, Any], np.ndarray]:
    """Train a probe per seed (and fold) and score them; returns the figures and the scores (seeds, n, classes)."""
    columns = range(len(data.classes))
    scores = np.empty((options.seeds, *data.test.labels.shape))
    entries: list[dict[str, Any]] = []
    n_train_pos: list[np.ndarray] = []
    thresholds: list[list[float | None]] = []
    for run, seed in enumerate(range(options.seed, options.seed + options.seeds)):
        chosen, sizes, positives = [], [], []
        # With all records only the published training and the folds draw anything; other seeds would repeat the first.
        drawn = options.folds or (options.protocol == "published" and system.kind != "classical")
        if run and sizes_are_whole(data, fraction) and not drawn:
            scores[run], entry = scores[0], entries[0] | {"seed": seed}
            thresholds.append(thresholds[0])
            n_train_pos.append(n_train_pos[0])
            entries.append(entry)
            continue
        for part in task_parts(data, options.folds, seed):
            kept = sample_training(part.train.subjects, fraction, seed, options.sampling)
            train = Split(part.train.features[kept], part.train.labels[kept], part.train.subjects[kept])
            probe = _fit(system, train, part.val, part.test, options, seed)
            ratio = log_likelihood_ratio(probe.test, train.labels) if options.folds else probe.test
            scores[run, part.place] = ratio
            chosen.append(probe.chosen)
            sizes.append(len(kept))
            positives.append(train.labels.sum(axis=0, dtype=np.int64))
        thresholds.append(
            [None if options.folds else best_threshold(part.val.labels[:, c], probe.val[:, c]) for c in columns]
        )
        n_train_pos.append(np.min(positives, axis=0))
        entries.append({"seed": seed, "n_train": sizes[0]} | ({"folds": chosen} if options.folds else chosen[0]))
    content = _scored(data, scores, thresholds, options, probabilities=not options.folds)
    if options.folds:
        # A fold that learned nothing of a class scores its records 0 beside the graded scores of other folds.
        unlearned = [name for c, name in enumerate(data.classes) if min(counts[c] for counts in n_train_pos) == 0]
        content = _without(content, data, scores, thresholds, options, unlearned)
    for entry, value in zip(entries, content.pop("runs"), strict=True):
        entry["macro_auroc"] = value
    known = [entry["macro_auroc"] for entry in entries if entry["macro_auroc"] is not None]
    content["macro_auroc"]["sd_over_seeds"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    for c, name in enumerate(data.classes):
        content["classes"][name]["n_train_pos"] = [int(counts[c]) for counts in n_train_pos]
    if options.folds:
        content["notes"].insert(0, "no F1, accuracy or calibration: the folds' scores are likelihood ratios")
    else:
        content["notes"].insert(
            0, f"F1 and accuracy: thresholds of highest F1 on the {len(data.val.labels)} validation records"
        )
    unseen = [name for c, name in enumerate(data.classes) if any(counts[c] == 0 for counts in n_train_pos)]
    if unseen and not options.folds:
        content["notes"].append(
            f"no training positives (in at least one seed), so that nothing was learned of {len(unseen)} "
            f"classes, which count in the mean all the same: {some(unseen)}"
        )
    if not all(one.get("converged", True) for entry in entries for one in entry.get("folds", [entry])):
        content["notes"].append("not all logistic regressions converged")
    return content | {"n_train": entries[0]["n_train"], "seeds": entries}, scores


def _without(
    content: dict[str, Any],
    data: TaskData,
    scores: np.ndarray,
    thresholds: list[list[float | None]],
    options: Options,
    names: list[str],
) -> dict[str, Any]:
    """The figures without those of some classes, which keep their counts and are null in all else."""
    if not names:
        return content
    kept = [c for c, name in enumerate(data.classes) if name not in names]
    test = Split(data.test.features, data.test.labels[:, kept], data.test.subjects)
    part = TaskData([data.classes[c] for c in kept], data.train, data.val, test)
    cut = [[one[c] for c in kept] for one in thresholds]
    fewer = _scored(part, scores[..., kept], cut, options, probabilities=False)
    counts = ("n_pos", "few_positives")
    nulls = {
        name: {key: value if key in counts else None for key, value in content["classes"][name].items()}
        for name in names
    }
    classes = {name: (fewer["classes"] | nulls)[name] for name in data.classes}
    notes = [*fewer["notes"], f"no positives in the training records of a fold, left out: {some(names)}"]
    return fewer | {"classes": classes, "n_classes": len(data.classes), "notes": notes}


def sizes_are_whole(data: TaskData, fraction: float) -> bool:
    """Whether a fraction takes all training records."""
    return round(len(data.train.labels) * fraction / 100) >= len(data.train.labels)


def _fit(system: System, train: Split, val: Split, test: Split, options: Options, seed: int) -> Probe:
    if system.kind == "classical":
        return classical.fit_boosting(train, val, test, seed=seed)
    return fit_probe(train, val, test, protocol=options.protocol, seed=seed)


def _scored(
    data: TaskData, scores: np.ndarray, thresholds: list[list[float | None]], options: Options, *, probabilities: bool
) -> dict[str, Any]:
    result = score_runs(
        data.classes,
        data.test.labels,
        scores,
        data.test.subjects,
        thresholds=thresholds,
        draws=options.draws,
        seed=options.seed,
        min_pos=options.min_pos,
        probabilities=probabilities,
    )
    return result_json(result) | {"notes": macro_notes(result), "runs": list(result.runs)}


def _about(
    system: System, task: Task, data: TaskData, options: Options, mode: str, fraction: float | None
) -> dict[str, Any]:
    return {
        "model": system.name,
        "kind": system.kind,
        "task": task.label,
        "mode": mode,
        "fraction": fraction,
        "split": options.split,
        "folds": options.folds,
        "n": len(data.test.labels),
        "n_patients": len(np.unique(data.test.subjects)),
        "n_val": len(data.val.labels),
        "protocol": options.protocol,
        "seed": options.seed,
        "deri_version": __version__,
        "recipe": system.recipe,
        "store": {
            "path": str(task.store.path),
            "dataset": task.store.meta["dataset"],
            "fingerprint": task.store.fingerprint,
        },
    }


def _key(system: System, task: Task, options: Options, mode: str) -> dict[str, Any]:
    return {
        "system": system.digest,
        "store": task.store.fingerprint,
        "task": task.name,
        "mode": mode,
        "protocol": options.protocol,
        "seed": options.seed,
        "draws": options.draws,
        "min_pos": options.min_pos,
        "folds": options.folds,
    }


def digest_of(value: Any) -> str:
    """16 hex digits that stand for a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[-60:]


def _unit(x: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(norm, 1e-12)  # as torch's normalize
