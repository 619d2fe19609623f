from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deri.models.tensors
from deri.errors import DeriError
from deri.files import WriteError
from deri.progress import Progress
from deri.training.optimiser import adamw
from deri.training.state import Checkpoint, State


class Words(Progress):
    def __init__(self) -> None:
        self.told: list[str] = []

    def message(self, text: str) -> None:
        self.told.append(text)


class Kept:
    """A module of one weight, whose value is the step."""

    def __init__(self, folder: Path) -> None:
        self.module = nn.Linear(1, 1, bias=False)
        self.trained = list(self.module.named_parameters())
        self.optimizer = adamw(self.trained, 0.1, 0.0)
        self.checkpoint = Checkpoint(folder / "last.safetensors", {"a": 1})

    def save(self, step: int) -> None:
        nn.init.constant_(self.module.weight, step)
        self.checkpoint.save(self.module.state_dict(), self.trained, self.optimizer, State(step=step))

    def load(self, words: Progress) -> tuple[int, float]:
        weights = self.module.state_dict()
        state = self.checkpoint.load(weights, self.trained, self.optimizer, words)
        return state.step, float(self.module.weight.detach())


@pytest.mark.parametrize("links", [True, False])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    kept, words = Kept(tmp_path), Words()
    for step in (1, 2, 3):
        kept.save(step)
    assert kept.load(words) == (3, 3.0)
    assert not words.told
    kept.checkpoint.path.write_bytes(kept.checkpoint.path.read_bytes()[:-1] + b"x")
    assert kept.load(words) == (2, 2.0)
    (told,) = words.told
    assert "last.safetensors is damaged" in told
    assert "going on from the checkpoint before, previous.safetensors" in told
    kept.save(3)
    assert kept.load(words) == (3, 3.0)
    kept.save(4)
    kept.checkpoint.path.unlink()
    assert kept.load(words) == (3, 3.0)
    kept.checkpoint.previous.write_bytes(b"half a file")
    with pytest.raises(DeriError, match=r"previous.safetensors cannot be read.*delete it to start the run again"):
        kept.load(words)


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path)
    kept.save(1)
    kept.save(2)

    def fill(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"the first half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(deri.models.tensors, "save_file", fill)
        with pytest.raises(WriteError, match=r"last.safetensors: No space left on device; make room") as error:
            kept.save(3)
    assert len(str(error.value).splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.safetensors", "previous.safetensors"]
    assert kept.load(Words()) == (2, 2.0)
    kept.checkpoint.path.unlink()
    assert kept.load(Words()) == (1, 1.0)


def test_room_for_checkpoints_is_asked_for_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameter = nn.Parameter(torch.zeros(1_000_000))
    need = 3 * (4_000_000 + 8_000_000) + 2 * 4_000_000  # two checkpoints and the next; two models
    usage = namedtuple("usage", "total used free")
    checkpoint = Checkpoint(tmp_path / "new" / "last.safetensors", {})
    for free in (need, need - 1):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(0, 0, free))
        if free == need:
            checkpoint.require_room({"w": parameter}, [("w", parameter)])
        else:
            with pytest.raises(DeriError, match=r"take 44 MB, and 44 MB are free"):
                checkpoint.require_room({"w": parameter}, [("w", parameter)])
