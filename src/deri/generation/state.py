"""The state of a writer's training in one safetensors file: trained weights, optimiser moments, and where it stands."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from deri.errors import DeriError
from deri.files import atomic_path

VERSION = 1
Named = list[tuple[str, nn.Parameter]]


@dataclass
class Progress:
    """Steps done, the lowest validation loss, and the epoch (from 1) that had it."""

    step: int = 0
    best_loss: float | None = None
    best_epoch: int | None = None


def save_state(path: Path, named: Named, optimizer: torch.optim.Optimizer, progress: Progress, run_id: str) -> None:
    """Write the trained parameters and their moments atomically. What is frozen is built again from its source."""
    tensors: dict[str, torch.Tensor] = {f"model/{name}": parameter for name, parameter in named}
    for name, parameter in named:
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {"version": str(VERSION), "run": run_id, "progress": json.dumps(asdict(progress))}
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata=metadata)


def load_state(path: Path, named: Named, optimizer: torch.optim.Optimizer, run_id: str) -> Progress:
    """Restore what :func:`save_state` wrote, exactly.

    Raises:
        DeriError: the file is broken, or of another config, store or encoder.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except Exception as error:  # safetensors has its own error type besides OSError
        raise DeriError(f"{path} cannot be read ({error}); delete it to start the run again") from None
    if metadata.get("version") != str(VERSION) or metadata.get("run") != run_id:
        raise DeriError(f"{path} belongs to other options, another store or encoder; start a new run in another --out")
    if {name[6:] for name in tensors if name.startswith("model/")} != {name for name, _ in named}:
        raise DeriError(f"{path} holds other weights than this writer has; start a new run in another --out")
    with torch.no_grad():
        for name, parameter in named:
            parameter.copy_(tensors[f"model/{name}"])
    for name, parameter in named:
        prefix = f"optimizer/{name}/"
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            # Moments live beside their weights; the step counter stays on the CPU, where torch keeps it.
            optimizer.state[parameter] = {
                key: value if key == "step" and not optimizer.defaults.get("fused") else value.to(parameter.device)
                for key, value in state.items()
            }
    return Progress(**json.loads(metadata["progress"]))


class StepLog:
    """Appends lines to ``log.jsonl``; after a resume, lines past the restored step are dropped: they come again."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [line for line in lines if _step(line) <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by close)

    def write(self, **values: float | int | str | None) -> None:
        """Append a line."""
        self._file.write(json.dumps(values) + "\n")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # cut short by a kill
        return float("inf")
