"""The engine on a small task of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deri.objectives import info_nce
from deri.recipes import Train
from deri.training.distributed import Replica
from deri.training.engine import Engine, EpochResult, Task, Validation
from deri.training.log import RunLog
from deri.training.optimiser import adamw
from deri.training.state import Checkpoint

ALONE = Replica(0, 1, torch.device("cpu"))


class Contrast(Task[Tensor]):
    """Two linear maps of the same random vectors against each other."""

    steps_per_epoch = 4

    def __init__(self, temperature: float = 0.07) -> None:
        torch.manual_seed(0)
        self.temperature = temperature
        self.maps = nn.ModuleDict({"left": nn.Linear(32, 32), "right": nn.Linear(32, 32)})
        self.trained = list(self.maps.named_parameters())
        self.results: list[EpochResult] = []
        self.outputs: list[Any] = []
        self.criterion = 1.0

    def seed(self, step: int) -> int:
        return step

    def read(self, step: int) -> list[Tensor]:
        return [torch.randn(24, 32, generator=torch.Generator().manual_seed(step))]

    def prepare(self, part: Tensor, step: int) -> Tensor:
        return part

    def forward(self, part: Tensor) -> Any:
        self.outputs.append((self.maps["left"](part), self.maps["right"](part)))
        return self.outputs[-1]

    def losses(self, output: Any, part: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"contrast": info_nce(*output, self.temperature)}, {}

    def amounts(self, part: Tensor) -> dict[str, int]:
        return {"samples": len(part)}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.maps.state_dict())

    def train_mode(self, on: bool) -> None:
        self.maps.train(on)

    def validate(self) -> Validation:
        return Validation(self.criterion, {"loss": self.criterion})

    def epoch_done(self, result: EpochResult) -> None:
        self.results.append(result)


def engine(task: Contrast, out: Path, *, precision: str = "fp32", **config: Any) -> Engine[Tensor]:
    settings = Train(**{"epochs": 2, "lr": 1e-3, "log_steps": 1, "checkpoint_steps": 3, **config})
    made = Engine(
        task,
        settings,
        adamw(task.trained, settings.lr, 0.01),
        ALONE,
        precision=precision,
        checkpoint=Checkpoint(out / "last.safetensors", "run", "another run"),
    )
    made.log = RunLog(out / "log.jsonl", 0)
    return made


def symmetric_info_nce(a: np.ndarray, b: np.ndarray, temperature: float) -> float:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    logits = a @ b.T / temperature
    total = 0.0
    for each in (logits, logits.T):
        highest = each.max(axis=1)
        log_sum = np.log(np.exp(each - highest[:, None]).sum(axis=1)) + highest
        total += float((log_sum - np.diag(each)).mean())
    return total


def test_a_sharp_loss_is_computed_in_fp32_in_a_bf16_run(tmp_path: Path) -> None:
    task = Contrast(temperature=0.01)
    made = engine(task, tmp_path, precision="bf16", epochs=1)
    made._step(0, task.read(0))
    left, right = task.outputs[0]
    assert left.dtype == torch.bfloat16  # the model itself did run in bf16
    expected = symmetric_info_nce(*(x.detach().double().numpy() for x in (left, right)), 0.01)
    assert float(made.tally.last) == pytest.approx(expected, rel=1e-4)
