"""Ablation: recipes that differ in a few switches, trained on the same pairs for the same steps with several seeds.

A difference between two rows is paired by seed and by patient; its interval covers both what other test patients and
what another start of training would change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.contributions import auroc_contributions
from deri.evaluation.features import embed_store
from deri.evaluation.intervals import METHOD, as_list, macro_interval, paired_macro_difference
from deri.evaluation.tables import with_interval
from deri.evaluation.zero_shot import class_weights
from deri.files import MADE_AGAIN, read_yaml, write_json, write_text
from deri.models import load_model
from deri.progress import SILENT, Progress
from deri.recipes import Recipe, load_recipe
from deri.recipes.load import explain
from deri.recipes.schema import Section
from deri.reports import prompts_for
from deri.store import Store
from deri.store.npy import read_arrays, write_arrays
from deri.training import pretrain
from deri.training.log import read_metrics

FORMAT = "deri-ablation"


class Row(Section):
    """One recipe of the table: a shipped name or file, and overrides ``a.b=c`` after the common ones.

    ``init`` is the model that it starts from, as ``deri pretrain --init``.
    """

    recipe: str = "deri"
    overrides: tuple[str, ...] = ()
    init: str | None = None


class Target(Section):
    """Where the rows are scored, zero-shot: a store, a task, a split; some of its classes, or those with positives."""

    store: Path
    task: str
    split: Literal["train", "val", "test", "all"] = "test"
    classes: tuple[str, ...] | None = None
    min_pos: int = Field(8, ge=1)
    name: str | None = None

    @property
    def title(self) -> str:
        """How the table calls it."""
        return self.name or f"{self.store.name}/{self.task}"


class Ablation(Section):
    """The content of an ablation file. ``base`` is the row that the others are compared with."""

    train: Path
    targets: tuple[Target, ...] = Field(min_length=1)
    rows: dict[str, Row] = Field(min_length=1)
    base: str
    common: tuple[str, ...] = ()
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    draws: int = Field(1000, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Ablation:
        if self.base not in self.rows:
            raise ValueError(f"base {self.base!r} is no row; rows are {', '.join(self.rows)}")
        if "random" in self.rows:
            raise ValueError("the row 'random' is added by itself")
        titles = [target.title for target in self.targets]
        if len(set(titles)) < len(titles) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("two targets of one name, or a seed twice")
        return self

    def recipe(self, row: str, seed: int) -> Recipe:
        """The recipe that ``row`` trains with ``seed``."""
        entry = self.rows[row]
        return load_recipe(entry.recipe, [*self.common, *entry.overrides, f"train.seed={seed}"])


def load_ablation(path: Path) -> Ablation:
    """Read an ablation file and check that its rows cost the same steps.

    Raises:
        DeriError: no such file, not YAML, unknown keys, or rows that differ in epochs or batch size.
    """
    try:
        plan = Ablation.model_validate(read_yaml(path, "--ablation"))
    except ValidationError as error:
        raise DeriError(f"--ablation {path}: {explain(error, Ablation)}") from None
    costs = {row: (r.train.epochs, r.train.batch_size) for row in plan.rows if (r := plan.recipe(row, 0))}
    if len(set(costs.values())) > 1:
        listed = "; ".join(f"{row}: {epochs} epochs of {size}" for row, (epochs, size) in costs.items())
        raise DeriError(f"--ablation {path}: rows must train the same steps ({listed}); set both under common")
    return plan


def run_ablation(
    path: str | Path,
    out: str | Path,
    *,
    device: str | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train and score every row with every seed; writes ``ablation.json`` and ``ablation.md`` into ``out``.

    What is done is kept: an interrupted ablation continues where it was, a changed row must get another ``out``.
    """
    plan, out = load_ablation(Path(path)), Path(out)
    stores = {target.title: Store.open(target.store) for target in plan.targets}
    scores: dict[str, dict[str, list[np.ndarray]]] = {target.title: {} for target in plan.targets}
    runs: dict[str, list[dict[str, Any]]] = {}

    def score(row: str, model: str, folder: Path, kind: str = "") -> None:
        for target in plan.targets:
            file = folder / f"{kind}scores-{_file_name(target)}.npz"
            found = _scores(model, file, stores[target.title], target, device)
            scores[target.title].setdefault(row, []).append(found)

    for seed in plan.seeds:
        for row in plan.rows:
            run = out / "runs" / f"{row}-{seed}"
            recipe = plan.recipe(row, seed)
            progress.message(f"{row}, seed {seed}")
            init = plan.rows[row].init
            pretrain(plan.train, run, recipe, init=init, resume=True, device=device, progress=_Counts(progress))
            runs.setdefault(row, []).append(_about(run))
            score(row, str(run), run)
        base = out / "runs" / f"{plan.base}-{seed}"
        score("random", f"random:{base / 'recipe.yaml'}@{seed + 1}", base, "random-")
    result = {
        "format": FORMAT,
        "version": 1,
        "deri_version": __version__,
        "plan": json.loads(plan.model_dump_json()),
        "train_store": Store.open(plan.train).provenance,
        "runs": runs,
        "targets": {
            target.title: compare_rows(stores[target.title], target, scores[target.title], plan.base, plan.draws)
            for target in plan.targets
        },
    }
    write_json(out / "ablation.json", result)
    write_text(out / "ablation.md", ablation_table(result))
    return result


