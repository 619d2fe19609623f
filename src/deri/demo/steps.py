"""The demonstration, step by step. ``deri demo`` runs it.

| step | writes |
|---|---|
| simulate and prepare | ``data/LAYOUT``, ``stores/LAYOUT`` for the layouts of MIMIC-IV-ECG and PTB-XL |
| pre-train | ``run`` |
| zero-shot | ``results/zeroshot-MODEL-TASK.json`` for the trained and a random encoder |
| probe | ``results/probe-MODEL-TASK.json`` for both |
| report | ``report`` (the writer), ``results/reports*`` |
| page | ``index.html`` |

``demo.json`` holds the figures of all.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deri.datasets import open_dataset
from deri.demo.page import finding_name, write_page
from deri.demo.reports import DemoReports, write_reports
from deri.ecg import ECG
from deri.errors import DeriError
from deri.evaluation.features import Features, embed_store
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import probe_task
from deri.evaluation.zero_shot import class_weights, zero_shot_task
from deri.files import write_json, write_text
from deri.models import EcgTextModel, load_model
from deri.progress import SILENT, Progress
from deri.recipes import load_recipe
from deri.reports import prompts_for
from deri.simulate import simulate
from deri.store import Store, prepare
from deri.training import pretrain

TRAIN, TEST = "mimic-iv-ecg", "ptb-xl"
TASKS = ("labels", "ptbxl-super", "ptbxl-rhythm", "ptbxl-form", "ptbxl-sub")
FRACTIONS = (10.0, 100.0)
MIN_POSITIVES = 10
# Shares of the patients with reports. Retrieval among two per cent of a small set would be over a hundred pairs; three
# times as many say more. Neither the encoder nor the report writer sees the test patients.
VAL_FRACTION = TEST_FRACTION = 0.06
SHOWN = ("AFIB", "CLBBB", "PVC")


@dataclass
class _Demo:
    """What the steps are asked for, and what they hand on."""

    out: Path
    records: dict[str, int]  # by layout
    seed: int
    workers: int
    overrides: tuple[str, ...]
    writer: tuple[str, ...]
    progress: Progress
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # of zero-shot by MODEL/TASK
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)  # by MODEL/TASK, then by fraction
    reports: DemoReports | None = None

    @property
    def run(self) -> Path:
        return self.out / "run"

    @cached_property
    def names(self) -> dict[str, str]:
        return {"deri": str(self.run), "random": f"random:{self.run / 'recipe.yaml'}@{self.seed + 1}"}

    @cached_property
    def models(self) -> dict[str, EcgTextModel]:
        return {which: load_model(name) for which, name in self.names.items()}

    @cached_property
    def features(self) -> dict[str, Features]:
        return {which: Features(model, self.store(TEST)) for which, model in self.models.items()}

    def store(self, layout: str) -> Store:
        return Store.open(self.out / "stores" / layout)


def run_demo(
    out: str | Path,
    *,
    train_records: int = 5200,
    test_records: int = 800,
    seed: int = 0,
    workers: int = 2,
    overrides: tuple[str, ...] = (),
    writer: tuple[str, ...] = (),
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Simulate, prepare, pre-train, evaluate and write reports into ``out``; returns (and writes) ``demo.json``.

    Pre-training sees simulated patients in the layout of MIMIC-IV-ECG; zero-shot is scored on other simulated patients
    in the layout of PTB-XL, beside the same network with random weights. A report writer is trained on the frozen
    encoder and the same reports, and scored on patients of that layout whom neither has seen, beside baselines.

    Args:
        out: an earlier demo in it is replaced.
        train_records: simulated recordings to pre-train on.
        test_records: simulated recordings to score.
        seed: of everything.
        workers: processes that read recordings.
        overrides: ``KEY=VALUE`` of the recipe.
        writer: ``KEY=VALUE`` of the report writer's config.
        progress: receives lines and counts.

    Raises:
        DeriError: ``out`` holds something else.
    """
    demo = _Demo(Path(out), {TRAIN: train_records, TEST: test_records}, seed, workers, overrides, writer, progress)
    _clear(demo.out)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    for name, step in (
        ("simulate and prepare", _simulate_and_prepare),
        ("pre-train", _pretrain),
        ("zero-shot", _zero_shot),
        ("probe", _probe),
        ("report", _report),
        ("page", _page),
    ):
        step(demo)
        seconds[name] = round(time.perf_counter() - started - sum(seconds.values()), 1)
        progress.message(f"{name}: {seconds[name]:.1f} s")
    assert demo.reports is not None
    result = {
        "seed": seed,
        "train_records": train_records,
        "test_records": test_records,
        **_headline(demo.results),
        "reports": demo.reports.scores(),
        "reports_n": demo.reports.n,
        "seconds": {**seconds, "total": round(time.perf_counter() - started, 1)},
    }
    write_json(demo.out / "demo.json", result)
    return result


