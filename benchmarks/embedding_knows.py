"""What an embedding knows of intervals and amplitudes: R² of a ridge regression on each. Prints one JSON object.

    python benchmarks/embedding_knows.py --data STORE --model deri-open [--model …] [--split val]

Trained on the store's train split, its strength chosen there by cross-validation, scored on ``--split`` where the
quantity can be measured (deri.ecg.measure, "rate" in 1/min to "st_V2" in mV). Intervals: percentile bootstrap by
patient, 500 draws, seed 0. ``random``: the same network untrained, seed 1.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deri.ecg.measure import FEATURE_NAMES
from deri.evaluation.features import embed_store
from deri.models import EcgTextModel, load_model
from deri.models.build import build_model
from deri.store import Store
from deri.store.measurements import measure_store

QUANTITIES = ("rate", "rr_cv", "pr_ms", "qrs_ms", "qt_ms", "axis_sin", "axis_cos", "sokolow_lyon", "st_V2")
DRAWS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    store = Store.open(options.data)
    found = {}
    for name in options.model:
        model = load_model(name)
        random = build_model(model.config, seed=1, text_encoder=model.text_encoder).eval()
        found[name] = {
            "model": r_squared(model, store, options.split),
            "random": r_squared(random, store, options.split),
        }
    print(json.dumps({"store": store.fingerprint, "split": options.split, "r2": found}, indent=2))


def r_squared(model: EcgTextModel, store: Store, split: str) -> dict[str, dict[str, float | list[float]]]:
    """R² of each quantity with its interval, and how many records it is of."""
    rows = {name: store.rows(name) for name in ("train", split)}
    measured = measure_store(store)
    features = {name: embed_store(model, store, part) for name, part in rows.items()}
    subjects = store.index["subject_id"].to_numpy()[rows[split]]
    out = {}
    for quantity in QUANTITIES:
        true = {name: measured[part, FEATURE_NAMES.index(quantity)].astype(float) for name, part in rows.items()}
        known = {name: np.isfinite(values) for name, values in true.items()}
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11)))
        ridge.fit(features["train"][known["train"]], true["train"][known["train"]])
        y, guess = true[split][known[split]], ridge.predict(features[split][known[split]])
        patients, number = np.unique(subjects[known[split]], return_inverse=True)
        rng = np.random.default_rng(0)
        draws = []
        for _ in range(DRAWS):
            weight = np.bincount(rng.integers(len(patients), size=len(patients)), minlength=len(patients))[number]
            draws.append(score(y, guess, weight))
        ci = [round(float(v), 3) for v in np.percentile(draws, [2.5, 97.5])]
        out[quantity] = {"r2": round(score(y, guess, np.ones(len(y))), 3), "ci": ci, "n": len(y)}
    return out


def score(y: np.ndarray, guess: np.ndarray, weight: np.ndarray) -> float:
    """Weighted R²."""
    mean = np.average(y, weights=weight)
    return float(1 - np.sum(weight * (y - guess) ** 2) / np.sum(weight * (y - mean) ** 2))


if __name__ == "__main__":
    main()
