"""Report writers against the baselines, on patients that the writers have not seen. Prints one JSON object.

    python benchmarks/report_writer.py --model deri-sim --out DIR [--records 40000] [--test-records 2000]
        [--memory tokens mixed aligned] [--seeds 1] [--encoder frozen] [--set KEY=VALUE …]
    python benchmarks/report_writer.py --model deri-open --out DIR --store STORE --language reference

Without --store it simulates the layout of MIMIC-IV-ECG and holds out patients for validation and for the test. It
trains a ``scratch`` writer for each memory and seed (KEY=VALUE as in ``deri report train``), and scores it beside the
three baselines of ``deri report baselines``: BLEU, ROUGE-L, findings by the rule-based labeller (macro over findings
that at least ``--min-count`` test reports assert), with 95 % intervals by patient, and paired differences in the same
draws. ``train_seconds`` is all that ``deri report train`` does, the encoding of the training records included, and
counts every session of a run that was stopped and resumed. How texts are searched for is chosen on the val split: the
length penalty of the beam search.
``--language reference``: writers and baselines write in the language of each record's own report. ``classifier``: the
reports as a classifier of the tasks of PTB-XL that the store has, read by the labeller (``deri report classify``).
``completed``: drafts with a sentence for each finding that they leave out (``deri report generate --complete``).

What is done stays in DIR: run it again and it goes on where it was. Give the model other patients than it was trained
on: ``--seed`` draws them (100; the built-in model was trained on those of seed 0).
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from deri.datasets import open_dataset
from deri.evaluation.features import Features
from deri.files import write_json
from deri.generation.baselines import KINDS, baseline_reports
from deri.generation.classify import classify_reports
from deri.generation.completion import completed
from deri.generation.config import MemoryKind, load_config
from deri.generation.data import rows_with_report
from deri.generation.evaluate import evaluate_reports, paired_difference
from deri.generation.tables import generated_table, store_columns, write_table
from deri.generation.train import train_writer
from deri.generation.writer import ReportWriter, calibrate_directory
from deri.models import load_model
from deri.progress import Progress
from deri.simulate import simulate
from deri.store import Store, prepare

LAYOUT = "mimic-iv-ecg"
EPOCHS = {"frozen": 8, "tuned": 4}  # frozen: some twenty minutes of one core at the default size
WORD_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l")
MEMORIES: tuple[MemoryKind, ...] = ("tokens", "mixed", "aligned")
SPARE = 1.08  # patients are held out whole: ask for a little more than is needed


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def store_of(options: argparse.Namespace) -> Store:
    """The store that was named, or the simulated one, made unless it is there."""
    if options.store is not None:
        return Store.open(options.store)
    place = options.out / f"{LAYOUT}-{options.records}-{options.test_records}-{options.seed}"
    if not (place / "store" / "store.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        simulate(LAYOUT, options.records, place / "source", seed=options.seed)
        dataset = open_dataset(LAYOUT, place / "source")
        dataset.test_fraction = min(0.5, SPARE * options.test_records / options.records)
        dataset.val_fraction = 0.05
        prepare(dataset, place / "store", workers=options.threads, seed=options.seed)
        shutil.rmtree(place / "source")
    return Store.open(place / "store")


class Watch(Progress):
    """Seconds of work in a file, so that a killed session counts too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before = float(json.loads(path.read_text())["seconds"]) if path.is_file() else 0.0
        self.started = self.saved = time.perf_counter()

    def message(self, text: str) -> None:
        say(text)

    def update(self, done: int, total: int) -> None:
        if time.perf_counter() - self.saved > 5:
            self.save()

    def save(self) -> float:
        self.saved = time.perf_counter()
        seconds = self.before + self.saved - self.started
        write_json(self.path, {"seconds": seconds})
        return seconds


