"""Samples per second and memory of pre-training: a recipe beside the released one. Prints one JSON object.

Both train the same ResNet-18 at 500 Hz on the same simulated pairs, beside a text encoder of MedCPT's size with random
weights (its values do not matter for speed). The corrected recipe computes a report's features once; the released one
runs the encoder over 256 padded tokens in every step. Each recipe runs in a process of its own; with ``--alone`` the
released one is left out. `share_of_matrix_peak` counts the products of the second step (torch's FLOP counter) against
a large matrix product in the same precision, measured before.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peaks import Products, matrix_peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recipe", default="deri")
    parser.add_argument("--precision", default="auto", help="of the recipe; the released one is in fp32")
    parser.add_argument("--alone", action="store_true", help="without the released recipe")
    parser.add_argument("overrides", nargs="*", help="of the recipe; train.accumulate=4 …")
    parser.add_argument("--worker", nargs=3, metavar=("RECIPE", "STORE", "TEXT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(*options.worker, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        store, text = make_inputs(Path(folder), options.batch_size * options.steps)
        results = {}
        for recipe in (options.recipe,) if options.alone else (options.recipe, "deri-reference"):
            size = ["--batch-size", str(options.batch_size), "--steps", str(options.steps), "--device", options.device]
            ours = [*options.overrides, f"train.precision={options.precision}"]
            switches = ours if recipe == options.recipe else ["train.precision=fp32"]
            command = [sys.executable, __file__, *switches, *size, "--worker", recipe, str(store), str(text)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[recipe] = json.loads(done.stdout.splitlines()[-1])
    ours = results[options.recipe]
    ratio = None if options.alone else round(ours["samples_per_s"] / results["deri-reference"]["samples_per_s"], 2)
    print(
        json.dumps(
            {
                "benchmark": "pretrain_step",
                "device": options.device,
                "batch_size": options.batch_size,
                "samples_per_s": ours["samples_per_s"],
                "ratio_to_reference": ratio,
                "recipes": results,
            },
            indent=2,
        )
    )


def make_inputs(folder: Path, records: int, **text: int) -> tuple[Path, Path]:
    """A store of simulated pairs, and a directory with a text encoder of MedCPT's size, or of the sizes ``text``."""
    from transformers import BertConfig, BertModel

    from deri.datasets import open_dataset
    from deri.models.text import load_tokenizer
    from deri.simulate import simulate
    from deri.store import prepare

    simulate("mimic-iv-ecg", records, folder / "data")
    dataset = open_dataset("mimic-iv-ecg", folder / "data")
    dataset.val_fraction = 0.0
    prepare(dataset, folder / "store")
    BertModel(BertConfig(**text)).save_pretrained(folder / "bert")
    load_tokenizer("minilm").save_pretrained(str(folder / "bert"))
    return folder / "store", folder / "bert"


def measure(recipe: str, store: str, text: str, options: argparse.Namespace) -> dict[str, float]:
    import torch

    from deri.models.precision import choose_precision
    from deri.recipes import load_recipe
    from deri.training import pretrain
    from deri.training.log import read_metrics

    switches = [f"model.text.encoder={text}", f"train.batch_size={options.batch_size}", "train.epochs=1"]
    switches += ["train.log_steps=1", "train.checkpoint_steps=100000", *options.overrides]
    content = load_recipe(recipe, switches)
    device, products = torch.device(options.device), Products()
    peak = matrix_peak(device, choose_precision(content.train.precision, device))
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = pretrain(store, Path(folder) / "run", content, device=options.device, progress=products)
        seconds = time.perf_counter() - start
        rates = [line["samples_per_s"] for line in read_metrics(run) if line["split"] == "train"]
    rate = statistics.median(rates[2:] or rates)  # the first step warms up, the second is counted
    tflop_s = products.flops * rate / options.batch_size / 1e12
    result = {
        "samples_per_s": round(rate, 2),
        "tflop_s": round(tflop_s, 4),
        "share_of_matrix_peak": round(tflop_s / peak, 3),
        "gflop_per_pair": round(products.flops / options.batch_size / 1e9, 2),
        "steps": len(rates),
        "seconds_with_setup": round(seconds, 1),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    if device.type == "cuda":
        result["peak_gpu_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return result


if __name__ == "__main__":
    main()
