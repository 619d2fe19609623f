"""The whole benchmark: models × tasks × {zero-shot, probes}, with the rows that keep it honest beside them.

Every model is accompanied by the same network with random weights, and all by gradient boosting on intervals and
amplitudes. What is scored is kept as ``cells/WHAT-KEY.json`` with the scores beside it in ``cells/WHAT-KEY.npz``, where
KEY stands for all that decides the numbers, so that a benchmark that is run again computes what is new and nothing
else. docs/benchmark.md says what is written.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation import tables
from deri.evaluation.candidates import Candidate, candidates
from deri.evaluation.contributions import auroc_contributions
from deri.evaluation.features import Features
from deri.evaluation.intervals import METHOD, Difference, paired_differences, paired_macro_difference
from deri.evaluation.options import EvalOptions, way_name, ways_to_score
from deri.evaluation.probe import score_probes
from deri.evaluation.published import ROWS
from deri.evaluation.result import provenance, scored_records
from deri.evaluation.task import Task, choose_tasks, lacking_records, load_task
from deri.evaluation.transfer import Transfer, choose_transfers, score_transfer
from deri.evaluation.zero_shot import score_zero_shot
from deri.files import MADE_AGAIN, digest_of, read_sealed, write_json, write_sealed, write_text
from deri.progress import SILENT, Progress
from deri.reports import prompts_for
from deri.store import Store
from deri.store.npy import read_arrays, write_arrays

VERSION = 3  # with checksums
"""Of what is kept in ``cells``; part of the keys."""

FRACTIONS = (1.0, 10.0, 100.0)
"""Of the field's tables, percent of the training records."""


Compute = Callable[[], tuple[dict[str, Any], np.ndarray]]
"""Gives what is to be kept of a result, and its scores."""


@dataclass(frozen=True)
class ScoredTask:
    """A candidate scored on a task in one way: the figures, and the scores (runs, n, classes) that they come from."""

    content: dict[str, Any]
    scores: np.ndarray
    new: bool


@dataclass(frozen=True)
class Scope:
    """What a benchmark scores and draws.

    Attributes:
        tasks: which of the stores' tasks; all when not given.
        transfers: ``TRAIN:TEST``, tasks between which probes are transferred.
        mapping: YAML of classes that mean the same in both tasks of a transfer.
        saliency: of how many recordings per model to draw an occlusion map.
        figures: whether to draw any.
    """

    tasks: Sequence[str] = ()
    transfers: Sequence[str] = ()
    mapping: str | Path | None = None
    saliency: int = 0
    figures: bool = True


