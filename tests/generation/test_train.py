"""A report writer is the same from one process, from two, and from two of which each holds a part of the decoder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from deri.errors import DeriError
from deri.generation.data import training_rows
from deri.generation.train import train_writer
from deri.store import Store
from support import tiny, writers
from support.distributed_job import perform

STEPS = ["network.dropout=0", "accumulate=2", "log_steps=1", "checkpoint_steps=2", "prefetch=0"]


@dataclass
class Training:
    """Of a small writer; goes on in ``out``."""

    store: Path
    out: Path
    overrides: tuple[str, ...] = ()

    def __call__(self, rank: int = 0, world: int = 1) -> None:
        encoder = tiny.model("model.signal.fs=100", "model.signal.samples=1000", pooling="mean")
        config = writers.config(*STEPS, *self.overrides)
        train_writer(encoder, Store.open(self.store), self.out, config, device="cpu", resume=True)


def losses(run: Path, split: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == split]


def test_a_writer_does_not_depend_on_the_processes_nor_on_how_they_share_it(mimic_store: Path, tmp_path: Path) -> None:
    """Each goes on after a first epoch, from a file that another kind of training could have written."""
    made = {"one": 1, "two": 2, "parts": 2}
    others = len(training_rows(Store.open(mimic_store))[0]) - 1
    # The last batch of an epoch has a single report, of which one of two processes has none.
    size = next(n for n in range(9, others + 1) if others % n == 0)
    for epochs in ("epochs=1", "epochs=2"):
        for name, world in made.items():
            more = (f"batch_size={size}", epochs, *(["shard=true"] if name == "parts" else []))
            perform([Training(mimic_store, tmp_path / name, more)], world)
    assert len(losses(tmp_path / "one", "train")) > 2
    for name in ("two", "parts"):
        for split in ("train", "val"):
            np.testing.assert_allclose(losses(tmp_path / name, split), losses(tmp_path / "one", split), rtol=1e-5)
        for file in ("checkpoints/last.safetensors", "writer/model.safetensors"):
            one, other = load_file(tmp_path / "one" / file), load_file(tmp_path / name / file)
            assert {key: value.shape for key, value in one.items()} == {k: v.shape for k, v in other.items()}
        about = [json.loads((tmp_path / n / "writer" / "config.json").read_text())["writer"] for n in ("one", name)]
        assert about[0] == about[1]


def test_a_tuned_encoder_is_not_sharded() -> None:
    with pytest.raises(DeriError, match="train a tuned encoder without it"):
        writers.config("shard=true", "encoder=tuned")
