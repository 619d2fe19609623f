"""Train a built-in model: simulate, prepare, pre-train; score and calibrate it on records that it has not seen.

    python tools/pretrained.py deri-sim [--ptb-xl DIR] [--records 60000]
    python tools/pretrained.py deri-open --ptb-xl DIR

``deri-open`` starts from the ``deri-sim`` of this tree and needs the PTB-XL recordings of ``--ptb-xl``: it is trained
on folds 1–8, its epoch is chosen on fold 9. The work folder keeps what is done: an interrupted training continues.

``deri-sim`` is calibrated on folds 1–8. ``deri-open`` has seen them: a twin is trained by the same recipe on folds 1–7
and calibrated on fold 8, and its maps from scores to likelihood ratios are taken for ``deri-open``, with the
prevalences of folds 1–8. ``--only calibration`` does this alone, for the weights in ``--out``; ``--twin MODEL`` takes a
trained twin.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from deri._version import __version__
from deri.datasets import open_dataset
from deri.evaluation.calibration_fit import calibrate_task
from deri.evaluation.features import Features
from deri.evaluation.options import EvalOptions
from deri.evaluation.zero_shot import zero_shot_task
from deri.models import EcgTextModel, load_model
from deri.models.build import build_model
from deri.models.calibration import TaskCalibration, prevalence_of, save_calibration, with_task
from deri.progress import Progress
from deri.recipes import load_recipe
from deri.simulate import simulate
from deri.store import Store, prepare
from deri.training import pretrain

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 40_000_000
TASKS = ("ptbxl-super", "ptbxl-sub", "ptbxl-form", "ptbxl-rhythm")
CALIBRATED = (*TASKS, "labels")
SEED = 20  # of the simulated patients; the other half has the next one
Results = dict[str, dict[str, Any]]

ABOUT = {
    "deri-sim": (
        "a small DERI trained on simulated ECGs alone",
        "No recording of a real person was used to train this model.",
        "[ecg, electrocardiogram, contrastive-learning, simulation]",
        "It knows only what the simulator draws. Findings that were not simulated, paediatric ECGs, unusual lead\n"
        "positions and devices are outside of what it has seen.",
    ),
    "deri-open": (
        "a small DERI trained on simulated ECGs and PTB-XL",
        "It was trained on simulated recordings and on real ones of PTB-XL (Wagner et al., 2020, version 1.0.3, CC BY\n"
        "4.0, https://doi.org/10.13026/kfzx-aw45): these weights are derived from them, with thanks to their authors.",
        "[ecg, electrocardiogram, contrastive-learning, simulation, ptb-xl]",
        "Real recordings come from one German archive of 1989–1996, twelve leads, adults mostly. Rare findings have\n"
        "few real examples. Do not report its figures on PTB-XL folds 1–8, on which it was trained.",
    ),
}

CALIBRATION_TEXT = {
    "deri-sim": "`calibration.json` makes probabilities of them, learnt from PTB-XL folds 1–8.",
    "deri-open": (
        "`calibration.json` makes probabilities of them, learnt from PTB-XL\nfold 8 with a twin: the same recipe on "
        "folds 1–7. The maps are taken as they are for these weights, with the\nprevalences of folds 1–8."
    ),
}


NOT_TRANSFERRED = ("ABQRS",)
"""Findings that deri-open hardly knows, and whose map from the twin was wrong on fold 9: no probability is better."""


class Lines(Progress):
    """Prints messages."""

    def message(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(ABOUT))
    parser.add_argument(
        "--ptb-xl", type=Path, help="folder of PTB-XL, whole or a part, to train deri-open on and to score"
    )
    parser.add_argument("--records", type=int, default=60_000, help="simulated recordings")
    parser.add_argument("--only", choices=["calibration"], help="leave the weights as they are")
    parser.add_argument("--twin", type=Path, help="a trained twin of deri-open")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default=None)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "pretrained")
    parser.add_argument("--out", type=Path, help="[default: its place in the package]")
    options = parser.parse_args()
    if options.name == "deri-open" and options.ptb_xl is None:
        parser.error("deri-open needs --ptb-xl")

    out = options.out or ROOT / "src/deri/models/pretrained" / options.name
    real = real_store(options, "ptb-xl") if options.ptb_xl else None
    if options.only != "calibration":
        train_model(options, real, out)
    if real is not None:
        calibrate(options, real, out)


def train_model(options: argparse.Namespace, real: Store | None, out: Path) -> None:
    """Train the model and write it into ``out``."""
    simulated = [simulated_store(options, seed) for seed in (SEED, SEED + 1)]
    stores = simulated if options.name == "deri-sim" or real is None else [real, *simulated]
    model = load_model(trained(options, stores, options.name))
    scored = {"simulated patients": (simulated[0], "test")} | ({"PTB-XL, fold 9": (real, "val")} if real else {})
    results = {what: scores(model, store, split) for what, (store, split) in scored.items()}
    model.save_pretrained(out, card=card(options.name, model, stores, results))
    size = sum(path.stat().st_size for path in out.iterdir())
    if size > LIMIT_BYTES:
        shutil.rmtree(out)
        sys.exit(f"{out} would take {size:,} bytes, more than {LIMIT_BYTES:,}: choose a smaller recipe")
    print(json.dumps({"out": str(out), "bytes": size} | {
        what: {task: one["macro_auroc_reliable"] for task, one in found.items()} for what, found in results.items()
    }, indent=2))  # fmt: skip


def trained(options: argparse.Namespace, stores: list[Store], place: str) -> Path:
    """The run of the recipe of the model on ``stores``."""
    return pretrain(
        [store.path for store in stores],
        options.work / place,
        load_recipe(options.name, options.set),
        init="deri-sim" if options.name == "deri-open" else None,
        resume=True,
        device=options.device,
        progress=Lines(),
    )


def calibrate(options: argparse.Namespace, real: Store, out: Path) -> None:
    """Write the calibration of the model in ``out`` for the tasks of PTB-XL and its statements."""
    model = load_model(out)
    if options.name == "deri-sim":
        features = Features(model, real, progress=Lines())
        learnt = {task: calibrate_task(features, task, "train") for task in CALIBRATED}
    else:
        store = real_store(options, "ptb-xl-folds-1-7")
        simulated = [] if options.twin else [simulated_store(options, seed) for seed in (SEED, SEED + 1)]
        twin = load_model(options.twin or trained(options, [store, *simulated], "deri-open-twin"))
        features = Features(twin, store, progress=Lines())
        learnt = {task: of_twin(calibrate_task(features, task, "val"), real, task) for task in CALIBRATED}
    model.calibration = None
    for task, one in learnt.items():
        model.calibration = with_task(model, task, one)
    save_calibration(out, model)
    print(json.dumps({"calibration": {task: len(one.classes) for task, one in learnt.items()}}))


def of_twin(learnt: TaskCalibration, real: Store, task: str) -> TaskCalibration:
    """The maps of the twin with the prevalences of folds 1–8, which its own fold knows less well."""
    names, labels = real.labels(task, real.task_rows(task, "train"))
    share = dict(zip(names, prevalence_of(labels).tolist(), strict=True))
    classes = {
        name: one.model_copy(update={"prevalence": share[name]})
        for name, one in learnt.classes.items()
        if name not in NOT_TRANSFERRED
    }
    return learnt.model_copy(update={"classes": classes, "scores_of": "a twin that was not trained on these records"})


def simulated_store(options: argparse.Namespace, seed: int) -> Store:
    """Half of the simulated recordings, in PTB-XL's layout, whose labels are the findings that were simulated."""
    records = options.records // 2
    place = options.work / f"simulated-{records}-{seed}"
    if not (place / "store" / "store.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        simulate("ptb-xl", records, place / "source", seed=seed)
        prepare(open_dataset("ptb-xl", place / "source"), place / "store", workers=options.workers)
        shutil.rmtree(place / "source")
    return Store.open(place / "store")


def real_store(options: argparse.Namespace, name: str) -> Store:
    """The store of the PTB-XL folder; in ``ptb-xl-folds-1-7`` fold 8 is the validation and fold 9 the test split."""
    place = options.work / name
    if not (place / "store.json").is_file():
        source = options.ptb_xl
        if name != "ptb-xl":
            source = shifted(source, options.work / "shifted")
        prepare(open_dataset("ptb-xl", source), place, workers=options.workers)
    return Store.open(place)


def shifted(source: Path, folder: Path) -> Path:
    """PTB-XL with folds 8 and 9 counted as 9 and 10, and without fold 10; recordings are links."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "ptbxl_database.csv":
            (folder / path.name).symlink_to(path.resolve())
    table = pd.read_csv(source / "ptbxl_database.csv", dtype=str)
    fold = table["strat_fold"].astype(float).astype(int)
    table["strat_fold"] = fold + (fold >= 8)
    table[fold < 10].to_csv(folder / "ptbxl_database.csv", index=False)
    return folder


def scores(model: EcgTextModel, store: Store, split: str) -> Results:
    """Zero-shot results of the model by task, with the mean AUROC of the same network untrained as ``random``."""
    trained = Features(model, store)
    random = Features(build_model(model.config, seed=1, text_encoder=model.text_encoder).eval(), store)
    options = EvalOptions(split=split, seed=0, draws=1000)
    out = {}
    for task in TASKS:
        out[task] = zero_shot_task(trained, task, options, model_name="model")
        untrained = zero_shot_task(random, task, options, model_name="random")
        out[task]["random"] = untrained["macro_auroc_reliable"]
    return out


def card(name: str, model: EcgTextModel, stores: list[Store], results: dict[str, Results]) -> str:
    """What the model is, in Markdown."""
    title, data, tags, limits = ABOUT[name]
    signal = model.config.signal
    millions = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("text_encoder.")) / 1e6
    pairs = " + ".join(f"{len(store.rows('train')):,}" for store in stores)
    parts = "\n".join(figures(what, found) for what, found in results.items())
    return f"""---
library_name: deri
license: apache-2.0
tags: {tags}
---

# {name}: {title}

{data}
**It is for research: not a medical device, and nothing that it prints is a diagnosis.**

- Method: DERI with the recipe `{model.recipe_name}`; {model.config.backbone} of base width {model.config.base_width},
  embeddings of {model.config.dim} dimensions, {millions:.2f} M parameters outside the text encoder (all-MiniLM-L6-v2,
  frozen, from the package extra `offline`).
- Input: {signal.samples / signal.fs:g} s at {signal.fs:g} Hz, twelve leads in mV.
- Training pairs: {pairs} (deri {__version__}), one seed; the epoch was chosen by the loss of held-out pairs.
- Half of the texts are the package's prompts of a record's classes (`train.class_texts`): the classes of PTB-XL are
  not new to it, and its "zero-shot" figures on them are those of a model trained in words.
- Made by `python tools/pretrained.py {name}`.

## Figures

Zero-shot with the class prompts of the package, macro AUROC over the classes with at least ten positives (95 %
interval by patient); `random`: the same network untrained.

{parts}
## Limits

{limits}
Scores rank recordings for one text. {CALIBRATION_TEXT[name]}
Not for monitoring, triage or treatment.
"""


def figures(what: str, results: Results) -> str:
    """One table."""
    rows = []
    for task, found in results.items():
        value, (low, high) = found["macro_auroc_reliable"]["value"], found["macro_auroc_reliable"]["ci"]
        classes = [c for c in found["classes"].values() if not c["few_positives"]]
        positives = sum(c["n_pos"] for c in classes)
        random = found["random"]["value"]
        rows.append(f"| {task} | {len(classes)} | {positives} | {value:.3f} ({low:.3f} … {high:.3f}) | {random:.3f} |")
    n = next(iter(results.values()))["n"]
    head = f"### {what} ({n:,} recordings)\n\n| task | classes | positives | AUROC | random |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
