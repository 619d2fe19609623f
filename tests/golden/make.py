"""Results of every command that gives numbers, on a small simulated data set: ``python tests/golden/make.py OUT.json``.

It runs the command line as users do, in one process with one thread and with the instruction sets of the libraries
pinned, so that another x86-64 processor gives the same digits. What differs from run to run (times, paths, versions)
is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

PINNED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "HF_HUB_OFFLINE": "1",
}
LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "transformers")
LAYOUTS = {"mimic-iv-ecg": 48, "ptb-xl": 40, "cpsc2018": 20, "csn": 40}
SMALL = (
    "model.base_width=4 model.dim=32 model.decoder.hidden=16 model.decoder.head_dim=8 train.epochs=2 "
    "train.batch_size=32 train.lr=3e-3 train.seed=5"
).split()
LEFT_OUT = {
    "deri_version",
    "version",
    "seconds",
    "samples_per_s",
    "path",
    "file",
    "key",
    "run",
    "created",
    "fingerprint",
}


def run(*arguments: object) -> str:
    """What a command prints on stdout."""
    from deri.cli.main import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"deri {arguments} ended with {end.code}: {printed.getvalue()}") from None
    return printed.getvalue()


def kept(value: Any) -> Any:
    """A result without what differs from run to run."""
    if isinstance(value, dict):
        return {k: kept(v) for k, v in value.items() if k not in LEFT_OUT}
    return [kept(v) for v in value] if isinstance(value, list) else value


def read(file: str) -> Any:
    return kept(json.loads(Path(file).read_text(encoding="utf-8")))


def digests(folder: str) -> dict[str, str]:
    """SHA-256 of every file of a store but for the locks; store.json without the version that made it."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and "lock" not in path.name:
            content = path.read_bytes()
            if path.suffix == ".json":
                content = json.dumps(read(str(path)), sort_keys=True).encode()
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def stores() -> dict[str, Any]:
    """Bytes of stores, prepared in one process and in two, and merged."""
    result = {}
    for layout, n in LAYOUTS.items():
        run("simulate", layout, "--records", n, "--seed", 3, "--out", f"source/{layout}")
        run("prepare", layout, f"source/{layout}", "--out", f"stores/{layout}")
        result[layout] = digests(f"stores/{layout}")
    run("prepare", "cpsc2018", "source/cpsc2018", "--out", "stores/windows", "--windows", "all", "--duplicates", "drop")
    result["windows"] = digests("stores/windows")
    run("prepare", "ptb-xl", "source/ptb-xl", "--out", "stores/two", "--workers", 2, "--min-leads", 8)
    result["two workers"] = digests("stores/two")
    run("merge", "stores/ptb-xl", "stores/csn", "stores/mimic-iv-ecg", "--out", "stores/merged", "--resplit")
    result["merged"] = digests("stores/merged")
    return result


def training() -> dict[str, Any]:
    """Logs of a pre-training, and its weights."""
    run("simulate", "ptb-xl", "--records", 260, "--seed", 11, "--out", "source/tasks")
    run("prepare", "ptb-xl", "source/tasks", "--out", "tasks")
    run("pretrain", "--data", "tasks", "--out", "run", "--recipe", "demo", *SMALL)
    from deri.training.log import read_metrics

    return {"metrics": kept(read_metrics("run")), "weights": sums("run/model/model.safetensors")}


def sums(file: str) -> dict[str, float]:
    """Sum of the absolute weights of every tensor of a file, in float64."""
    from safetensors.numpy import load_file

    return {name: float(abs(tensor.astype("f8")).sum()) for name, tensor in sorted(load_file(file).items())}