def _simulate_and_prepare(demo: _Demo) -> None:
    for layout, records in demo.records.items():
        source = demo.out / "data" / layout
        simulate(layout, records, source, seed=demo.seed, progress=demo.progress)
        dataset = open_dataset(layout, source)
        if layout == TRAIN:
            dataset.val_fraction, dataset.test_fraction = VAL_FRACTION, TEST_FRACTION
        store = demo.out / "stores" / layout
        summary = prepare(dataset, store, workers=demo.workers, seed=demo.seed, progress=demo.progress)
        demo.progress.message(summary.text())


def _pretrain(demo: _Demo) -> None:
    recipe = load_recipe("demo", [f"train.seed={demo.seed}", *demo.overrides])
    pretrain(demo.out / "stores" / TRAIN, demo.run, recipe, device="cpu", progress=demo.progress)


def _zero_shot(demo: _Demo) -> None:
    for which, features in demo.features.items():
        name = demo.names[which]
        for task in TASKS:
            # No patient of the test set was ever seen, so that all of it can be scored.
            options = EvalOptions(split="all", seed=demo.seed)
            result = zero_shot_task(features, task, options, model_name=name)
            write_json(demo.out / "results" / f"zeroshot-{which}-{task}.json", result)
            demo.results[f"{which}/{task}"] = result


def _probe(demo: _Demo) -> None:
    for which, features in demo.features.items():
        name = demo.names[which]
        for task in TASKS:
            options = EvalOptions(fractions=FRACTIONS, draws=300)
            result = probe_task(features, task, options, model_name=name)
            write_json(demo.out / "results" / f"probe-{which}-{task}.json", result)
            demo.probes[f"{which}/{task}"] = result["fractions"]


def _report(demo: _Demo) -> None:
    config = [f"seed={demo.seed}", *demo.writer]
    model, store = demo.models["deri"], demo.store(TRAIN)
    demo.reports = write_reports(demo.out, model, store, str(demo.run), config, demo.seed, demo.progress)


def _page(demo: _Demo) -> None:
    assert demo.reports is not None
    examples = _examples(demo.models["deri"], demo.store(TEST))
    path, headline = demo.out / "index.html", _headline(demo.results)
    write_page(path, demo.run, demo.results, demo.probes, headline, examples, demo.reports)


def _headline(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Macro AUROC over the findings with enough positives, for the trained and the random encoder."""
    trained, random = (results[f"{which}/labels"]["classes"] for which in ("deri", "random"))
    scored = [name for name, c in trained.items() if c["auroc"] is not None and c["n_pos"] >= MIN_POSITIVES]
    return {
        "findings": len(scored),
        "min_positives": MIN_POSITIVES,
        "macro_auroc": float(np.mean([trained[name]["auroc"] for name in scored])),
        "macro_auroc_random": float(np.mean([random[name]["auroc"] for name in scored])),
        "scored": scored,
    }


def _examples(model: EcgTextModel, store: Store, top: int = 5) -> list[dict[str, Any]]:
    """The first recording of each of three findings, with its best-scoring texts (chosen before any score is seen)."""
    rows = store.task_rows("labels", "all")
    classes, labels = store.labels("labels", rows)
    prompts = prompts_for("labels", classes)
    weights = class_weights(model, prompts)
    names = [finding_name(code) for code in classes]
    examples = []
    for finding in SHOWN:
        position = int(np.flatnonzero(labels[:, classes.index(finding)])[0])
        row = int(rows[position])
        scores = (embed_store(model, store, rows[position : position + 1]) @ weights.T)[0]
        report = store.report_ids[row]
        examples.append(
            {
                "ecg": ECG(store.signals([row])[0], store.fs, {}),
                "title": finding_name(finding),
                "record": str(store.index["record_id"].iloc[row]),
                "report": store.reports[report] if report >= 0 else "",
                "truth": [names[c] for c in np.flatnonzero(labels[position])],
                "texts": [
                    (names[c], prompts[classes[c]][0], float(scores[c]), bool(labels[position, c]))
                    for c in np.argsort(-scores)[:top]
                ],
            }
        )
    return examples


def _clear(out: Path) -> None:
    """Remove an earlier demo; anything else in ``out`` is the user's and stays."""
    if out.exists() and any(out.iterdir()):
        if not (out / ".deri-demo").is_file():
            raise DeriError(f"{out} exists and is not a demo of before; name another --out")
        shutil.rmtree(out)
    write_text(out / ".deri-demo", "written by deri demo; deri demo may delete this directory\n")
