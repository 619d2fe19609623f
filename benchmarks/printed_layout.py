"""Zero-shot AUROC of whole recordings, and of the same as a printed sheet shows them; prints one JSON object.

    python benchmarks/printed_layout.py FOLDER [MODEL]

FOLDER holds an ``index.csv`` with columns ``file`` and ``labels`` (codes, ``;`` between them) and, to choose rows,
``evaluate``. Of each recording of 10 s and more the first 10 s are taken, and as a copy 3 × 4 leads of 2.5 s one after
the other, with lead II throughout.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from deri.ecg import ECG, read_ecg
from deri.errors import ReadError
from deri.evaluation.metrics import aurocs
from deri.evaluation.zero_shot import class_weights
from deri.models import load_model
from deri.reports import prompts_for

SECONDS = 10
MIN_POSITIVES = 8


def printed(ecg: ECG) -> ECG:
    """The recording as a printed sheet shows it."""
    edges = np.linspace(0, ecg.n_samples, 5).astype(int)
    signal = np.full_like(ecg.signal, np.nan)
    for row in range(12):
        at = slice(edges[row // 3], edges[row // 3 + 1]) if row != 1 else slice(None)
        signal[row, at] = ecg.signal[row, at]
    return ECG(signal, ecg.fs)


def main(folder: Path, model_name: str = "deri-sim") -> None:
    """Score both and print."""
    table = pd.read_csv(folder / "index.csv")
    table = table[table["evaluate"].astype(bool) & table["labels"].notna()]
    whole, labels = [], []
    for file, cell in zip(table["file"], table["labels"], strict=True):
        try:
            ecg = read_ecg(folder / file)
        except ReadError:
            continue
        if ecg.duration >= SECONDS and not ecg.missing_leads:
            whole.append(ECG(ecg.signal[:, : round(SECONDS * ecg.fs)], ecg.fs))
            labels.append(set(cell.split(";")))
    counts = pd.Series([code for found in labels for code in found]).value_counts()
    codes = sorted(counts.index[counts >= MIN_POSITIVES])
    model = load_model(model_name)
    weights = class_weights(model, prompts_for("labels", codes))
    marks = np.array([[code in found for code in codes] for found in labels])
    result = {}
    for name, ecgs in (("whole", whole), ("printed", [printed(ecg) for ecg in whole])):
        scores = model.encode_ecg(ecgs) @ weights.T
        result[name] = dict(zip(codes, aurocs(marks, scores).tolist(), strict=True))
    macro = {name: float(np.mean(list(found.values()))) for name, found in result.items()}
    print(json.dumps({"model": model_name, "recordings": len(whole), "macro_auroc": macro, "auroc": result}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
