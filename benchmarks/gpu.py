"""Pre-training steps on one GPU, in under eight minutes. Prints one JSON object.

    python benchmarks/gpu.py [--batch 512] [--steps 20] [--recipes deri deri-reference] [--backbones resnet18 vit_base]
    python benchmarks/gpu.py --device cpu --batch 8 --steps 2       # the same at a small size, to try the script

Each case trains in the engine of `deri pretrain`, on one batch of simulated pairs that is read from a store in every
step, beside a text encoder of MedCPT's size with random weights. `samples_per_s` is of `--steps` steps after three
that warm up. `share_of_matrix_peak` counts the products of a step (torch's FLOP counter) against a large matrix
product in the same precision, measured here. `kernels` are the operations with the largest shares of the device's time
in two profiled steps, `matrix_time` the share of products and convolutions: the rest is bound by memory, whose copies
reach `copy_gb_s`. `hours_of_paper` is what 50 epochs of the 756,259 pairs of MIMIC-IV-ECG would take.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from deri.models.build import build_model, build_text_encoder
from deri.recipes import load_recipe
from deri.store import Store
from deri.training.batches import Batch, BatchPlan
from deri.training.distributed import Replica
from deri.training.engine import Engine, EpochResult
from deri.training.optimiser import adamw
from deri.training.pretrain import PairTask
from deri.training.sources import open_sources
from peaks import Products, copy_peak, matrix_peak, wait
from pretrain_step import make_inputs
from scaling import SMALL

PAIRS, EPOCHS = 756_259, 50
WARM, PROFILED = 3, 2
SMALL_TEXT = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
MATRIX = ("conv", "mm", "matmul", "linear", "attention")


class Steps(PairTask):
    """The first batch of a plan, step after step, without validation and files."""

    def read(self, step: int) -> list[Batch]:
        """The pairs of the first step."""
        return super().read(0)

    def validate(self) -> None:
        """Nothing is held out."""

    def epoch_done(self, result: EpochResult) -> None:
        """Nothing is kept."""


class Watch(Products):
    """Counts the products of the second step, times those after the third, and profiles the last ones."""

    def __init__(self, device: torch.device, steps: int) -> None:
        super().__init__()
        self.device, self.steps, self.seconds = device, steps, 0.0
        activities = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *activities])

    def update(self, done: int, total: int) -> None:
        wait(self.device)
        super().update(done, total)
        if done == WARM:
            self.seconds = time.perf_counter()
        elif done == WARM + self.steps:
            self.seconds = time.perf_counter() - self.seconds
            self.profile.__enter__()
        elif done == total:
            self.profile.__exit__(None, None, None)


def measure(
    store: Store, switches: list[str], recipe: str, options: argparse.Namespace, peak: dict[str, float]
) -> dict[str, Any]:
    """Speed, memory and operations of one case."""
    device = torch.device(options.device)
    content = load_recipe(recipe, [*switches, f"train.batch_size={options.batch}", "train.epochs=1"])
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    text = build_text_encoder(content.model.text).to(device)
    model = build_model(content.model, seed=0, text_encoder=text).to(device)
    replica = Replica(0, 1, device)
    pairs = open_sources([store], model, content, replica, fit=True)
    plan = BatchPlan.make(pairs.rows("train"), content.train, 1)
    task = Steps(model, pairs, plan, content, replica, store.path)
    task.steps_per_epoch = WARM + options.steps + PROFILED
    watch = Watch(device, options.steps)
    engine = Engine(task, content.train, adamw(task.trained, 1e-4, 0.0), replica, progress=watch)
    engine.fit()
    rate = options.batch * options.steps / watch.seconds
    flops = watch.flops * options.steps / watch.seconds / 1e12
    time_of = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    times = {event.key: float(getattr(event, time_of)) for event in watch.profile.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=lambda name: -times[name])[:12]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "recipe": recipe,
        "backbone": content.model.backbone,
        "precision": engine.precision,
        "samples_per_s": round(rate, 1),
        "hours_of_paper": round(EPOCHS * PAIRS / rate / 3600, 1),
        "tflop_s": round(flops, 3),
        "share_of_matrix_peak": round(flops / peak[f"{engine.precision}_tflop_s"], 3),
        "matrix_time": round(sum(t for name, t in times.items() if any(m in name for m in MATRIX)) / total, 3),
        "kernels": {name[:80]: round(times[name] / total, 3) for name in largest},
        "peak_gb": round(torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else memory, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cpu: a small size")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--recipes", nargs="+", default=["deri", "deri-reference"])
    parser.add_argument("--backbones", nargs="+", default=["resnet18", "vit_base"])
    options = parser.parse_args()
    device = torch.device(options.device)
    small = device.type == "cpu"
    if not small and not torch.cuda.is_available():
        parser.error(f"torch {torch.__version__} finds no GPU here; --device cpu tries the script at a small size")
    peak = {f"{precision}_tflop_s": matrix_peak(device, precision) for precision in ("fp32", "bf16")}
    peak["copy_gb_s"] = copy_peak(device)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        path, text = make_inputs(Path(folder), options.batch, **(SMALL_TEXT if small else {}))
        store = Store.open(path)
        for recipe in options.recipes:
            for backbone in options.backbones:
                switches = [f"model.text.encoder={text}", f"train.precision={options.precision}"]
                switches += [f"model.backbone={backbone}", *(SMALL if small else ())]
                cases.append(measure(store, switches, recipe, options, peak))
    name = "cpu" if small else torch.cuda.get_device_name(device)
    rates = [case["samples_per_s"] for case in cases]
    print(
        json.dumps(
            {"benchmark": "gpu", "device": name, "batch_size": options.batch, "samples_per_s": rates[0]}
            | {"small": small, "peaks": peak, "cases": cases},
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
