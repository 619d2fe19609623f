"""How long the linear probes of a whole results table take on features computed once. Prints one JSON object.

python benchmarks/probe.py [--records 17084] [--encode 96] [--threads 2]

18 cells: six tasks with the class counts of PTB-XL super, sub, form, rhythm, CPSC2018 and CSN, each at 1, 10 and 100 %
of the training records, all at PTB-XL's size, with the corrected protocol: 13 strengths, thresholds, metrics. The
features are simulated: strongly correlated, rectified and heavy-tailed; the rarest class has 1 record in 300.

Beside it, what it costs to run the frozen encoder again in each of 100 epochs, as the released code does: the rate of a
DERI ResNet-18 in batches of 16 is MEASURED on a few records, the hours are EXTRAPOLATED from it, for training records
alone (validation and test in every epoch would add a quarter).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time

import numpy as np
import torch
from transformers import BertConfig, BertModel

from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import score_probes
from deri.evaluation.result import evaluate
from deri.evaluation.task import Split, TaskData
from deri.models import TextEncoder, build_model
from deri.recipes import load_recipe

CLASSES = {"ptbxl-super": 5, "ptbxl-sub": 23, "ptbxl-form": 19, "ptbxl-rhythm": 12, "cpsc2018": 9, "csn": 38}
FRACTIONS = (1, 10, 100)
EPOCHS, BATCH, DIM = 100, 16, 256
DATA_SETS = 3  # the six tasks are on three data sets, so that features are computed for three


def make_task(classes: int, sizes: tuple[int, int, int], seed: int) -> TaskData:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(DIM, DIM)) / np.arange(1, DIM + 1)[:, None]
    features = rng.normal(size=(sum(sizes), DIM)) @ mixing * rng.lognormal(0, 0.5, (sum(sizes), 1))
    features = np.where(features > 0, features, 0.2 * features)
    logits = (features / features.std(axis=0)) @ rng.normal(size=(DIM, classes))
    noisy = 2 * logits / logits.std(axis=0) + rng.logistic(size=logits.shape)
    shares = np.geomspace(1 / 300, 0.4, classes)
    labels = np.stack([noisy[:, c] > np.quantile(noisy[:, c], 1 - share) for c, share in enumerate(shares)], axis=1)
    bounds = np.cumsum([0, *sizes])
    subjects = np.arange(sum(sizes)).astype(str)
    parts = [
        Split(features[a:b].astype(np.float32), labels[a:b].astype(np.uint8), subjects[a:b])
        for a, b in itertools.pairwise(bounds)
    ]
    return TaskData([f"class{c}" for c in range(classes)], *parts)


def encode_rate(records: int) -> float:
    """Recordings per second through the ECG side of a random DERI ResNet-18 in batches of 16, gradients off."""
    recipe = load_recipe("deri").model
    # Only its width matters here, no text is encoded.
    bert = BertModel(BertConfig(num_hidden_layers=1, vocab_size=8))
    model = build_model(recipe, text_encoder=TextEncoder(bert, recipe.text, recipe.text.encoder)).eval()
    ecg = torch.randn(BATCH, 12, recipe.signal.samples)
    with torch.inference_mode():
        model.ecg_embedding(ecg)  # the first one pays for choosing algorithms
        start = time.perf_counter()
        batches = -(-records // BATCH)
        for _ in range(batches):
            model.ecg_embedding(ecg)
        return batches * BATCH / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=17084, help="training records (default PTB-XL's 17084)")
    parser.add_argument("--encode", type=int, default=96, help="recordings to measure the encoder with")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    n = options.records
    sizes = (n, max(1, n * 2146 // 17084), max(1, n * 2158 // 17084))
    rate = encode_rate(options.encode)
    seconds, seconds_ci, cells, converged = 0.0, 0.0, {}, True
    for seed, (name, classes) in enumerate(CLASSES.items()):
        task = make_task(classes, sizes, seed)
        for fraction in FRACTIONS:
            start = time.perf_counter()
            result, _ = score_probes(task, fraction, EvalOptions(draws=0))
            took = time.perf_counter() - start
            seconds += took
            converged &= result["seeds"][0]["converged"]
            cells[f"{name} {fraction} %"] = round(took, 2)
        scores = np.random.default_rng(seed).random((1, *task.test.labels.shape))
        start = time.perf_counter()
        evaluate(scores, task.test.labels, task.test.subjects, EvalOptions(), classes=task.classes)
        seconds_ci += len(FRACTIONS) * (time.perf_counter() - start)
    encoded = len(CLASSES) * sum(max(1, round(n * f / 100)) for f in FRACTIONS) * EPOCHS
    again, once = encoded / rate, DATA_SETS * sum(sizes) / rate
    print(
        json.dumps(
            {
                "benchmark": "probe",
                "threads": options.threads,
                "train_records": n,
                "features": DIM,
                "cells": len(cells),
                "seconds": round(seconds, 1),
                "seconds_of_intervals": round(seconds_ci, 1),
                "seconds_by_cell": cells,
                "converged": converged,
                "samples_per_s": round(rate, 1),
                "sample": "one recording of 12 x 5000 through DERI ResNet-18, batches of 16 (measured)",
                "encoded_again_s_extrapolated": round(again),
                "encoded_once_s_extrapolated": round(once),
                "ratio": round(again / seconds),
                "ratio_with_encoding_once": round(again / (seconds + once), 1),
            }
        )
    )


if __name__ == "__main__":
    main()