def run_benchmark(
    models: Sequence[str],
    stores: Sequence[str | Path | Store],
    out: str | Path,
    options: EvalOptions | None = None,
    scope: Scope | None = None,
    *,
    device: str | None = "cpu",
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Benchmark models on the tasks of stores into ``out``; returns (and writes) ``results.json``.

    Args:
        models: as :func:`deri.models.load_model` takes them, or ``NAME=MODEL`` to call it NAME in the tables.
        stores: of ``deri prepare``.
        out: a directory; what an earlier run left there is used again.
        options: fractions (1, 10 and 100 when not given), protocol, seeds …; the split is test, or all for folds.
        scope: what is scored and drawn.
        device: of the models.
        progress: is told every result, and how many recordings are embedded.
    """
    options, scope = options or EvalOptions(fractions=FRACTIONS), scope or Scope()
    options = replace(options, split="all" if options.folds else "test")
    if options.folds and scope.transfers:
        raise DeriError("--folds: a transfer needs the splits of its stores; leave out --folds or --transfer")
    out = Path(out)
    if out.is_file():
        raise DeriError(f"--out {out} is a file; name a directory")
    opened = [Store.open(store) for store in stores]
    chosen = choose_tasks(opened, scope.tasks)
    if not chosen:
        raise DeriError(
            f"--data: none of the stores has a task; prepare one with labels, see deri info {opened[0].path}"
        )
    benchmark = _Benchmark(out, options, chosen, choose_transfers(scope.transfers, opened, scope.mapping), progress)
    for candidate in candidates(models, device):
        benchmark.score(candidate)
        if scope.figures and candidate.model is not None:
            benchmark.draw(candidate, scope.saliency if candidate.kind == "model" else 0)
    results = benchmark.results(opened)
    if scope.figures:
        from deri.evaluation.figures import draw_all

        drawn = draw_all(results, benchmark.maps, out / "figures")
        results["figures"] = [str(path.relative_to(out)) for path in drawn]
        results["figures"] += [file for one in benchmark.saliency for file in one["files"]]
    write_json(out / "results.json", results)
    write_text(out / "table.md", tables.markdown(results))
    write_text(out / "table.tex", tables.latex(results))
    return results


@dataclass
class _Benchmark:
    """A running benchmark: what is asked, and what there is so far."""

    out: Path
    options: EvalOptions
    tasks: list[Task]
    transfers: list[Transfer]
    progress: Progress
    candidates: list[dict[str, Any]] = field(default_factory=list)
    scored: dict[tuple[str, str, str, float | None], ScoredTask] = field(default_factory=dict)
    missing: list[dict[str, Any]] = field(default_factory=list)
    transferred: list[dict[str, Any]] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)
    saliency: list[dict[str, Any]] = field(default_factory=list)
    _features: dict[str, Features] = field(default_factory=dict)

    def score(self, candidate: Candidate) -> None:
        """Score a candidate on all tasks and transfers."""
        self._features = {}
        self.candidates.append(
            {"name": candidate.name, "kind": candidate.kind, "digest": candidate.digest, "recipe": candidate.recipe}
            | candidate.about
        )
        for task in self.tasks:
            if candidate.model is not None:
                self._add(candidate, task, "zero-shot", None)
            for fraction in self.options.fractions:
                self._add(candidate, task, "probe", fraction)
        for transfer in self.transfers:
            for fraction in self.options.fractions:
                scored = self._transfer(candidate, transfer, fraction)
                self.transferred.append(scored.content)
                macro = _text(scored.content["macro_auroc"]["value"])
                self.progress.message(
                    f"{candidate.name} · {transfer.label} · probe {fraction:g} %: {macro}{_kept(scored)}"
                )

    def draw(self, candidate: Candidate, saliency: int) -> None:
        """Draw what needs the model: maps of its embeddings, and of what its scores rest on."""
        from deri.evaluation.figures import embedding_map, map_methods
        from deri.evaluation.saliency import saliency_figures

        split = self.options.split
        for task, method in itertools.product(self.tasks, map_methods()):
            found = embedding_map(self._of(candidate, task.store), task, self.out / "embeddings", split, method)
            if found is not None:
                self.maps.append({"model": candidate.name, "task": task.label} | found)
        if saliency:
            self.saliency += saliency_figures(candidate, self.tasks[0], saliency, self.out, split, self.progress)

    def results(self, stores: list[Store]) -> dict[str, Any]:
        """The content of ``results.json``, but for the figures."""
        if not self.scored and not self.transferred:
            raise DeriError(f"no task can be scored: {self.missing[0]['reason']}; see deri info {stores[0].path}")
        self.candidates.sort(key=lambda about: ("model", "random", "classical").index(about["kind"]))
        return {
            "deri_version": __version__,
            "options": asdict(self.options) | {"fractions": list(self.options.fractions)},
            "stores": [
                {"path": str(s.path), "dataset": s.meta["dataset"], "n": len(s), "fingerprint": s.fingerprint}
                for s in stores
            ],
            "tasks": [task.label for task in self.tasks],
            "models": self.candidates,
            "cells": [_without_key(scored.content) for scored in self.scored.values()],
            "missing": self.missing,
            "comparisons": [test for task in self.tasks for test in self._comparisons(task)],
            "transfers": [_without_key(content) for content in self.transferred],
            "saliency": self.saliency,
            "published": [asdict(row) for row in ROWS],
            "figures": [],
        }

    def _of(self, candidate: Candidate, store: Store) -> Features:
        if store.fingerprint not in self._features:
            folder = self.out / "embeddings"
            self._features[store.fingerprint] = Features(candidate.model, store, folder, progress=self.progress)
        return self._features[store.fingerprint]

    def _add(self, candidate: Candidate, task: Task, mode: str, fraction: float | None) -> None:
        """Score a task in one way, or say why that cannot be."""
        what = f"{candidate.name} · {task.label} · {way_name(mode, fraction)}"
        needed = ("test",) if mode == "zero-shot" else ("train", "val", "test")
        reason = lacking_records(task, needed, folds=self.options.folds)
        if mode == "zero-shot" and not reason:
            try:
                prompts_for(task.name, task.classes)
            except DeriError as error:  # classes without a text
                reason = str(error)
        if reason:
            about = {"model": candidate.name, "task": task.label, "mode": mode, "fraction": fraction}
            self.missing.append(about | {"reason": reason})
            self.progress.message(f"{what}: none, {reason}")
            return
        scored = self._zero_shot(candidate, task) if fraction is None else self._probe(candidate, task, fraction)
        content = scored.content
        self.scored[candidate.name, task.label, mode, fraction] = scored
        self.progress.message(
            f"{what}: {_text(content['macro_auroc']['value'])} over {content['n_classes_scored']} of "
            f"{content['n_classes']} classes{_kept(scored)}"
        )

    def _zero_shot(self, candidate: Candidate, task: Task) -> ScoredTask:
        def compute() -> tuple[dict[str, Any], np.ndarray]:
            features = self._of(candidate, task.store)
            content, scores = score_zero_shot(features, task.name, self.options, model_name=candidate.name)
            n_val = 0 if self.options.folds else len(task.store.task_rows(task.name, "val"))
            return content | {"n_val": n_val}, scores[None]

        key = self._key(candidate, "zero-shot", task) | {"prompts": prompts_for(task.name, task.classes)}
        return self._kept(candidate, task.store, task.label, f"{task.name}-zero-shot", key, compute)

    def _probe(self, candidate: Candidate, task: Task, fraction: float) -> ScoredTask:
        options = self.options

        def compute() -> tuple[dict[str, Any], np.ndarray]:
            data = load_task(self._of(candidate, task.store), task.name, whole=options.folds > 0)
            content, scores = score_probes(data, fraction, options, candidate.method)
            head = scored_records(task.label, candidate.name, data.test.subjects, options)
            about = head | {"n_val": len(data.val.labels), "sampling": options.sampling}
            return about | content | provenance(candidate.model, task.store), scores

        key = self._key(candidate, "probe", task, fraction)
        return self._kept(candidate, task.store, task.label, f"{task.name}-probe{fraction:g}", key, compute)

    def _transfer(self, candidate: Candidate, transfer: Transfer, fraction: float) -> ScoredTask:
        train, test = transfer.train, transfer.test

        def compute() -> tuple[dict[str, Any], np.ndarray]:
            features = self._of(candidate, train.store), self._of(candidate, test.store)
            content, scores, subjects = score_transfer(transfer, *features, fraction, self.options, candidate.method)
            head = scored_records(transfer.label, candidate.name, subjects, self.options)
            return head | content | provenance(candidate.model, train.store), scores

        key = self._key(candidate, "transfer", train, fraction) | {
            "test": [test.store.fingerprint, test.name],
            "classes": [[name, *map(list, sides)] for name, sides in transfer.classes.items()],
        }
        name = f"{train.name}-to-{test.name}-{fraction:g}"
        return self._kept(candidate, train.store, transfer.label, name, key, compute)

    def _key(self, candidate: Candidate, mode: str, task: Task, fraction: float | None = None) -> dict[str, Any]:
        """All that decides the numbers of a result."""
        options = asdict(self.options)
        del options["fractions"]
        return {
            "version": VERSION,
            "deri_version": __version__,
            "ci_method": METHOD,
            "candidate": candidate.identity,
            "store": task.store.fingerprint,
            "task": task.name,
            "mode": mode,
            "fraction": fraction,
            "options": options if mode != "zero-shot" else options | {"sampling": None, "seeds": None},
        }

    def _kept(
        self, candidate: Candidate, store: Store, label: str, name: str, key: dict[str, Any], compute: Compute
    ) -> ScoredTask:
        """The result with this key from its files, else computed and written; the JSON comes last and stands for both.

        A kept one may have been computed under other names; its numbers are the same.
        """
        stem = f"{_slug(f'{candidate.kind}-{name}')}-{digest_of(key)}"
        file, arrays = (self.out / "cells" / f"{stem}{suffix}" for suffix in (".json", ".npz"))
        new = not (file.is_file() and arrays.is_file())
        if new:
            content, scores = compute()
            about = {"kind": candidate.kind, "mode": key["mode"], "fraction": key["fraction"]}
            content = content | about | {"folds": self.options.folds, "file": f"cells/{file.name}", "key": key}
            write_arrays(arrays, scores=scores)
            write_sealed(file, content)
        else:
            content, scores = read_sealed(file, MADE_AGAIN), read_arrays(arrays, MADE_AGAIN)["scores"]
        content["store"] = content["store"] | {"path": str(store.path)}
        return ScoredTask(content | {"model": candidate.name, "task": label}, scores, new)

    def _comparisons(self, task: Task) -> list[dict[str, Any]]:
        """Paired tests on the same test records: every two models, and every model against the other rows."""
        kinds = {about["name"]: about["kind"] for about in self.candidates}
        pairs = [(a, b) for a, b in itertools.combinations(kinds, 2) if kinds[a] == "model"]  # models come first
        rows = task.store.task_rows(task.name, self.options.split)
        labels = task.store.labels(task.name, rows)[1]
        subjects = task.store.index["subject_id"].to_numpy().astype(str)[rows]
        found = []
        for (mode, fraction), (a, b) in itertools.product(ways_to_score(self.options.fractions), pairs):
            first, second = (self.scored.get((name, task.label, mode, fraction)) for name in (a, b))
            if first is None or second is None:
                continue
            key = digest_of([first.content["key"], second.content["key"], self.options.draws])
            file = self.out / "cells" / f"compare-{key}.json"
            if not file.is_file():
                write_sealed(file, _compare(task.classes, labels, first, second, subjects, self.options))
            about = {
                "task": task.label,
                "mode": mode,
                "fraction": fraction,
                "a": a,
                "b": b,
                "n": len(rows),
                "n_patients": len(np.unique(subjects)),
                "training_seed": None if fraction is None else self.options.seed,
            }
            found.append(about | read_sealed(file, MADE_AGAIN))
        return found


def _compare(
    classes: list[str], labels: np.ndarray, a: ScoredTask, b: ScoredTask, subjects: np.ndarray, options: EvalOptions
) -> dict[str, Any]:
    """Paired tests of the first runs over the classes in which both have an AUROC; the others are null.

    Without ``draws`` there are no intervals and no p; the differences are still worth stating.
    """
    known = [
        c for c, name in enumerate(classes) if all(s.content["classes"][name]["auroc"] is not None for s in (a, b))
    ]
    first, second = (auroc_contributions(labels, s.scores[0], subjects) for s in (a, b))
    tests = dict(enumerate(paired_differences(first, second)))

    def plain(test: Difference) -> dict[str, Any]:
        told = asdict(test)
        told["difference"] = told.pop("value")
        if not options.draws:
            told |= {"ci": None, "p": None, "reason": "no intervals were asked for"}
        return told | {"ci": told["ci"] and list(told["ci"])}

    undefined = Difference(None, None, None, None, None, "no AUROC")
    n_pos = labels.sum(axis=0)
    per_class = {
        name: {"few_positives": bool(n_pos[c] < options.min_pos)} | plain(tests[c] if c in known else undefined)
        for c, name in enumerate(classes)
    }
    return {"macro": plain(paired_macro_difference(first, second, known)), "classes": per_class}


def _kept(scored: ScoredTask) -> str:
    return "" if scored.new else " (kept)"


def _text(value: float | None) -> str:
    return "null" if value is None else f"{value:.3f}"


def _without_key(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "key"}


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[-60:]
