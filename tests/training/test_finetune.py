from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

from deri.cli.main import main
from deri.errors import DeriError
from deri.evaluation.features import Features
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import probe_task
from deri.models import EcgTextModel, load_model
from deri.progress import Progress
from deri.store import Store
from deri.training.finetune import FinetuneConfig, finetune
from support import tiny
from support.stores import simulated_store


class Said(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, text: str) -> None:
        self.lines.append(text)


QUICK = FinetuneConfig(epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated_store(tmp_path_factory.mktemp("ptbxl"), 90, 3)


def tiny_model(*overrides: str, recipe: str = "deri") -> EcgTextModel:
    # 100 Hz, so that a step takes milliseconds.
    return tiny.model(
        "model.signal.fs=100", "model.signal.samples=1000", *overrides, recipe=recipe, pooling="mean", seed=4
    )


def test_trains_writes_and_loads_again(store: Store, tmp_path: Path) -> None:
    model = tiny_model()
    text = model.text_encoder.model.embeddings.word_embeddings.weight.clone()
    before = model.backbone.conv1.weight.clone()
    said = Said()
    result = finetune(
        model, store, "ptbxl-super", tmp_path / "out", model_name="tiny", config=QUICK, draws=50, progress=said
    )
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert len(said.lines) == 3
    values = [entry["val_macro_auroc"] for entry in history]
    assert result["epoch"] == int(np.argmax(values))
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    assert torch.equal(text, model.text_encoder.model.embeddings.word_embeddings.weight)
    if result["epoch"]:
        assert not torch.equal(before, model.backbone.conv1.weight)
    # What was written gives the figures of the result.
    loaded = load_model(tmp_path / "out")
    head = loaded.head
    assert head is not None
    rows = store.task_rows("ptbxl-super", "test")
    names, labels = store.labels("ptbxl-super", rows)
    assert head.classes == names
    probabilities = expit(head.logits(loaded.embed_signals(store.signals(rows), store.fs, normalise=False)))
    train = store.labels("ptbxl-super", store.task_rows("ptbxl-super", "train"))[1]
    assert head.prevalence == pytest.approx(train.mean(axis=0))
    for c, name in enumerate(names):
        assert head.thresholds[c] == result["classes"][name]["threshold"]
        # Single precision cannot tell a threshold beyond 1 - 1e-6 from 1.
        if result["classes"][name]["accuracy"] is not None and head.thresholds[c] < 1 - 1e-6:
            right = (probabilities[:, c] >= head.thresholds[c]) == labels[:, c]
            assert result["classes"][name]["accuracy"] == pytest.approx(right.mean(), abs=1.01 / len(rows))
    assert isinstance(loaded, EcgTextModel)


def test_epoch_0_is_the_probe(store: Store, tmp_path: Path) -> None:
    """With a learning rate of almost nothing, fine-tuning is the corrected probe."""
    probe = probe_task(Features(tiny_model(), store), "ptbxl-super", EvalOptions(draws=0), model_name="tiny")
    config = FinetuneConfig(epochs=1, lr=1e-12, blocks=0)
    tuned = finetune(tiny_model(), store, "ptbxl-super", tmp_path / "o", model_name="tiny", config=config, draws=0)
    assert tuned["macro_auroc"]["value"] == pytest.approx(probe["macro_auroc"]["value"], abs=2e-3)


@pytest.mark.parametrize(
    ("recipe", "overrides"), [("deri", ()), ("merl", ()), ("merl", ("model.backbone=vit_tiny",))], ids=str
)
def test_only_the_last_blocks_move(store: Store, tmp_path: Path, recipe: str, overrides: tuple[str, ...]) -> None:
    model = tiny_model(*overrides, recipe=recipe)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    blocks = list(model.backbone.blocks)
    assert len(blocks) == (12 if overrides else 8)
    config = FinetuneConfig(epochs=1, batch_size=32, blocks=1, lr=1e-2)
    # So that the trained epoch is what is kept, whatever validation says.
    import deri.training.finetune as module

    quality = iter([0.0, 1.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_quality", lambda *_: (next(quality), None))
        finetune(model, store, "ptbxl-super", tmp_path / "o", model_name="tiny", config=config, draws=0)
    moved = {name for name, value in before.items() if not torch.equal(value, model.backbone.state_dict()[name])}
    last = "blocks.11." if overrides else "layer4.1."
    behind = ("norm.",) if overrides else ()
    assert moved
    assert all(name.startswith((last, *behind)) for name in moved)
    if not overrides:
        assert f"{last}bn1.running_mean" in moved


def test_a_random_encoder_starts_from_a_loss_of_this_world(store: Store, tmp_path: Path) -> None:
    """Batch norms that never saw a batch are measured first; the loss of saying 0.5 is 0.69."""
    model = tiny_model()
    assert int(model.backbone.bn1.num_batches_tracked) == 0
    config = FinetuneConfig(epochs=1, lr=1e-12, batch_size=24)
    finetune(model, store, "ptbxl-super", tmp_path / "o", model_name="t", config=config, draws=0)
    history = json.loads((tmp_path / "o" / "history.json").read_text())
    assert history[1]["train_loss"] < 1.5
    assert model.backbone.bn1.momentum == 0.1


def test_same_seed_same_weights(store: Store, tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 1000)  # the caller's generator plays no part
        model = tiny_model()
        finetune(model, store, "ptbxl-form", tmp_path / name, model_name="t", config=QUICK, draws=0)
        results.append((tmp_path / name / "model" / "model.safetensors").read_bytes())
    assert results[0] == results[1]


def test_stops_early(store: Store, tmp_path: Path) -> None:
    config = FinetuneConfig(epochs=9, patience=2, lr=1e-12, blocks=0)
    finetune(tiny_model(), store, "ptbxl-super", tmp_path / "o", model_name="t", config=config, draws=0)
    assert len(json.loads((tmp_path / "o" / "history.json").read_text())) == 3


def test_errors(store: Store, tmp_path: Path) -> None:
    config = FinetuneConfig(blocks=9)
    with pytest.raises(DeriError, match="8 blocks"):
        finetune(tiny_model(), store, "ptbxl-super", tmp_path / "o", model_name="t", config=config)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(DeriError, match="not empty"):
        finetune(tiny_model(), store, "ptbxl-super", tmp_path / "full", model_name="t")


def test_command_line(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    common = ["finetune", "--model", str(tmp_path / "model"), "--data", str(store.path), "--task", "ptbxl-super"]
    with pytest.raises(SystemExit) as done:
        main([*common, "--out", str(tmp_path / "o"), "--epochs", "1", "--blocks", "1"])
    assert done.value.code == 0
    assert "macro AUROC" in capsys.readouterr().out
    assert json.loads((tmp_path / "o" / "result.json").read_text())["finetune"]["blocks"] == 1
    for option, value in (("--blocks", "some"), ("--lr", "0"), ("--layer-decay", "1.5")):
        with pytest.raises(SystemExit) as failed:
            main([*common, "--out", str(tmp_path / "p"), option, value])
        assert failed.value.code == 2
        assert option in capsys.readouterr().err