def train(options: argparse.Namespace, model: Any, store: Store, memory: MemoryKind, seed: int) -> dict[str, Any]:
    """Train one writer, or go on, or find that it is done; what is known of it."""
    run = options.out / "writers" / f"{memory}-{options.encoder}-{seed}"
    config = load_config(
        [f"epochs={EPOCHS[options.encoder]}", *options.set],
        memory=memory,
        encoder=options.encoder,
        seed=seed,
        cache=str(options.out / "memory"),
    )
    done = run / "done.json"
    if not done.is_file():
        run.mkdir(parents=True, exist_ok=True)
        watch = Watch(run / "seconds.json")
        train_writer(model, store, run, config, model_name=options.model, resume=True, device="cpu", progress=watch)
        calibrate_directory(run / "writer", store)
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        val = [line for line in lines if line["split"] == "val"]
        best = min(val, key=lambda line: line["loss"])
        write_json(
            done,
            {
                "train_seconds": round(watch.save(), 1),
                "val_loss": best["loss"],
                "best_epoch": best["epoch"],
                "epochs": len(val),
                "config": config.model_dump(exclude={"cache"}),
            },
        )
    known: dict[str, Any] = json.loads(done.read_text())
    if known["config"] != config.model_dump(mode="json", exclude={"cache"}):
        sys.exit(f"{run} was trained with another configuration: name another --out, or remove it")
    return known | {"run": str(run)}


