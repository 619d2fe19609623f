"""``deri zeroshot``, ``deri probe`` and ``deri finetune``."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from deri.cli.console import progress, task_summary
from deri.errors import DeriError


class Split(str, Enum):
    """Which records are scored."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


class ProtocolName(str, Enum):
    """As the papers did, or without their flaws (docs/evaluation.md)."""

    corrected = "corrected"
    published = "published"


class SamplingName(str, Enum):
    """What a fraction of the training split is made of."""

    random = "random"
    patient = "patient"


def zeroshot(
    model: Annotated[str, typer.Option(help="model directory, run, hub id or random:RECIPE")],
    data: Annotated[Path, typer.Option(help="store made by deri prepare")],
    task: Annotated[str, typer.Option(help="e.g. ptbxl-super, ptbxl-rhythm, labels")],
    out: Annotated[Path, typer.Option(help="result file, JSON")],
    prompts: Annotated[Path | None, typer.Option(help="class texts: YAML, or JSON of class → text")] = None,
    split: Annotated[Split, typer.Option()] = Split.test,
    protocol: Annotated[ProtocolName, typer.Option()] = ProtocolName.corrected,
    seed: Annotated[int, typer.Option(min=0, help="of the bootstrap")] = 0,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Classify without training: the cosine between a recording and each class's text."""
    from deri.evaluation.zero_shot import zero_shot_task
    from deri.files import write_json
    from deri.models import load_model
    from deri.store import Store

    store = Store.open(data)
    loaded = load_model(model, device=device)
    with progress("zeroshot") as show:
        result = zero_shot_task(
            loaded,
            store,
            task,
            model_name=model,
            split=split.value,
            protocol=protocol.value,
            prompts=prompts,
            seed=seed,
            show=show.update,
        )
    write_json(out, result)
    print(task_summary(result, out))


def retrieval(
    model: Annotated[str, typer.Option(help="model directory, run, hub id or random:RECIPE")],
    data: Annotated[Path, typer.Option(help="store made by deri prepare, with reports")],
    out: Annotated[Path, typer.Option(help="result file, JSON")],
    split: Annotated[Split, typer.Option()] = Split.test,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Find the report of a recording and the recording of a report: recall at 1, 5, 10 and the median rank."""
    from deri.evaluation.retrieval import retrieval_on_store
    from deri.files import write_json
    from deri.models import load_model
    from deri.store import Store

    store = Store.open(data)
    loaded = load_model(model, device=device)
    with progress("retrieval") as show:
        result = retrieval_on_store(loaded, store, model_name=model, split=split.value, show=show.update)
    write_json(out, result)
    for way in ("ecg_to_text", "text_to_ecg"):
        recalls = ", ".join(f"R@{k} {result[f'{way}_r{k}']:.3f}" for k in (1, 5, 10))
        print(f"{way}: {recalls}, median rank {result[f'{way}_median']:g}")
    print(f"{result['n']} recordings, {result['n_texts']} distinct reports → {out}")


def probe(
    model: Annotated[str, typer.Option(help="model directory, run, hub id or random:RECIPE")],
    data: Annotated[Path, typer.Option(help="store made by deri prepare")],
    task: Annotated[str, typer.Option(help="e.g. ptbxl-super, ptbxl-rhythm, labels")],
    out: Annotated[Path, typer.Option(help="result file, JSON")],
    fraction: Annotated[str, typer.Option(help="percent of the training records; several: 1,10,100")] = "100",
    protocol: Annotated[ProtocolName, typer.Option()] = ProtocolName.corrected,
    sampling: Annotated[SamplingName, typer.Option(help="of a fraction: records, or whole patients")] = (
        SamplingName.random
    ),
    seed: Annotated[int, typer.Option(min=0, help="the first seed")] = 42,
    seeds: Annotated[int, typer.Option(min=1, help="how many seeds; figures are means over them")] = 1,
    folds: Annotated[int | None, typer.Option(min=3, help="cross-validate by patient over all records instead")] = None,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Linear probe: train a linear layer on the embeddings of a frozen encoder."""
    from deri.evaluation.folds import probe_folds
    from deri.evaluation.probe import probe_task
    from deri.files import write_json
    from deri.models import load_model
    from deri.store import Store

    fractions = _fractions(fraction)
    if folds and (fractions != [100.0] or seeds != 1):
        raise DeriError("--folds uses all other folds and one seed; leave --fraction and --seeds out")
    store = Store.open(data)
    loaded = load_model(model, device=device)
    if folds:
        with progress("probe: embedding") as show:
            result = probe_folds(
                loaded,
                store,
                task,
                model_name=model,
                folds=folds,
                protocol=protocol.value,
                seed=seed,
                show=show.update,
            )
        write_json(out, result)
        print(task_summary(result, out))
        return
    with progress("probe: embedding") as show:
        result = probe_task(
            loaded,
            store,
            task,
            model_name=model,
            fractions=fractions,
            protocol=protocol.value,
            sampling=sampling.value,
            seed=seed,
            seeds=seeds,
            show=show.update,
        )
    write_json(out, result)
    for one in result["fractions"].values() if "fractions" in result else [result]:
        print(task_summary(result | one | {"split": f"{one['fraction']:g} % → test"}, out))


def finetune(
    model: Annotated[str, typer.Option(help="model directory, run, hub id or random:RECIPE")],
    data: Annotated[Path, typer.Option(help="store made by deri prepare")],
    task: Annotated[str, typer.Option(help="e.g. ptbxl-super, ptbxl-rhythm, labels")],
    out: Annotated[Path, typer.Option(help="new directory: result.json, history.json, model/")],
    blocks: Annotated[str, typer.Option(help="all, or the last K blocks of the backbone")] = "all",
    epochs: Annotated[int, typer.Option(min=1, help="at most")] = 20,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(help="of the head; layers below have less")] = 5e-4,
    layer_decay: Annotated[float, typer.Option(help="learning rate of a layer relative to the one above")] = 0.75,
    patience: Annotated[int, typer.Option(min=1, help="epochs without a better validation AUROC before stopping")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    device: Annotated[str, typer.Option(help="cpu | cuda | cuda:N")] = "cpu",
) -> None:
    """Train the encoder, or its last blocks, further on the labels of a task."""
    from deri.models import load_model
    from deri.store import Store
    from deri.training.finetune import FinetuneConfig
    from deri.training.finetune import finetune as run

    if blocks != "all" and not blocks.isdigit():
        raise DeriError(f"--blocks {blocks}: give all, or how many of the last blocks to train")
    for name, value, highest in (("--lr", lr, math.inf), ("--layer-decay", layer_decay, 1.0)):
        if not 0 < value <= highest:
            raise DeriError(f"{name} {value:g}: must be above 0" + (" and at most 1" if highest == 1 else ""))
    config = FinetuneConfig(
        blocks=None if blocks == "all" else int(blocks),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        layer_decay=layer_decay,
        patience=patience,
        seed=seed,
    )
    store = Store.open(data)
    loaded = load_model(model, device=device)
    with progress("finetune") as show:
        result = run(loaded, store, task, out, model_name=model, config=config, progress=show)
    print(task_summary(result, out))


def _fractions(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise DeriError(f"--fraction {text}: give percentages such as 100 or 1,10,100") from None
    if any(not 0 < value <= 100 for value in values) or len(set(values)) < len(values):
        raise DeriError(f"--fraction {text}: give different percentages above 0 and up to 100")
    return values
