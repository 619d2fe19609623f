from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.models import load_model
from deri.objectives import info_nce
from deri.progress import Progress
from deri.recipes import Recipe, load_recipe
from deri.store import Store
from deri.training.batches import Batch
from deri.training.distributed import Replica
from deri.training.log import RunLog, read_metrics
from deri.training.pretrain import CANDIDATES, PairTask, _engine, _Setup
from support import tiny
from support.small_run import SMALL, StopAt, recipe, run, weights


def test_loss_falls_and_the_best_model_is_ready_for_use(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    out = run(mimic_store, tmp_path / "run", recipe(text_dir, "train.epochs=6"))
    lines = read_metrics(out)
    train = [line for line in lines if line["split"] == "train"]
    val = [line for line in lines if line["split"] == "val"]
    assert np.mean([line["loss"] for line in train[-4:]]) < np.mean([line["loss"] for line in train[:4]])
    assert len(val) == 6
    assert {"alignment", "view_contrast", "ecg_to_text_r1", "text_to_ecg_r5"} <= set(val[0])
    best = min(val, key=lambda line: line["loss"])
    assert f"weights of step {best['step']}" in (out / "model" / "README.md").read_text()
    model = load_model(out)
    assert model.recipe_name == "deri"
    assert not list(out.rglob("*.tmp"))
    assert (out / "recipe.yaml").is_file()


def test_a_run_that_shows_statements_repeats_them_when_resumed(
    mimic_store: Path, text_dir: Path, tmp_path: Path
) -> None:
    content = recipe(text_dir, "train.epochs=2", "objective.shared=findings", "train.statements=0.6")
    straight = weights(run(mimic_store, tmp_path / "a", content))
    with pytest.raises(KeyboardInterrupt):
        run(mimic_store, tmp_path / "b", content, progress=StopAt(4))
    again = weights(run(mimic_store, tmp_path / "b", content, resume=True))
    assert all(torch.equal(straight[name], again[name]) for name in straight)


def test_same_seed_same_bits_and_another_seed_differs(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    content = recipe(text_dir, "train.epochs=2")
    a, b = (weights(run(mimic_store, tmp_path / name, content)) for name in "ab")
    c = weights(run(mimic_store, tmp_path / "c", recipe(text_dir, "train.epochs=2", "train.seed=7")))
    assert set(a) == set(b) == set(c)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("name", ["deri", "deri-reference", "deri-paper", "merl"])
def test_every_recipe_trains(name: str, mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    content = recipe(text_dir, "train.epochs=1", "model.text.max_tokens=24", name=name)
    lines = read_metrics(run(mimic_store, tmp_path / "run", content))
    assert all(line["loss"] is not None for line in lines)
    if name == "deri-reference":
        last = [line for line in lines if line["split"] == "train"][-1]
        terms = ("alignment", "mixed_alignment", "view_contrast", "ecg_reconstruction")
        assert last["loss"] == pytest.approx(sum(last[term] for term in terms), rel=1e-4)
        assert last["text_reconstruction"] > 0


def validated(store: Path, out: Path, content: Recipe) -> tuple[PairTask, dict[str, float]]:
    replica = Replica(0, 1, torch.device("cpu"))
    with _engine(_Setup([store], out, content, None, False), replica, Progress()) as engine:
        assert isinstance(engine.task, PairTask)
        engine.task.train_mode(False)
        found = engine.task.validate()
    assert found is not None
    assert found.criterion == found.values["loss"]
    return engine.task, found.values


def test_the_validation_loss_does_not_depend_on_the_batch_size(
    mimic_store: Path, text_dir: Path, tmp_path: Path
) -> None:
    few, many = (
        validated(mimic_store, tmp_path / str(size), recipe(text_dir, f"train.batch_size={size}"))[1]
        for size in (8, 32)
    )
    assert few == many
    assert few["candidates"] == len(Store.open(mimic_store).rows("val")) < CANDIDATES


def test_the_validation_loss_is_the_mean_over_groups_of_one_size(
    mimic_store: Path, text_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[PairTask.__module__], "CANDIDATES", 8)
    task, values = validated(mimic_store, tmp_path / "run", recipe(text_dir, name="merl"))
    (rows,) = task.val_rows
    n = len(rows)
    assert n % 8
    assert values["candidates"] == 8
    batch = task.pairs.batch(rows)
    with torch.no_grad():
        output = task.forward(batch)
    groups = [slice(start, start + 8) for start in [*range(0, n - 7, 8), n - 8]]
    pairs = [(output.ecg_aligned[g], output.text_aligned[g], 0.07, batch.report_ids[g]) for g in groups]
    rule = task.recipe.objective.duplicates
    assert rule in ("ignore", "negative")
    losses = [float(info_nce(*p[:3], p[3] if rule == "ignore" else None)) for p in pairs]
    assert values["alignment"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_training_text_layers_changes_them(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    out = run(mimic_store, tmp_path / "run", recipe(text_dir, "train.epochs=1", "model.text.train_layers=1"))
    before = tiny.text_encoder().model.state_dict()
    after = load_model(out).text_encoder.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("encoder.layer.1.") for name in changed)
    assert not any(name.startswith(("encoder.layer.0.", "embeddings.")) for name in changed)


def test_resume_refuses_what_does_not_fit(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    content = recipe(text_dir, "train.epochs=1")
    out = run(mimic_store, tmp_path / "run", content)
    with pytest.raises(DeriError, match="--resume"):
        run(mimic_store, out, content)
    with pytest.raises(DeriError, match=r"train.lr was 0.002 and is 0.1.*set it back"):
        run(mimic_store, out, recipe(text_dir, "train.epochs=1", "train.lr=0.1"), resume=True)
    for name in ("last", "previous"):
        (out / "checkpoints" / f"{name}.safetensors").write_bytes(b"half a file")
    with pytest.raises(DeriError, match="cannot be read"):
        run(mimic_store, out, content, resume=True)


def test_resume_with_more_epochs_follows_the_longer_schedule(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    longer = recipe(text_dir, "train.epochs=2", "train.warmup_steps=0")
    whole = read_metrics(run(mimic_store, tmp_path / "whole", longer))
    out = run(mimic_store, tmp_path / "run", recipe(text_dir, "train.epochs=1", "train.warmup_steps=0"))
    run(mimic_store, out, longer, resume=True)
    assert load_recipe(str(out / "recipe.yaml")).train.epochs == 2

    def rates(lines: list[dict[str, float]]) -> list[float]:
        return [line["lr"] for line in lines if line["split"] == "train"]

    continued, steps = rates(read_metrics(out)), len(rates(whole)) // 2
    assert len(continued) == 2 * steps
    assert continued[steps:] == rates(whole)[steps:]
    assert continued[steps - 1] < rates(whole)[steps - 1]  # the shorter schedule had come down
    run(mimic_store, out, longer, resume=True)  # nothing is left to do
    assert len(read_metrics(out)) == len(whole)


def test_reports_that_are_all_equal_are_nothing_to_contrast(
    mimic_store: Path, text_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(mimic_store)
    ids = np.where(store.report_ids >= 0, store.report_ids.max(), -1)
    monkeypatch.setattr(Store, "report_ids", ids)
    with pytest.raises(DeriError, match="all have one report.*nothing to contrast"):
        run(mimic_store, tmp_path / "run", recipe(text_dir))
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_store_is_told(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    class Words(Progress):
        def __init__(self) -> None:
            self.told: list[str] = []

        def message(self, text: str) -> None:
            self.told.append(text)

    words = Words()
    content = recipe(text_dir, "train.batch_size=500", "train.epochs=1")
    run(mimic_store, tmp_path / "run", content, progress=words)
    assert any("train.batch_size=500 is more than the store has" in text for text in words.told)


def test_precision_fp16_needs_a_gpu(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="needs a GPU"):
        run(mimic_store, tmp_path / "run", recipe(text_dir, "train.precision=fp16"))
    run(mimic_store, tmp_path / "bf16", recipe(text_dir, "train.precision=bf16", "train.epochs=1"))


def test_log_drops_lines_past_the_restored_step(tmp_path: Path) -> None:
    lines = [json.dumps({"split": "train", "step": step, "epoch": 0, "loss": 1.0}) for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"split": "train", "st')
    log = RunLog(tmp_path / "metrics.jsonl", 2)
    log.write("train", 3, 0, {"loss": float("nan")})
    log.close()
    assert [(line["step"], line["loss"]) for line in read_metrics(tmp_path)] == [(1, 1.0), (2, 1.0), (3, None)]


def test_the_record_that_is_not_finite_is_named_alone(
    mimic_store: Path, text_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, bad = PairTask.read, []

    def read(self: PairTask, step: int) -> list[Batch]:
        batches = original(self, step)
        if step == 1:
            batches[0].ecg[5, 3, 100] = float("inf")
            (row,) = self.step_rows(step)[0][5:6]
            bad.append(self.pairs.records(np.array([row])).file.item())
        return batches

    monkeypatch.setattr(PairTask, "read", read)
    with pytest.raises(DeriError, match="nan at step 2: lower train.lr") as error:
        run(mimic_store, tmp_path / "run", recipe(text_dir, "train.checkpoint_steps=1"))
    assert str(error.value).count("(files/") == 1
    assert f"({bad[0]}) (read as values that are not finite); --resume continues" in str(error.value)


KILLED = """
import os, signal, sys
import deri.cli.main as cli
import deri.models.tensors as tensors
from deri.training.pretrain import PairTask
attempt, original = os.environ["TORCHELASTIC_RESTART_COUNT"], PairTask.read
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def read(self, step):
    if (attempt, step) == ("0", 5):
        kill()
    if (attempt, step) == ("1", 7):  # the checkpoint after it is written, and not yet under its name
        save = tensors.save_file
        tensors.save_file = lambda t, path, **k: (save(t, path, **k), "last" in path.name and kill())
    return original(self, step)
PairTask.read = read
cli.main(sys.argv[1:])
"""


def test_killed_under_torchrun_it_ends_with_the_same_bits(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    """In a step, and while it writes a checkpoint; ``--max-restarts`` goes on from the last one each time."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    content = recipe(text_dir, "train.epochs=4", "train.prefetch=0")
    run(mimic_store, straight, content)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "--max-restarts=2"]
    options = ["pretrain", "--data", mimic_store, "--out", killed, "--device", "cpu", "--resume"]
    overrides = [*SMALL, f"model.text.encoder={text_dir}", "train.epochs=4", "train.prefetch=0"]
    done = subprocess.run(
        list(map(str, [sys.executable, *launcher, script, *options, *overrides])),
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [f"resuming {killed} at step {step}" in done.stderr for step in (4, 6)] == [True, True]
    a, b = weights(straight), weights(killed)
    assert set(a) == set(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    models = [(out / "model" / "model.safetensors").read_bytes() for out in (straight, killed)]
    assert models[0] == models[1]
    logs = [
        [{k: v for k, v in line.items() if k != "samples_per_s"} for line in read_metrics(o)]
        for o in (straight, killed)
    ]
    assert logs[0] == logs[1]
    assert not list(killed.rglob("*.tmp"))
