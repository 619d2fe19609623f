"""The demonstration: the whole main job on simulated data, with a page of results. ``deri demo`` runs it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deri.datasets import open_dataset
from deri.demo.page import write_page
from deri.demo.reports import write_reports
from deri.ecg import ECG
from deri.errors import DeriError
from deri.evaluation.embed import Features, embed_store
from deri.evaluation.probe import probe_task
from deri.evaluation.zero_shot import class_weights, zero_shot_task
from deri.files import write_json
from deri.models import load_model
from deri.recipes import load_recipe
from deri.reports import class_names, prompts_for
from deri.simulate import simulate
from deri.store import Store, prepare
from deri.training import pretrain

TASKS = ("labels", "ptbxl-super", "ptbxl-rhythm", "ptbxl-form", "ptbxl-sub")
FRACTIONS = (10.0, 100.0)
MIN_POSITIVES = 10
TEST_FRACTION = 0.06
"""Of the patients with reports: neither the encoder nor the report writer sees them."""
SHOWN = ("AFIB", "CLBBB", "PVC")

Say = Callable[[str], None]
Show = Callable[[int, int], None]


def run_demo(
    out: str | Path,
    *,
    train_records: int = 5200,
    test_records: int = 800,
    seed: int = 0,
    workers: int = 2,
    overrides: tuple[str, ...] = (),
    writer: tuple[str, ...] = (),
    say: Say = print,
    show: Show | None = None,
) -> dict[str, Any]:
    """Simulate, prepare, pre-train, evaluate and write reports into ``out``; returns (and writes) ``demo.json``.

    Pre-training sees simulated patients in the layout of MIMIC-IV-ECG; zero-shot is scored on other simulated patients
    in the layout of PTB-XL, beside the same network with random weights. A report writer is trained on the frozen
    encoder and the same reports, and scored on patients of that layout whom neither has seen, beside baselines. A demo
    of before in ``out`` is replaced.
    """
    out = Path(out)
    started = time.perf_counter()
    timings: dict[str, float] = {}
    _clear(out)

    def stage(name: str) -> None:
        timings[name] = round(time.perf_counter() - started - sum(timings.values()), 1)
        say(f"{name}: {timings[name]:.1f} s")

    stores = {}
    for layout, records in (("mimic-iv-ecg", train_records), ("ptb-xl", test_records)):
        source = out / "data" / layout
        simulate(layout, records, source, seed=seed, progress=show)
        dataset = open_dataset(layout, source)
        if layout == "mimic-iv-ecg":
            # Retrieval among two per cent of a small set would be over a hundred pairs; three times as many say more.
            dataset.val_fraction, dataset.test_fraction = 0.06, TEST_FRACTION
        summary = prepare(dataset, out / "stores" / layout, workers=workers, seed=seed)
        say(summary.text())
        stores[layout] = Store.open(out / "stores" / layout)
    stage("simulate and prepare")
    run = out / "run"
    recipe = load_recipe("demo", [f"train.seed={seed}", *overrides])
    pretrain(stores["mimic-iv-ecg"].path, run, recipe, device="cpu", say=say, show=show)
    stage("pre-train")
    test = stores["ptb-xl"]
    names = {"deri": str(run), "random": f"random:{run / 'recipe.yaml'}@{seed + 1}"}
    models = {which: load_model(name) for which, name in names.items()}
    features = {which: Features(model, test) for which, model in models.items()}
    results: dict[str, dict[str, Any]] = {}
    for which, model in models.items():
        for task in TASKS:
            # No patient of the test set was ever seen, so that all of it can be scored.
            result = zero_shot_task(
                model, test, task, model_name=names[which], split="all", seed=seed, features=features[which]
            )
            write_json(out / "results" / f"zeroshot-{which}-{task}.json", result)
            results[f"{which}/{task}"] = result
    stage("zero-shot")
    probes: dict[str, dict[str, Any]] = {}
    for which, model in models.items():
        for task in TASKS:
            result = probe_task(
                model, test, task, model_name=names[which], fractions=FRACTIONS, draws=300, features=features[which]
            )
            write_json(out / "results" / f"probe-{which}-{task}.json", result)
            probes[f"{which}/{task}"] = result["fractions"]
    stage("probe")
    reports = write_reports(
        out, models["deri"], stores["mimic-iv-ecg"], model_name=str(run), seed=seed, overrides=writer, say=say
    )
    stage("report")
    headline = _headline(results)
    examples = _examples(models["deri"], test)
    demo = {"seed": seed, "train_records": train_records, "test_records": test_records, **headline}
    write_page(out / "index.html", run, results, probes, headline, examples, reports)
    stage("page")
    demo |= {"reports": reports.scores(), "reports_n": reports.n}
    demo["seconds"] = {**timings, "total": round(time.perf_counter() - started, 1)}
    write_json(out / "demo.json", demo)
    return demo


def _headline(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Macro AUROC over the findings with enough positives, for the trained and the random encoder."""
    trained, random = (results[f"{which}/labels"]["classes"] for which in ("deri", "random"))
    scored = [name for name, c in trained.items() if c["auroc"] is not None and c["n_pos"] >= MIN_POSITIVES]
    mean = lambda classes: float(np.mean([classes[name]["auroc"] for name in scored]))  # noqa: E731
    return {
        "findings": len(scored),
        "min_positives": MIN_POSITIVES,
        "macro_auroc": mean(trained),
        "macro_auroc_random": mean(random),
        "scored": scored,
    }


def _examples(model: Any, store: Store, top: int = 5) -> list[dict[str, Any]]:
    """The first recording of each of three findings, with its best-scoring texts (chosen before any score is seen)."""
    rows = store.task_rows("labels", "all")
    classes, labels = store.labels("labels", rows)
    prompts = prompts_for("labels", classes)
    weights = class_weights(model, prompts)
    known = class_names("labels")
    names = {code: known.get(code, known.get(code.strip("_"), code)) for code in classes}
    examples = []
    for finding in SHOWN:
        position = int(np.flatnonzero(labels[:, classes.index(finding)])[0])
        row = rows[position : position + 1]
        scores = (embed_store(model, store, row) @ weights.T)[0]
        truth = [classes[c] for c in np.flatnonzero(labels[position])]
        best = np.argsort(-scores)[:top]
        examples.append(
            {
                "ecg": ECG(store.signals(row)[0], store.fs, {}),
                "record": str(store.index["record_id"].iloc[int(row[0])]),
                "report": store.reports[store.report_ids[int(row[0])]] if store.report_ids[int(row[0])] >= 0 else "",
                "truth": [names[code] for code in truth],
                "texts": [
                    (names[classes[c]], prompts[classes[c]][0], float(scores[c]), classes[c] in truth) for c in best
                ],
            }
        )
    return examples


def _clear(out: Path) -> None:
    """Remove a demo of before; anything else in ``out`` is the user's and stays."""
    if not out.exists() or not any(out.iterdir()):
        out.mkdir(parents=True, exist_ok=True)
    elif (out / ".deri-demo").is_file():
        shutil.rmtree(out)
        out.mkdir(parents=True)
    else:
        raise DeriError(f"{out} exists and is not a demo of before; name another --out")
    (out / ".deri-demo").write_text("written by deri demo; deri demo may delete this directory\n", encoding="utf-8")
