"""The whole benchmark: models × tasks × {zero-shot, probes}, with the rows that keep it honest beside them.

Every model is accompanied by the same network with random weights, and all by gradient boosting on intervals and
amplitudes. docs/benchmark.md says what is written.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation import tables
from deri.evaluation.cells import Cell, FeatureCache, digest_of, probe_cell, zero_shot_cell
from deri.evaluation.compare import Comparison, PairedTest, delong_test, paired_bootstrap
from deri.evaluation.embed import Show
from deri.evaluation.published import ROWS
from deri.evaluation.systems import (
    Options,
    System,
    Task,
    choose_tasks,
    classical_system,
    lacking_splits,
    model_system,
    random_system,
)
from deri.evaluation.transfer import Transfer, choose_transfers, transfer_cell
from deri.files import write_json, write_text
from deri.models import load_model
from deri.store import Store

Say = Callable[[str], None]


@dataclass
class _State:
    """What a running benchmark has so far."""

    out: Path
    options: Options
    tasks: list[Task]
    transfers: list[Transfer]
    say: Say
    show: Show | None
    models: list[dict[str, Any]] = field(default_factory=list)
    cells: dict[tuple[str, str, str, float | None], Cell] = field(default_factory=dict)
    missing: list[dict[str, Any]] = field(default_factory=list)
    transferred: list[Cell] = field(default_factory=list)
    maps: list[dict[str, Any]] = field(default_factory=list)
    saliency: list[dict[str, Any]] = field(default_factory=list)


def run_benchmark(
    models: Sequence[str],
    stores: Sequence[str | Path],
    out: str | Path,
    options: Options | None = None,
    *,
    tasks: Sequence[str] | None = None,
    transfers: Sequence[str] = (),
    mapping: str | Path | None = None,
    saliency: int = 0,
    figures: bool = True,
    device: str = "cpu",
    say: Say = print,
    show: Show | None = None,
) -> dict[str, Any]:
    """Benchmark models on the tasks of stores into ``out``; returns (and writes) ``results.json``.

    Args:
        models: as :func:`deri.models.load_model` takes them, or ``NAME=MODEL`` to call it NAME in the tables.
        stores: of ``deri prepare``.
        out: a directory; what an earlier run left there is used again.
        options: fractions, protocol, seeds …
        tasks: which of the stores' tasks; all when not given.
        transfers: ``TRAIN:TEST``, tasks between which probes are transferred.
        mapping: YAML of classes that mean the same in both tasks of a transfer.
        saliency: of how many recordings per model to draw an occlusion map.
        figures: whether to draw any.
        device: of the models.
        say: receives a line for every cell.
        show: receives (recordings embedded, recordings in all).
    """
    options = options or Options()
    if options.folds and transfers:
        raise DeriError("--folds: a transfer needs the splits of its stores; leave out --folds or --transfer")
    out = Path(out)
    if out.is_file():
        raise DeriError(f"--out {out} is a file; name a directory")
    opened = [Store.open(store) for store in stores]
    chosen = choose_tasks(opened, list(tasks) if tasks else None)
    if not chosen:
        raise DeriError(f"--data: none of the stores has a task; prepare one with labels, see deri info {stores[0]}")
    state = _State(out, options, chosen, choose_transfers(transfers, opened, mapping), say, show)
    names = _names(models)
    for system in _systems(names, device):
        state.models.append(
            {"name": system.name, "kind": system.kind, "digest": system.digest, "recipe": system.recipe} | system.about
        )
        _run_system(state, system, figures, saliency)
    state.models.sort(key=lambda about: ("model", "random", "classical").index(about["kind"]))
    if not state.cells and not state.transferred:
        raise DeriError(f"no task can be scored: {state.missing[0]['reason']}; see deri info {stores[0]}")
    results = _results(state, opened)
    if figures:
        from deri.evaluation.figures import draw_all

        results["figures"] = [str(path.relative_to(out)) for path in draw_all(results, state.maps, out / "figures")]
        results["figures"] += [file for one in state.saliency for file in one["files"]]
    write_json(out / "results.json", results)
    write_text(out / "table.md", tables.markdown(results))
    write_text(out / "table.tex", tables.latex(results))
    return results


def _names(models: Sequence[str]) -> dict[str, str]:
    """Name in the tables → what to load."""
    names: dict[str, str] = {}
    for model in models:
        name, separator, target = model.partition("=")
        if not separator or "/" in name:
            name = target = model
        if name in names:
            raise DeriError(f"--model {model}: two models are called {name}; name one of them: --model OTHER={target}")
        names[name] = target
    if not names:
        raise DeriError("--model: name at least one model")
    return names


def _systems(names: dict[str, str], device: str) -> Iterator[System]:
    """The rows one after the other, so that one trained model and one random are in memory at a time."""
    seen: set[str] = set()
    for name, target in names.items():
        model = load_model(target, device=device)
        own = model_system(model, name)
        yield own
        random = random_system(model)
        if random.digest == own.digest:  # a random: model was asked for
            seen.add(random.digest)
        if random.digest not in seen:
            seen.add(random.digest)
            yield random
    yield classical_system()


def _run_system(state: _State, system: System, figures: bool, saliency: int) -> None:
    caches: dict[str, FeatureCache] = {}

    def features(store: Store) -> FeatureCache:
        if store.fingerprint not in caches:
            caches[store.fingerprint] = FeatureCache(state.out / "embeddings", system, store, state.show)
        return caches[store.fingerprint]

    folder = state.out / "cells"
    for task in state.tasks:
        if system.model is not None:
            reason = lacking_splits(task, training=False, folds=state.options.folds)
            try:
                cell = None if reason else zero_shot_cell(system, task, features(task.store), state.options, folder)
            except DeriError as error:  # classes without a text
                cell, reason = None, str(error)
            _keep(state, system, task, "zero-shot", None, cell, reason)
        reason = lacking_splits(task, training=True, folds=state.options.folds)
        for fraction in state.options.fractions:
            cell = None if reason else probe_cell(system, task, features(task.store), fraction, state.options, folder)
            _keep(state, system, task, "probe", fraction, cell, reason)
        if figures and system.model is not None:
            from deri.evaluation.figures import embedding_map, map_methods

            for method in map_methods():
                found = embedding_map(features(task.store), task, state.out / "embeddings", state.options.split, method)
                if found is None:
                    break
                state.maps.append({"model": system.name, "task": task.label} | found)
    for transfer in state.transfers:
        for fraction in state.options.fractions:
            cell = transfer_cell(
                system, transfer, features(transfer.train.store), features(transfer.test.store), fraction,
                state.options, folder,
            )  # fmt: skip
            _renamed(cell, system, transfer.train)
            state.transferred.append(cell)
            macro = cell.content["macro_auroc"]["value"]
            state.say(f"{system.name} · {transfer.label} · probe {fraction:g} %: {_text(macro)}{_cached(cell)}")
    if saliency and figures and system.kind == "model":
        from deri.evaluation.saliency import saliency_figures

        state.saliency += saliency_figures(system, state.tasks[0], saliency, state.out, state.say, state.options.split)


def _keep(
    state: _State, system: System, task: Task, mode: str, fraction: float | None, cell: Cell | None, reason: str | None
) -> None:
    what = mode if fraction is None else f"{mode} {fraction:g} %"
    if cell is None:
        state.missing.append(
            {"model": system.name, "task": task.label, "mode": mode, "fraction": fraction, "reason": reason}
        )
        state.say(f"{system.name} · {task.label} · {what}: none, {reason}")
        return
    _renamed(cell, system, task)
    state.cells[system.name, task.label, mode, fraction] = cell
    state.say(
        f"{system.name} · {task.label} · {what}: {_text(cell.content['macro_auroc']['value'])} over "
        f"{cell.content['n_classes_scored']} of {cell.content['n_classes']} classes{_cached(cell)}"
    )


def _renamed(cell: Cell, system: System, task: Task) -> None:
    """A kept cell may have been computed under other names; its numbers are the same."""
    cell.content["model"] = system.name
    cell.content["store"]["path"] = str(task.store.path)
    if cell.content["mode"] != "transfer":
        cell.content["task"] = task.label


def _cached(cell: Cell) -> str:
    return "" if cell.new else " (kept)"


def _text(value: float | None) -> str:
    return "null" if value is None else f"{value:.3f}"


def _results(state: _State, stores: list[Store]) -> dict[str, Any]:
    def public(cell: Cell) -> dict[str, Any]:
        return {key: value for key, value in cell.content.items() if key != "key"}

    return {
        "deri_version": __version__,
        "options": asdict(state.options) | {"fractions": list(state.options.fractions)},
        "stores": [
            {"path": str(s.path), "dataset": s.meta["dataset"], "n": len(s), "fingerprint": s.fingerprint}
            for s in stores
        ],
        "tasks": [task.label for task in state.tasks],
        "models": state.models,
        "cells": [public(cell) for cell in state.cells.values()],
        "missing": state.missing,
        "comparisons": _comparisons(state),
        "transfers": [public(cell) for cell in state.transferred],
        "saliency": state.saliency,
        "published": [asdict(row) for row in ROWS],
        "figures": [],
    }


def _comparisons(state: _State) -> list[dict[str, Any]]:
    """Paired tests on the same test records: every two models, and every model against random and classical rows."""
    kinds = {about["name"]: about["kind"] for about in state.models}
    pairs = [(a, b) for a, b in itertools.combinations(kinds, 2) if kinds[a] == "model"]  # models come first
    found = []
    for task in state.tasks:
        rows = task.store.task_rows(task.name, state.options.split)
        labels = task.store.labels(task.name, rows)[1]
        subjects = task.store.index["subject_id"].to_numpy().astype(str)[rows]
        for mode, fraction in [("zero-shot", None), *(("probe", f) for f in state.options.fractions)]:
            for a, b in pairs:
                both = [state.cells.get((name, task.label, mode, fraction)) for name in (a, b)]
                if both[0] is None or both[1] is None:
                    continue
                keys = [cell.content["key"] for cell in both if cell]
                file = state.out / "cells" / f"compare-{digest_of([keys, state.options.draws])}.json"
                if not file.is_file():
                    scores = [cell.scores[0] for cell in both if cell]
                    known = [
                        c
                        for c, name in enumerate(task.classes)
                        if all(cell.content["classes"][name]["auroc"] is not None for cell in both if cell)
                    ]
                    test = _compare(task.classes, known, labels, scores[0], scores[1], subjects, state.options)
                    write_json(file, test)
                about = {
                    "task": task.label,
                    "mode": mode,
                    "fraction": fraction,
                    "a": a,
                    "b": b,
                    "n": len(rows),
                    "n_patients": len(np.unique(subjects)),
                    "training_seed": None if fraction is None else state.options.seed,
                }
                found.append(about | json.loads(file.read_text(encoding="utf-8")))
    return found


def _compare(
    classes: list[str],
    known: list[int],
    labels: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    subjects: np.ndarray,
    options: Options,
) -> dict[str, Any]:
    """Paired tests over the classes at ``known``, in which both models have an AUROC; the others are null."""

    def plain(test: PairedTest) -> dict[str, Any]:
        return asdict(test) | {"ci": test.ci and list(test.ci)}

    # Without draws there is no bootstrap to test with; the differences are still worth stating.
    drawn: Comparison = paired_bootstrap(
        [classes[c] for c in known], labels[:, known], a[:, known], b[:, known], subjects,
        draws=options.draws, seed=options.seed,
    )  # fmt: skip
    none = PairedTest(None, None, None, None, None)
    per_class = {
        name: {
            "delong": plain(delong_test(labels[:, c], a[:, c], b[:, c]) if c in known else none),
            "bootstrap": plain(drawn.classes.get(name, none)),
        }
        for c, name in enumerate(classes)
    }
    return {"macro": {"bootstrap": plain(drawn.macro)}, "classes": per_class}