def compare_rows(
    store: Store, target: Target, scores: Mapping[str, list[np.ndarray]], base: str, draws: int
) -> dict[str, Any]:
    """Macro AUROC of every row (mean over seeds) and its difference from ``base``, with intervals.

    Args:
        store: of the target.
        target: what was scored.
        scores: row → one (n, classes) array per seed, in the order of ``task_rows``.
        base: row to compare with.
        draws: 0 for no intervals.
    """
    rows = store.task_rows(target.task, target.split)
    names, labels = store.labels(target.task, rows)
    chosen = _chosen(target, names, labels)
    subjects = store.index["subject_id"].to_numpy()[rows]
    of = {
        row: auroc_contributions(labels[:, chosen], np.stack(arrays)[:, :, chosen], subjects)
        for row, arrays in scores.items()
    }
    table: dict[str, Any] = {}
    for row, own in of.items():
        several = len(own.values) > 1  # one seed does not show how seeds differ: the interval is then for that seed
        macro, seeds = macro_interval(own, draw_runs=several), own.values.mean(axis=1)
        difference = None
        if row != base:
            gap = paired_macro_difference(own, of[base], draw_runs=several)
            by_seed = (seeds - of[base].values.mean(axis=1)).tolist()
            difference = {"value": gap.value, "ci": as_list(gap.ci if draws else None), "p": gap.p, "seeds": by_seed}
        table[row] = {
            "macro_auroc": {"value": macro.value, "ci": as_list(macro.ci if draws else None)},
            "seeds": seeds.tolist(),
            "difference": difference,
            "classes": {names[c]: float(own.mean[i]) for i, c in enumerate(chosen)},
        }
    return {
        "store": store.provenance,
        "task": target.task,
        "split": target.split,
        "n": len(rows),
        "ci_method": f"{METHOD}, over seeds too" if draws else None,
        "classes": {names[c]: int(labels[:, c].sum()) for c in chosen},
        "rows": table,
    }


def ablation_table(result: Mapping[str, Any]) -> str:
    """The table as Markdown: a section per target."""
    lines = ["# Ablation", ""]
    plan = result["plan"]
    lines += [f"Zero-shot macro AUROC, mean over {len(plan['seeds'])} seeds; differences from `{plan['base']}`.", ""]
    for title, target in result["targets"].items():
        lines += [f"## {title}: {target['n']} recordings, {len(target['classes'])} classes", ""]
        lines += ["| row | macro AUROC (95 % CI) | difference (95 % CI) | per seed |", "|---|---|---|---|"]
        for row, entry in target["rows"].items():
            gap = entry["difference"]
            change = "" if gap is None else with_interval(gap["value"], gap["ci"], style="+.3f", to=" … ")
            seeds = " ".join(f"{value:.3f}" for value in entry["seeds"])
            value = with_interval(entry["macro_auroc"]["value"], entry["macro_auroc"]["ci"], to=" … ")
            lines.append(f"| {row} | {value} | {change} | {seeds} |")
        lines.append("")
    return "\n".join(lines)


def _chosen(target: Target, names: list[str], labels: np.ndarray) -> list[int]:
    if target.classes is not None:
        unknown = [name for name in target.classes if name not in names]
        if unknown:
            raise DeriError(f"target {target.title}: no class {', '.join(unknown)}; there are {', '.join(names)}")
        wanted = [names.index(name) for name in target.classes]
    else:
        wanted = list(range(len(names)))
    counts = labels.sum(axis=0)
    chosen = [c for c in wanted if target.min_pos <= counts[c] <= len(labels) - target.min_pos]
    if not chosen:
        raise DeriError(f"target {target.title}: no class has {target.min_pos} positives in split {target.split}")
    return chosen


def _scores(model: str, file: Path, store: Store, target: Target, device: str | None) -> np.ndarray:
    """Zero-shot scores (n, classes) of ``model``; kept in ``file``."""
    rows = store.task_rows(target.task, target.split)
    if file.is_file():
        kept = read_arrays(file, MADE_AGAIN)["scores"]
        if kept.shape == (len(rows), len(store.tasks[target.task])):
            return kept
    loaded = load_model(model, device=device)
    weights = class_weights(loaded, prompts_for(target.task, store.tasks[target.task]))
    scores = embed_store(loaded, store, rows) @ weights.T
    write_arrays(file, scores=scores)
    return scores


def _file_name(target: Target) -> str:
    return "".join(ch if ch.isalnum() or ch in "-_" else "_" for ch in f"{target.title}-{target.split}")


def _about(run: Path) -> dict[str, Any]:
    """What a run cost."""
    lines = [line for line in read_metrics(run) if line["split"] == "train"]
    rates = [line["samples_per_s"] for line in lines]
    return {"run": str(run), "steps": lines[-1]["step"], "samples_per_s": float(np.median(rates))}


class _Counts(Progress):
    """Shows the counts of a run, not its lines."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def update(self, done: int, total: int) -> None:
        self._shown.update(done, total)
