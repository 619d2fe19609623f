from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from deri.store import Store
from deri.training.log import read_metrics
from support import tiny
from support.distributed_job import Run, perform

SHORT = ("model.signal.fs=100", "model.signal.samples=1000", "train.schedule=constant", "train.warmup_steps=0")
BATCH = 20
"""Two processes read 10 each; three read 6, 7 and 7."""
NOISY = (
    "objective.shared=findings", "train.statements=0.5", "train.augment.noise=0.05", "model.decoder.dropout=0.3",
    "model.decoder.drop_path=0.3",
)  # fmt: skip


def runs(store: Path, text: Path, folder: Path, world: int) -> dict[str, Run]:
    deri = Run(store, text, folder / f"deri-{world}", (*SHORT, *NOISY, f"train.batch_size={BATCH}", "train.epochs=1"))
    # Adam makes much of differences in the last digit; MERL, which does not clip gradients, needs small steps.
    merl = ("train.sync_batchnorm=true", "model.text.frozen_dropout=false", "train.lr=1e-4", "train.epochs=1")
    # Without batch norm: its statistics are those of the parts.
    parts = (*deri.overrides, "model.backbone=vit_tiny", f"train.accumulate={world}")
    return {
        "deri": deri,
        "merl": replace(deri, out=folder / f"merl-{world}", overrides=(*deri.overrides[:4], *merl), recipe="merl"),
        "parts": replace(deri, out=folder / f"parts-{world}", overrides=parts),
    }


def test_a_run_does_not_depend_on_the_number_of_processes(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    """One run for each number of processes, and one that goes on from 2 processes to 1 and to 3, within epochs."""
    whole = replace(
        runs(mimic_store, text_dir, tmp_path, 1)["deri"],
        out=tmp_path / "restarted",
        overrides=(*SHORT, *NOISY, f"train.batch_size={BATCH}", "train.epochs=3"),
    )
    for world, stop in ((2, 4), (1, 7), (3, None)):
        made = runs(mimic_store, text_dir, tmp_path, world)
        perform([*made.values(), replace(whole, stop=stop)], world)
    for name in made:
        one, two, three = (losses(tmp_path / f"{name}-{world}") for world in (1, 2, 3))
        assert len(one) > 2
        np.testing.assert_allclose(two, one, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(three, one, rtol=1e-4, err_msg=name)

    replace(whole, out=tmp_path / "straight")()
    np.testing.assert_allclose(losses(tmp_path / "restarted"), losses(tmp_path / "straight"), rtol=1e-3)
    expected, found = seen(tmp_path, "straight", 1), {}
    for world, steps in ((2, range(5)), (1, range(5, 8)), (3, range(8, len(expected)))):
        part = seen(tmp_path, "restarted", world)
        assert list(part) == list(steps)
        found |= part
    assert found == expected
    store = Store.open(mimic_store)
    ecg, _ = tiny.model(*SHORT[:2]).preprocess.of_store(store, store.rows("train"))
    train = {float(one.double().sum()) for one in ecg}
    steps_per_epoch = len(train) // BATCH
    for epoch in range(3):
        once = [value for i in range(steps_per_epoch) for value in found[epoch * steps_per_epoch + i]]
        assert len(once) == len(set(once)) == steps_per_epoch * BATCH
        assert set(once) <= train


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out) if line["split"] == "train"]


def seen(folder: Path, name: str, world: int) -> dict[int, list[float]]:
    """What all processes read, by step, in the order of their ranks."""
    steps: dict[int, list[float]] = {}
    for rank in range(world):
        for line in (folder / f"{name}-seen-{world}-{rank}.jsonl").read_text().splitlines():
            step, sums = json.loads(line)
            steps.setdefault(step, []).extend(sums)
    return steps