def written(
    options: argparse.Namespace, store: Store, split: str, name: str, write: Callable[[np.ndarray], list[str]]
) -> pd.DataFrame:
    """The reports of a split by a system; ``write`` makes them of rows unless they are there."""
    path = options.out / "generated" / f"{split}-{name}.parquet"
    if not path.is_file():
        rows, _ = rows_with_report(store, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        write_table(generated_table(store_columns(store, rows), write(rows)), path)
        say(f"{name}: {len(rows)} reports of {split} in {time.perf_counter() - started:.0f} s")
    return pd.read_parquet(path)


def ways(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What is tried on the val split to search for texts, by name."""
    return {f"{options.beams} {p:g}": {"beams": options.beams, "length_penalty": p} for p in options.length_penalty}


def by_writer(options: argparse.Namespace, store: Store, run: str) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The reports of val and test, searched for in the way of highest BLEU-4 + macro finding-F1 on val; and the way."""

    def reports(split: str, way: str) -> pd.DataFrame:
        def write(rows: np.ndarray) -> list[str]:
            writer = ReportWriter.from_pretrained(run)
            return writer.generate_store(store, rows, language=options.language, **ways(options)[way]).texts

        return written(options, store, split, f"{Path(run).name}-{way.replace(' ', '-')}", write)

    tried = {}
    for way in ways(options):
        table = reports("val", way)
        found = evaluate_reports(list(table["reference"]), list(table["generated"]), draws=0, min_count=5)
        tried[way] = found["metrics"]["bleu_4"]["value"] + (found["findings"]["macro"]["f1"] or 0.0)
    best = max(tried, key=lambda way: tried[way])
    return {split: reports(split, best) for split in ("val", "test")}, {"decoding": best, "tried_on_val": tried}


def with_gaps(options: argparse.Namespace, store: Store, run: str, tables: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """The reports of val and test with what the writer's calibration says that they leave out."""
    writer = ReportWriter.from_pretrained(run)
    features = Features(writer.encoder, store, options.out / "embeddings")
    found = {}
    for split, table in tables.items():
        drafts = list(table["generated"])
        gaps = writer.confidence.gaps(features.rows(rows_with_report(store, split)[0]), drafts)
        codes = [[gap["finding"] for gap in one] for one in gaps]
        found[split] = table.assign(generated=[completed(*pair) for pair in zip(drafts, codes, strict=True)])
    return found


def classifier(store: Store, tables: dict[str, pd.DataFrame], draws: int) -> dict[str, Any]:
    """The reports as a classifier of PTB-XL's tasks that the store has; the labeller reads them."""
    found = {
        task: classify_reports(store, task, tables["test"], tables["val"], draws=draws)
        for task in store.tasks
        if task.startswith("ptbxl-")
    }
    names = ("macro_f1", "macro_f1_ci", "accuracy", "accuracy_ci")
    return {task: {name: result[name] for name in names} for task, result in found.items()}


def row(result: dict[str, Any]) -> dict[str, Any]:
    """The figures of the table, of all that is known of a system."""
    findings = result["findings"]
    return {
        **{name: result["metrics"][name] for name in WORD_METRICS if name in result["metrics"]},
        "corpus_bleu": result["corpus_bleu"],
        "finding_f1": {"value": findings["macro"]["f1"], "ci": findings["macro"]["ci"]},
        "findings": findings["macro"]["findings"],
        "finding_f1_micro": findings["micro"]["f1"],
        "per_finding": {
            code: {name: entry[name] for name in ("n", "precision", "recall", "f1")}
            for code, entry in findings["per_finding"].items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the writers, e.g. epochs=12")
    parser.add_argument("--model", required=True, help="ECG model: directory, run, built-in name, random:RECIPE")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--store", type=Path, help="with reports in train, val and test; else one is simulated")
    parser.add_argument("--language", help="en | de | sv | reference: that of each record's own report")
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--test-records", type=int, default=2_000)
    parser.add_argument("--memory", nargs="+", choices=MEMORIES, default=list(MEMORIES))
    parser.add_argument("--seeds", type=int, default=1, help="writers of each memory")
    parser.add_argument("--encoder", choices=("frozen", "tuned"), default="frozen")
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--length-penalty", nargs="*", type=float, default=[1.0, 2.0, 3.0], help="chosen on val")
    parser.add_argument("--min-count", type=int, default=20)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=100, help="of the simulated patients")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    store = store_of(options)
    rows, _ = rows_with_report(store, "test")
    if options.store is None and len(rows) < options.test_records:
        sys.exit(f"only {len(rows)} test records have a report, {options.test_records} are wanted: raise --records")
    columns = store_columns(store, rows)
    model = load_model(options.model)
    features = Features(model, store, options.out / "embeddings")

    def baseline(kind: str, split: str) -> pd.DataFrame:
        asked = {"language": options.language, "features": features}
        return written(
            options, store, split, kind, lambda rows: baseline_reports(model, store, rows, (kind,), **asked)[kind]
        )

    tables = {kind: {split: baseline(kind, split) for split in ("val", "test")} for kind in KINDS}
    about: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for memory in options.memory:
        for seed in range(options.seeds):
            name = f"{memory}-{seed}"
            # A tuned encoder is changed by its training: every run starts with the given one.
            own = load_model(options.model) if options.encoder == "tuned" else model
            about[name] = train(options, own, store, memory, seed)
            tables[name], chosen = by_writer(options, store, about[name]["run"])
            about[name] |= chosen
            tables[f"{name} completed"] = with_gaps(options, store, about[name]["run"], tables[name])
            about[f"{name} completed"] = {}
    texts = {name: list(table["test"]["generated"]) for name, table in tables.items()}
    references, subjects = columns["reference"], columns["subject"]
    scoring = {"min_count": options.min_count, "draws": options.draws}
    systems = {
        name: row(evaluate_reports(references, generated, subjects, **scoring))
        | {"classifier": classifier(store, tables[name], options.draws)}
        | about[name]
        for name, generated in texts.items()
    }
    names = [name for name in texts if name not in KINDS]
    pairs = list(itertools.product(names, KINDS))
    pairs += [(f"{a}-{s}", f"{b}-{s}") for a, b in itertools.pairwise(options.memory) for s in range(options.seeds)]
    result = {
        "model": options.model,
        "records": {split: len(rows_with_report(store, split)[0]) for split in ("train", "val", "test")},
        "test_patients": len(set(subjects)),
        "min_count": options.min_count,
        "language": options.language,
        "threads": options.threads,
        "systems": systems,
        "mean_of_seeds": {
            memory: {
                "bleu_4": float(np.mean([systems[f"{memory}-{s}"]["bleu_4"]["value"] for s in range(options.seeds)])),
                "finding_f1": float(
                    np.mean([systems[f"{memory}-{s}"]["finding_f1"]["value"] for s in range(options.seeds)])
                ),
                "val_loss": float(np.mean([systems[f"{memory}-{s}"]["val_loss"] for s in range(options.seeds)])),
            }
            for memory in options.memory
        },
        "differences": {
            f"{a} − {b}": paired_difference(references, texts[a], texts[b], subjects, **scoring) for a, b in pairs
        },
    }
    write_json(options.out / "table.json", result)
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
