"""The training state in one safetensors file: weights, optimiser moments, and where the run stands.

Nothing is pickled. Random numbers need no state: every step seeds its own from (seed, step, rank).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from deri.errors import DeriError
from deri.files import atomic_path
from deri.models import EcgTextModel

VERSION = 1
_TEXT = "text_encoder."
_OBJECTIVE = "objective."
Named = list[tuple[str, nn.Parameter]]


@dataclass
class Progress:
    """Where a run stands: steps done, the best validation loss and its step, and the loss scale of fp16."""

    step: int = 0
    best_loss: float | None = None
    best_step: int | None = None
    scaler: dict[str, Any] | None = None


def save_state(
    path: Path,
    model: EcgTextModel,
    objective: nn.Module,
    optimizer: torch.optim.AdamW,
    progress: Progress,
    run_id: str,
) -> None:
    """Write the state atomically. A frozen text encoder is left out: the recipe names it."""
    metadata = {"version": str(VERSION), "run": run_id, "progress": json.dumps(asdict(progress))}
    write_state(path, _weights(model, objective), trained_parameters(model, objective), optimizer, metadata)


def load_state(
    path: Path, model: EcgTextModel, objective: nn.Module, optimizer: torch.optim.AdamW, run_id: str
) -> Progress:
    """Restore what :func:`save_state` wrote, exactly.

    ``run_id`` identifies what the state is of (recipe, store, number of processes); another one is an error.
    """
    metadata, tensors = read_state(path)
    if metadata.get("version") != str(VERSION):
        raise DeriError(f"{path} was written by another version of deri; start a new run")
    if metadata.get("run") != run_id:
        raise DeriError(
            f"{path} belongs to another recipe, store or number of processes; start a new run in another --out"
        )
    weights = _weights(model, objective)
    found = {name[len("model/") :] for name in tensors if name.startswith("model/")}
    if found != set(weights):
        odd = sorted(found ^ set(weights))[:5]
        raise DeriError(f"{path} does not fit the recipe's model: {', '.join(odd)} on one side only")
    with torch.no_grad():
        for name, value in weights.items():
            value.copy_(tensors[f"model/{name}"])
    restore_moments(tensors, trained_parameters(model, objective), optimizer)
    return Progress(**json.loads(metadata["progress"]))


def write_state(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    trained: Named,
    optimizer: torch.optim.Optimizer,
    metadata: dict[str, str],
) -> None:
    """Write ``weights`` as ``model/NAME`` and the moments of ``trained`` as ``optimizer/NAME/KEY``, atomically."""
    tensors = {f"model/{name}": value for name, value in weights.items()}
    for name, parameter in trained:
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_state(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors that :func:`write_state` wrote. DeriError where the file is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return file.metadata() or {}, tensors
    except Exception as error:  # safetensors has its own error type besides OSError
        raise DeriError(f"{path} cannot be read ({error}); delete it to start the run again") from None


def restore_moments(tensors: Mapping[str, torch.Tensor], trained: Named, optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser the moments that :func:`write_state` wrote."""
    for name, parameter in trained:
        prefix = f"optimizer/{name}/"
        state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if state:
            # Moments live beside their weights; the step counter stays on the CPU, where torch keeps it.
            optimizer.state[parameter] = {
                key: value if key == "step" and not optimizer.defaults.get("fused") else value.to(parameter.device)
                for key, value in state.items()
            }


def _weights(model: EcgTextModel, objective: nn.Module) -> dict[str, torch.Tensor]:
    keep_text = model.text_encoder.trained
    weights = {name: value for name, value in model.state_dict().items() if keep_text or not name.startswith(_TEXT)}
    return weights | {f"{_OBJECTIVE}{name}": value for name, value in objective.state_dict().items()}


def trained_parameters(model: EcgTextModel, objective: nn.Module) -> Named:
    """What the optimiser changes, by name: the model's weights, and those of the objective (a learned temperature)."""
    named = [*model.named_parameters(), *((f"{_OBJECTIVE}{n}", p) for n, p in objective.named_parameters())]
    return [(name, parameter) for name, parameter in named if parameter.requires_grad]
