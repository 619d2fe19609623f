"""``deri calibrate``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options as opt
from deri.cli.console import open_store, progress
from deri.errors import DeriError, some
from deri.files import atomic_path


def calibrate(
    model: opt.Model,
    data: opt.Data,
    task: opt.Task,
    split: opt.Split = opt.SplitName.val,
    prompts: opt.Prompts = None,
    out: Annotated[Path | None, typer.Option(help="copy of the model to calibrate [default: the model itself]")] = None,
    skip_damaged: opt.SkipDamaged = False,
    device: opt.Device = None,
) -> None:
    """Learn probabilities of the findings of a task, from recordings with labels that the model was not trained on.

    They are kept in the model's directory, and deri classify prints them. A finding with fewer than ten positives gets
    none. Another task of the same model is kept beside; the same task is replaced.
    """
    from deri.evaluation.calibration_fit import MIN_POSITIVES, calibrate_task
    from deri.evaluation.features import Features
    from deri.models import load_model
    from deri.models.build import model_folder
    from deri.models.calibration import CALIBRATION, save_calibration, with_task

    if model.startswith("random:"):
        raise DeriError(f"--model {model} has random weights and no directory: train a model first")
    folder = model_folder(model)
    if out is None and Path(model).expanduser() not in (folder, folder.parent):
        raise DeriError(f"--model {model} is in no folder of yours: give --out DIR, which gets a calibrated copy")
    if out is not None and out.exists() and any(out.iterdir()):
        raise DeriError(f"--out {out} exists and is not empty; name a new directory")
    store, loaded = open_store(data, skip_damaged), load_model(model, device=device)
    if loaded.head is not None:
        raise DeriError(f"--model {model} has a head, whose outputs are probabilities already: see deri classify")
    with progress("calibrate") as show:
        learnt = calibrate_task(Features(loaded, store, progress=show), task, split.value, prompts=prompts)
    loaded.calibration = with_task(loaded, task, learnt)
    if out is None:
        save_calibration(folder, loaded)
    else:
        with atomic_path(out) as aside:
            shutil.copytree(folder, aside)
            save_calibration(aside, loaded)
    place = (out or folder) / CALIBRATION
    print(f"{len(learnt.classes)} findings of {task} calibrated on {learnt.n:,} records of {split.value} → {place}")
    if learnt.too_few:
        print(f"  without, fewer than {MIN_POSITIVES} positives or negatives: {some(list(learnt.too_few), 12)}")
