"""Train the built-in model: simulate, prepare, pre-train, score on other simulated patients, write card and weights.

    python tools/pretrained.py [--records 28000] [--out src/deri/models/pretrained/deri-sim]

``make pretrained`` runs it. The work folder keeps what is done, so that an interrupted training continues.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from deri._version import __version__
from deri.datasets import open_dataset
from deri.evaluation.features import Features
from deri.evaluation.options import EvalOptions
from deri.evaluation.zero_shot import zero_shot_task
from deri.models import EcgTextModel, load_model
from deri.models.builtin import DEFAULT_MODEL
from deri.recipes import load_recipe
from deri.simulate import simulate
from deri.store import Store, prepare
from deri.training import pretrain

ROOT = Path(__file__).resolve().parents[1]
LIMIT_BYTES = 20_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=28_000, help="simulated pairs to train on")
    parser.add_argument("--test-records", type=int, default=2_000, help="of other simulated patients")
    parser.add_argument("--recipe", default="deri-sim")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="overrides of the recipe")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default=None)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "pretrained")
    parser.add_argument("--out", type=Path, default=ROOT / "src/deri/models/pretrained" / DEFAULT_MODEL)
    options = parser.parse_args()

    train = store_of("mimic-iv-ecg", options.records, options.work, options.seed, options.workers)
    # Another seed: other patients, and another layout, whose labels are the findings that were simulated.
    test = store_of("ptb-xl", options.test_records, options.work, options.seed + 1, options.workers)
    recipe = load_recipe(options.recipe, [f"train.seed={options.seed}", *options.set])
    run = pretrain(train.path, options.work / "run", recipe, resume=True, device=options.device)
    model = load_model(run)
    scores = {
        name: zero_shot_task(
            Features(one, test), "labels", EvalOptions(split="all", seed=0, draws=300), model_name=name
        )
        for name, one in (("trained", model), ("random", load_model(f"random:{run / 'recipe.yaml'}@1")))
    }
    model.save_pretrained(options.out, card=card(model, train, scores, options))
    size = sum(path.stat().st_size for path in options.out.iterdir())
    if size > LIMIT_BYTES:
        shutil.rmtree(options.out)
        sys.exit(f"{options.out} would take {size:,} bytes, more than {LIMIT_BYTES:,}: choose a smaller recipe")
    print(json.dumps({"out": str(options.out), "bytes": size, "pairs": len(train)} | {
        name: result["macro_auroc"] for name, result in scores.items()
    }, indent=2))  # fmt: skip


def store_of(layout: str, records: int, work: Path, seed: int, workers: int) -> Store:
    """The store of ``records`` simulated recordings; made unless it is there."""
    place = work / f"{layout}-{records}-{seed}"
    if not (place / "store" / "store.json").is_file():
        shutil.rmtree(place, ignore_errors=True)
        simulate(layout, records, place / "source", seed=seed)
        dataset = open_dataset(layout, place / "source")
        dataset.val_fraction = max(dataset.val_fraction, 0.05)
        prepare(dataset, place / "store", workers=workers, seed=seed)
        shutil.rmtree(place / "source")
    return Store.open(place / "store")


def card(model: EcgTextModel, train: Store, scores: dict[str, dict[str, Any]], options: argparse.Namespace) -> str:
    """What the model is, in Markdown."""
    trained, random = scores["trained"], scores["random"]
    signal = model.config.signal
    millions = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("text_encoder.")) / 1e6
    rows = "\n".join(
        f"| {name} | {entry['n_pos']} | {entry['auroc']:.3f} |"
        for name, entry in trained["classes"].items()
        if entry["auroc"] is not None
    )
    value, (low, high) = trained["macro_auroc"]["value"], trained["macro_auroc"]["ci"]
    return f"""---
library_name: deri
license: apache-2.0
tags: [ecg, electrocardiogram, contrastive-learning, simulation]
---

# {DEFAULT_MODEL}: a small DERI trained on simulated ECGs alone

**No recording of a real person was used to train this model. It is for research: not a medical device, and nothing
that it prints is a diagnosis.** It is here so that an installation can be tried at once, and as a start for your own
training.

- Method: DERI with the corrected recipe `{model.recipe_name}`; {model.config.backbone} of base width
  {model.config.base_width}, embeddings of {model.config.dim} dimensions, {millions:.2f} M parameters outside the text
  encoder (all-MiniLM-L6-v2, frozen, from the package extra `offline`).
- Input: {signal.samples / signal.fs:g} s at {signal.fs:g} Hz, twelve leads in mV.
- Training data: {options.records:,} recordings and reports of `deri simulate mimic-iv-ecg`, seed {options.seed}
  (deri {__version__}): {len(train.rows("train")):,} to train on, the rest to choose the epoch by held-out loss.
- Made by `make pretrained`.

## Figures on other simulated patients

{options.test_records:,} simulated recordings of other patients, zero-shot with the class prompts of the package: macro
AUROC {value:.3f} ({low:.3f} … {high:.3f}), random encoder {random["macro_auroc"]["value"]:.3f}. They say how well the
simulation was learned, not how well the model reads real ECGs; for that run
benchmarks/zero_shot_real.py on recordings of your own.

| finding | positives | AUROC |
|---|---|---|
{rows}

## Limits

It knows only what the simulator draws. Findings that were not simulated, paediatric ECGs, unusual lead positions and
devices are outside of what it has seen. Scores rank recordings for one text; they are not probabilities.
"""


if __name__ == "__main__":
    main()
