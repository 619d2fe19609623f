"""Single bits flipped at random on the disk: what is noticed, what has no effect, what is silently wrong. JSON.

    python benchmarks/bit_flips.py [--flips 1000] [--seed 0] [--rounds 5]

A store of simulated recordings with all that lies beside it, a run of deri pretrain, the model in it with a calibration
and a search index are made anew. Each flip is of one bit of a byte drawn at random in a file drawn at random. Then all
that deri reads of that folder is read and compared with what was read before: a `DeriError` is `noticed`, equal values
are `no_effect`, other values `silently_wrong` and any other exception is a `traceback`; of the last two the places are
named, and the script ends with code 1.

`verification` is what comparing each recording with its checksum costs of `deri embed` with the built-in model, the
cheapest encoder there is: processor time of one thread, median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from deri.errors import DeriError
from deri.evaluation.calibration_fit import calibrate_task
from deri.evaluation.features import Features, embed_store
from deri.evaluation.search import Index, build_index
from deri.files import read_sealed
from deri.models import TextEncoder, load_model
from deri.models.calibration import save_calibration, with_task
from deri.models.tensors import load_tensors
from deri.models.text import build_text_encoder
from deri.recipes import Recipe, load_recipe
from deri.store import Store, TextFeatures
from deri.store.measurements import measure_store
from deri.training import pretrain
from deri.training.log import read_metrics

TASK = "ptbxl-super"


@dataclass
class Outcomes:
    """What became of flips; ``wrong`` names the places of the last two kinds."""

    noticed: int = 0
    no_effect: int = 0
    silently_wrong: int = 0
    traceback: int = 0
    wrong: list[str] = field(default_factory=list)


def flip_bits(folder: Path, read: Callable[[Path], list[Any]], work: Path, n: int, seed: int) -> Outcomes:
    """Flip a bit ``n`` times, each in a file drawn at random of a fresh copy in ``work``, and compare what is read."""
    draw, copy, outcomes = random.Random(seed), work / folder.name, Outcomes()
    expected = read(folder)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(n):
        shutil.copytree(folder, copy)
        name = draw.choice(files)
        data = bytearray((folder / name).read_bytes())
        place, bit = draw.randrange(len(data)), draw.randrange(8)
        data[place] ^= 1 << bit
        (copy / name).write_bytes(data)
        where = f"bit {bit} of byte {place} of {name}"
        try:
            np.testing.assert_equal(read(copy), expected)
            outcomes.no_effect += 1
        except DeriError:
            outcomes.noticed += 1
        except AssertionError:
            outcomes.silently_wrong += 1
            outcomes.wrong.append(where)
        except Exception as error:  # what a user would see as a defect of deri
            outcomes.traceback += 1
            outcomes.wrong.append(f"{where}: {type(error).__name__}: {error}")
        shutil.rmtree(copy)
    return outcomes


def of_store(encoder: TextEncoder) -> Callable[[Path], list[Any]]:
    """All that a store gives, with the text features of ``encoder`` and the measurements beside it."""

    def read(path: Path) -> list[Any]:
        store = Store.open(path)
        rows = store.rows("all", windows=True)
        labels = [store.labels(task, store.task_rows(task)) for task in store.tasks]
        features, ids = TextFeatures.build(store, encoder), np.arange(len(store.reports))
        return [
            store.signals_int16(rows), store.fs, store.reports, store.report_ids, labels, store.index.to_csv(),
            store.rejects.to_csv(), store.lead_mask(rows), measure_store(store), features.pooled(ids),
            features.tokens(ids),
        ]  # fmt: skip

    return read


def of_model(path: Path) -> list[Any]:
    """All of a model that decides what it says: tensors, configuration, tokenizer, calibration."""
    model = load_model(path, device="cpu")
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    tokens = [part.numpy() for part in model.text_encoder.tokenize(["sinus rhythm", "Vorhofflimmern mit 90/min."])]
    calibration = model.calibration and model.calibration.model_dump_json()
    return [state, model.config.model_dump_json(), model.recipe_name, tokens, calibration]


def of_run(path: Path) -> list[Any]:
    """The model of a run, its checkpoint, recipe, log and what it tells of itself."""
    tensors, about = load_tensors(path / "checkpoints" / "last.safetensors", "copy it again")
    state = {name: value.numpy() for name, value in tensors.items()}
    recipe = load_recipe(str(path / "recipe.yaml")).model_dump_json()
    return [of_model(path), state, about, recipe, read_metrics(path), read_sealed(path / "run.json", "copy it again")]


def of_index(path: Path) -> list[Any]:
    """What an index knows, and what it finds."""
    index = Index.open(path)
    return [index.table.to_pydict(), index.search(np.ones(index.meta["model"]["dim"])).to_dict()]


def make_source(folder: Path) -> list[str]:
    """80 simulated recordings and a small BERT in ``folder``; returns the overrides of a small recipe with it."""
    from transformers import BertConfig, BertModel

    from deri.models.text import load_tokenizer
    from deri.simulate import simulate

    simulate("ptb-xl", 80, folder / "source", seed=5)
    tokenizer = load_tokenizer("minilm")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "bert")
    tokenizer.save_pretrained(str(folder / "bert"))
    small = ["model.base_width=4", "model.dim=32", "model.decoder.hidden=16", "model.decoder.head_dim=8"]
    quick = ["train.epochs=2", "train.batch_size=16", "train.log_steps=1", f"model.text.encoder={folder / 'bert'}"]
    return small + quick


def make(folder: Path) -> tuple[Path, Recipe]:
    """A store and a run with a calibrated model in ``folder``, and an index; returns the run and its recipe."""
    from deri.datasets import open_dataset
    from deri.store import prepare

    overrides = make_source(folder)
    prepare(open_dataset("ptb-xl", folder / "source"), folder / "store")
    recipe = load_recipe("demo", overrides)
    run = pretrain(folder / "store", folder / "run", recipe, device="cpu")
    model = load_model(run, device="cpu")
    features = Features(model, Store.open(folder / "store"))
    model.calibration = with_task(model, TASK, calibrate_task(features, TASK, "all"))
    save_calibration(run / "model", model)
    about = pd.DataFrame({"file": [f"/{i}" for i in range(20)], "age": 50.0 + np.arange(20)})
    vectors = np.random.default_rng(0).normal(size=(20, 32)).astype(np.float32)
    build_index(folder / "index", model, about, vectors, name="tiny")
    return run, recipe


def verification_cost(path: Path, rounds: int) -> dict[str, float]:
    """Processor time of the checksums of a store's recordings, and of embedding them; see the head of this file."""
    torch.set_num_threads(1)
    model = load_model("deri-open", device="cpu")
    first, again, embedding = [], [], []
    for turn in range(rounds + 1):
        rows = Store.open(path).rows("all")
        buffer = Store.open(path).signals_int16(rows[1:])  # the page cache and the memory are warm
        store = Store.open(path)
        store.signals_int16(rows[:1])  # the table is read
        for times in (first, again):
            start = time.process_time()
            store.signals_int16(rows[1:], out=buffer)
            times.append(time.process_time() - start)
        start = time.process_time()
        embed_store(model, store, rows[1:])
        embedding.append(time.process_time() - start)
        if not turn:
            first, again, embedding = [], [], []
    check = statistics.median(first) - statistics.median(again)
    embed = statistics.median(embedding)
    return {
        "ms_a_recording": round(1000 * check / (len(rows) - 1), 4),
        "embed_ms_a_recording": round(1000 * embed / (len(rows) - 1), 3),
        "percent_of_embed": round(100 * check / (check + embed), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="of the cost of verification")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, recipe = make(folder)
        cost = verification_cost(folder / "store", options.rounds)
        encoder = build_text_encoder(recipe.model.text)
        targets: dict[Path, Callable[[Path], list[Any]]] = {
            folder / "store": of_store(encoder), run / "model": of_model, run: of_run, folder / "index": of_index,
        }  # fmt: skip
        of_store(encoder)(folder / "store")  # makes what lies beside the store
        found: dict[str, dict[str, Any]] = {}
        start = time.perf_counter()
        for i, (target, read) in enumerate(targets.items()):
            share = options.flips // len(targets) + (i < options.flips % len(targets))
            (folder / "work").mkdir(exist_ok=True)
            found[target.name] = vars(flip_bits(target, read, folder / "work", share, options.seed + i))
        seconds = time.perf_counter() - start
    kinds = ("noticed", "no_effect", "silently_wrong", "traceback")
    counts = {kind: sum(one[kind] for one in found.values()) for kind in kinds}
    result = {"benchmark": "bit_flips", "flips": options.flips, "seed": options.seed, "seconds": round(seconds, 1)}
    print(json.dumps({**result, **counts, "by_folder": found, "verification": cost}, indent=2))
    sys.exit(int(counts["silently_wrong"] + counts["traceback"] > 0))


if __name__ == "__main__":
    main()
