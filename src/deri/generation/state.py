"""The state of a writer's training in one safetensors file: trained weights, optimiser moments, and where it stands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from deri.errors import DeriError
from deri.training.log import drop_lines
from deri.training.state import Named, read_state, restore_moments, write_state

VERSION = 2
"""2: the memory ``tokens`` holds the tokens before token attention."""


@dataclass
class Progress:
    """Steps done, the lowest validation loss, and the epoch (from 1) that had it."""

    step: int = 0
    best_loss: float | None = None
    best_epoch: int | None = None


def save_state(path: Path, named: Named, optimizer: torch.optim.Optimizer, progress: Progress, run_id: str) -> None:
    """Write the trained parameters and their moments atomically. What is frozen is built again from its source."""
    metadata = {"version": str(VERSION), "run": run_id, "progress": json.dumps(asdict(progress))}
    write_state(path, dict(named), named, optimizer, metadata)


def load_state(path: Path, named: Named, optimizer: torch.optim.Optimizer, run_id: str) -> Progress:
    """Restore what :func:`save_state` wrote, exactly.

    Raises:
        DeriError: the file is broken, or of another config, store or encoder.
    """
    metadata, tensors = read_state(path)
    if metadata.get("version") != str(VERSION) or metadata.get("run") != run_id:
        raise DeriError(f"{path} belongs to other options, another store or encoder; start a new run in another --out")
    if {name[6:] for name in tensors if name.startswith("model/")} != {name for name, _ in named}:
        raise DeriError(f"{path} holds other weights than this writer has; start a new run in another --out")
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(tensors[f"model/{name}"])
    restore_moments(tensors, named, optimizer)
    return Progress(**json.loads(metadata["progress"]))


class StepLog:
    """Appends lines to ``log.jsonl``; after a resume, lines past the restored step are dropped: they come again."""

    def __init__(self, path: Path, step: int) -> None:
        drop_lines(path, step)
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by close)

    def write(self, **values: float | int | str | None) -> None:
        """Append a line."""
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
