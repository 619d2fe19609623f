"""``deri zeroshot``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from deri.cli.console import progress


class Split(str, Enum):
    """Which records are scored."""

    train = "train"
    val = "val"
    test = "test"
    all = "all"


class ProtocolName(str, Enum):
    """How F1 thresholds and class texts are chosen."""

    corrected = "corrected"
    published = "published"


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
            show=show,
        )
    write_json(out, result)
    print(_summary(result, out))


def _summary(result: dict[str, Any], out: Path) -> str:
    macro = result["macro_auroc"]
    ci = f" (95 % CI {macro['ci'][0]:.3f}–{macro['ci'][1]:.3f})" if macro["ci"] else ""
    value = "null" if macro["value"] is None else f"{macro['value']:.3f}{ci}"
    lines = [
        f"{result['task']} {result['split']}: macro AUROC {value} over {result['n_classes_scored']} of "
        f"{result['n_classes']} classes, {result['n']} records of {result['n_patients']} patients → {out}"
    ]
    return "\n".join([*lines, *(f"  {note}" for note in result["notes"])])