def evaluation() -> dict[str, Any]:
    """Zero-shot, probes, retrieval, fine-tuning, benchmark with transfer, and ablation."""
    of = ("--model", "run", "--data", "tasks")
    result: dict[str, Any] = {}

    def one(name: str, *arguments: object) -> None:
        run(*arguments, "--out", "out.json")
        result[name] = read("out.json")

    one("zeroshot", "zeroshot", *of, "--task", "ptbxl-super")
    one("zeroshot published", "zeroshot", *of, "--task", "ptbxl-rhythm", "--protocol", "published", "--split", "all")
    one("probe", "probe", *of, "--task", "ptbxl-super", "--fraction", "10,100", "--seeds", 2)
    one("probe patients", "probe", *of, "--task", "labels", "--fraction", "50", "--sampling", "patient")
    one("probe published", "probe", *of, "--task", "ptbxl-super", "--protocol", "published")
    one("probe folds", "probe", *of, "--task", "ptbxl-super", "--folds", 3)
    one("retrieval", "retrieval", *of)
    run("finetune", *of, "--task", "ptbxl-super", "--out", "finetuned", "--epochs", 2, "--batch-size", 32)
    result["finetune"] = {"result": read("finetuned/result.json"), "history": read("finetuned/history.json")}
    benchmark = ("--tasks", "ptbxl-super", "--fraction", "100", "--no-figures", "--draws", 100)
    run("benchmark", *of, *benchmark, "--transfer", "labels:ptbxl-rhythm", "--out", "bench")
    result["benchmark"] = read("bench/results.json")
    result["benchmark table"] = Path("bench/table.md").read_text(encoding="utf-8")
    run("benchmark", *of, "--tasks", "ptbxl-super", "--fraction", "100", "--no-figures", "--draws", 50, "--folds", 3,
        "--out", "bench-folds")  # fmt: skip
    result["benchmark folds"] = read("bench-folds/results.json")
    common = "\n".join(f"  - {switch}" for switch in SMALL if "seed" not in switch)
    Path("ablation.yaml").write_text(
        "train: tasks\ntargets:\n  - {store: tasks, task: ptbxl-super, split: all}\n"
        "base: demo\nseeds: [0, 1]\ndraws: 50\n"
        "rows:\n  demo: {recipe: demo}\n  views: {recipe: demo, overrides: ['objective.view_contrast=1']}\n"
        f"common:\n{common}\n",
        encoding="utf-8",
    )
    run("benchmark", "--ablation", "ablation.yaml", "--out", "ablation")
    result["ablation"] = read("ablation/ablation.json")
    return result


def reports() -> dict[str, Any]:
    """A writer's training, its texts, the baselines' texts, and their scores."""
    import pandas as pd

    result: dict[str, Any] = {}
    run("report", "train", "--model", "run", "--data", "tasks", "--out", "writer", "epochs=2", "batch_size=32")
    result["weights"] = sums("writer/writer/model.safetensors")
    for split in ("val", "test"):
        run("report", "generate", "--writer", "writer", "--data", "tasks", "--split", split, "--beams", 2,
            "--max-tokens", 30, "--out", f"{split}.parquet")  # fmt: skip
        result[f"generated {split}"] = pd.read_parquet(f"{split}.parquet")["generated"].tolist()
    run("report", "baselines", "--model", "run", "--data", "tasks", "--out", "baselines.parquet")
    table = pd.read_parquet("baselines.parquet")
    result["baselines"] = table.groupby("system")["generated"].apply(list).to_dict()
    run("report", "evaluate", "test.parquet", "baselines.parquet", "--draws", 50, "--out", "scores.json")
    result["evaluate"] = read("scores.json")
    of = ("--generated", "test.parquet", "--generated-val", "val.parquet", "--data", "tasks", "--task", "ptbxl-super")
    for by in ("text", "labeller"):
        run("report", "classify", *of, "--by", by, "--model", "run", "--draws", 50, "--out", "classify.json")
        result[f"classify {by}"] = read("classify.json")
    confidence = json.dumps(read("writer/writer/confidence.json"), sort_keys=True)
    result["confidence digest"] = hashlib.sha256(confidence.encode()).hexdigest()
    return result


def files() -> dict[str, Any]:
    """Scores and embeddings of files by the built-in model."""
    names = [str(path) for path in sorted(Path("source/csn").rglob("*.hea"))[:4]]
    labels = ("--labels", "atrial fibrillation", "--labels", "sinus rhythm")
    return {"classify": json.loads(run("classify", *names, *labels, "--json"))}


def made_with() -> dict[str, str]:
    """The processor and the libraries that decide the last digits."""
    from importlib.metadata import version

    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    cache = next((line.partition(":")[2].strip() for line in lines if line.startswith("cache size")), "unknown")
    return {"processor": f"{model}, cache {cache}"} | {name: version(name) for name in LIBRARIES}


def main(out: str) -> None:
    os.environ.update(PINNED)  # before a library that computes is imported
    target = Path(out).resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        result = {part.__name__: part() for part in (stores, training, evaluation, reports, files)}
    result = {"made with": made_with()} | result
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
