"""Does training in bf16 cost quality? One recipe in fp32 and bf16 with several seeds, scored zero-shot. Prints JSON.

It is `deri benchmark --ablation` with two rows. ``--emulate`` is for processors that do not multiply in bf16: autocast
works as ever, but convolutions and matrix products take their bf16 inputs to fp32, add up there and round their
results to bf16, as bf16 units do (attention too, which deri computes of matrix products there).
``--check`` compares both ways in the gradients of one batch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
PRODUCTS = {aten.convolution, aten.convolution_backward, aten.mm, aten.addmm, aten.bmm, aten.baddbmm}


class EmulatedBf16(TorchDispatchMode):
    """Products of bf16 tensors are computed in fp32 and rounded to bf16; in backward passes too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tuple(args), kwargs or {}
        given = [value for value in args if isinstance(value, torch.Tensor)]
        if func.overloadpacket not in PRODUCTS or not any(value.dtype == torch.bfloat16 for value in given):
            return func(*args, **kwargs)
        done = func(*tree_map_only(torch.Tensor, lambda value: value.float(), args), **kwargs)
        return tree_map_only(torch.Tensor, lambda value: value.bfloat16(), done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--task", nargs="+", default=["ptbxl-super"])
    parser.add_argument("--split", default="val")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="keeps the runs; continues them")
    parser.add_argument("--emulate", action="store_true")
    parser.add_argument("--check", action="store_true", help="one batch in both ways, nothing else")
    parser.add_argument("overrides", nargs="*", help="of the recipe; train.epochs=10 …")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        print(json.dumps(check(options) if options.check else compare(options, out), indent=2))


def compare(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train and score both rows."""
    from deri.files import write_yaml
    from deri.training.ablation import run_ablation

    out.mkdir(parents=True, exist_ok=True)
    store = str(options.store.resolve())
    rows = {name: {"recipe": options.recipe, "overrides": [f"train.precision={name}"]} for name in ("fp32", "bf16")}
    plan = {
        "train": store,
        "targets": [{"store": store, "task": task, "split": options.split, "name": task} for task in options.task],
        "rows": rows,
        "base": "fp32",
        "common": options.overrides,
        "seeds": options.seeds,
    }
    write_yaml(out / "plan.yaml", plan)
    start = time.perf_counter()
    with EmulatedBf16() if options.emulate else nullcontext():
        found = run_ablation(out / "plan.yaml", out / ("emulated" if options.emulate else "bf16"), device="cpu")
    return {
        "benchmark": "bf16_training",
        "emulated": options.emulate,
        "recipe": options.recipe,
        "overrides": options.overrides,
        "split": options.split,
        "seeds": options.seeds,
        "seconds": round(time.perf_counter() - start),
        "targets": found["targets"],
    }


def check(options: argparse.Namespace) -> dict[str, Any]:
    """How far the gradients of one batch are from those in fp32: by bf16 kernels, and by the emulation."""
    from deri.models import load_model
    from deri.models.precision import autocast
    from deri.store import Store

    torch.manual_seed(0)
    model = load_model(f"random:{options.recipe}@0").train()
    store = Store.open(options.store)
    rows = store.rows("train")[:32]
    ecg, _ = model.prepare(store.signals(rows), store.fs, None, None)

    def gradients(way: str) -> torch.Tensor:
        torch.manual_seed(0)
        model.zero_grad()
        with EmulatedBf16() if way == "emulated" else nullcontext():
            with autocast("fp32" if way == "fp32" else "bf16", torch.device("cpu")):
                embedding = torch.nn.functional.normalize(model.ecg_embedding(ecg).float(), dim=-1)
            torch.nn.functional.cross_entropy(
                embedding @ embedding.T.detach() / 0.07, torch.arange(len(rows))
            ).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, kernels, emulated = (gradients(way) for way in ("fp32", "bf16", "emulated"))

    def away(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / b.norm())

    return {
        "benchmark": "bf16_training_check",
        "bf16_from_fp32": away(kernels, exact),
        "emulated_from_fp32": away(emulated, exact),
        "emulated_from_bf16": away(emulated, kernels),
    }


if __name__ == "__main__":
    main()
