"""``deri zeroshot``, ``deri probe``, ``deri retrieval`` and ``deri finetune``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from deri.cli import options as opt
from deri.cli.console import open_store, progress, task_summary
from deri.errors import DeriError


def _opened(model: str | None, data: str, skip_damaged: bool, device: str | None) -> tuple[Any, Any]:
    """The store and the model, if any, of a command."""
    from deri.models import load_model

    store = open_store(data, skip_damaged)
    return store, None if model is None else load_model(model, device=device)


def zeroshot(
    model: opt.Model,
    data: opt.Data,
    task: opt.Task,
    out: opt.ResultFile,
    prompts: opt.Prompts = None,
    split: opt.Split = opt.SplitName.test,
    protocol: opt.Protocol = opt.ProtocolName.corrected,
    seed: opt.BootstrapSeed = 0,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Classify without training: the cosine between a recording and each class's text."""
    from deri.evaluation.features import Features
    from deri.evaluation.options import EvalOptions
    from deri.evaluation.zero_shot import zero_shot_task
    from deri.files import write_json

    store, loaded = _opened(model, data, skip_damaged, device)
    options = EvalOptions(protocol=protocol.value, split=split.value, seed=seed)
    with progress("zeroshot") as shown:
        features = Features(loaded, store, progress=shown)
        result = zero_shot_task(features, task, options, model_name=model, prompts=prompts)
    write_json(out, result)
    print(task_summary(result, out))


def retrieval(
    model: opt.Model,
    data: opt.DataWithReports,
    out: opt.ResultFile,
    split: opt.Split = opt.SplitName.test,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Find the report of a recording and the recording of a report: recall at 1, 5, 10 and the median rank."""
    from deri.evaluation.retrieval import retrieval_on_store
    from deri.files import write_json

    store, loaded = _opened(model, data, skip_damaged, device)
    with progress("retrieval") as shown:
        result = retrieval_on_store(loaded, store, model_name=model, split=split.value, progress=shown)
    write_json(out, result)
    for way in ("ecg_to_text", "text_to_ecg"):
        recalls = ", ".join(f"R@{k} {result[f'{way}_r{k}']:.3f}" for k in (1, 5, 10))
        print(f"{way}: {recalls}, median rank {result[f'{way}_median']:g}")
    print(f"{result['n']} recordings, {result['n_texts']} distinct reports → {out}")


def probe(
    data: opt.Data,
    task: opt.Task,
    out: opt.ResultFile,
    model: Annotated[str | None, typer.Option(help=f"{opt.MODEL}; needless with --features intervals")] = None,
    fraction: opt.Fraction = "100",
    features: Annotated[
        opt.FeaturesName, typer.Option(help="the embedding, measured intervals and amplitudes, or both")
    ] = opt.FeaturesName.embedding,
    protocol: opt.Protocol = opt.ProtocolName.corrected,
    sampling: opt.Sampling = opt.SamplingName.random,
    seed: opt.FirstSeed = 42,
    seeds: opt.Seeds = None,
    folds: Annotated[int | None, typer.Option(min=3, help="cross-validate by patient over all records instead")] = None,
    save: Annotated[Path | None, typer.Option(help="new directory: the model with the probe as its head")] = None,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Linear probe: train a linear layer on the embeddings of a frozen encoder, or on what is measured in the ECGs.

    deri classify --model DIR gives the probabilities of what --save DIR wrote.
    """
    from deri.evaluation.features import Features, FeaturesAndMeasurements
    from deri.evaluation.options import EvalOptions
    from deri.evaluation.probe import probe_task, train_head
    from deri.evaluation.task import load_task
    from deri.files import atomic_path, write_json

    measured = features is not opt.FeaturesName.embedding
    if measured and protocol is opt.ProtocolName.published:
        raise DeriError(
            f"--features {features.value}: the published protocol does not scale features; use --protocol corrected"
        )
    if features is opt.FeaturesName.intervals:
        model = None
    elif model is None:
        raise DeriError(f"--model is missing: --features {features.value} needs one, --features intervals does not")
    if save is not None:
        if measured or folds or protocol is opt.ProtocolName.published:
            raise DeriError(f"--save {save}: only the corrected probe of the embedding on a store's splits is saved")
        if save.exists() and any(save.iterdir()):
            raise DeriError(f"--save {save} exists and is not empty; name a new directory")
    options = EvalOptions(
        protocol=protocol.value,
        fractions=opt.fractions_of(fraction),
        sampling=sampling.value,
        seed=seed,
        seeds=seeds,
        folds=folds or 0,
    )
    store, loaded = _opened(model, data, skip_damaged, device)
    kind = FeaturesAndMeasurements if features is opt.FeaturesName.both else Features
    with progress("probe: features") as shown:
        read = kind(loaded, store, progress=shown)
        result = probe_task(read, task, options, model_name=model)
    write_json(out, result)
    if save is not None:
        loaded.head = train_head(load_task(read, task), task)
        with atomic_path(save) as folder:
            loaded.save_pretrained(folder)
        print(f"probe on all training records → {save}")
    for one in result["fractions"].values() if "fractions" in result else [result]:
        where = f"{one['fraction']:g} % → test"
        if folds:
            where = f"{folds} folds" if one["fraction"] == 100 else f"{one['fraction']:g} % of {folds} folds"
        print(task_summary(result | one | {"split": where}, out))


def finetune(
    model: opt.Model,
    data: opt.Data,
    task: opt.Task,
    out: Annotated[Path, typer.Option(help="new directory: result.json, history.json, model/")],
    blocks: Annotated[str, typer.Option(help="all, or the last K blocks of the backbone")] = "all",
    epochs: Annotated[int, typer.Option(min=1, help="at most")] = 20,
    batch_size: Annotated[int, typer.Option(min=2)] = 64,
    lr: Annotated[float, typer.Option(help="of the head; layers below have less")] = 5e-4,
    layer_decay: Annotated[float, typer.Option(help="learning rate of a layer relative to the one above")] = 0.75,
    patience: Annotated[int, typer.Option(min=1, help="epochs without a better validation AUROC before stopping")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 42,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Train the encoder, or its last blocks, further on the labels of a task."""
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
    store, loaded = _opened(model, data, skip_damaged, device)
    with progress("finetune") as show:
        result = run(loaded, store, task, out, model_name=model, config=config, progress=show)
    print(task_summary(result, out))
