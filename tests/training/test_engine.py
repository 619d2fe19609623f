"""The engine on a small task of its own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from deri.errors import DeriError
from deri.models.tensors import load_tensors
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
    advice = "try less"
    store = SimpleNamespace(  # type: ignore[assignment]
        index=pd.DataFrame({"subject_id": list("abcdefgh"), "study_id": range(100, 108), "file": ["x.hea"] * 8})
    )

    def __init__(self, temperature: float = 0.07) -> None:
        self.bad_step: int | None = None
        torch.manual_seed(0)
        self.temperature = temperature
        self.maps = nn.ModuleDict({"left": nn.Linear(32, 32), "right": nn.Linear(32, 32)})
        self.trained = list(self.maps.named_parameters())
        self.results: list[EpochResult] = []
        self.outputs: list[Any] = []
        self.criterion = 1.0

    def seed(self, step: int) -> int:
        return step

    def step_rows(self, step: int) -> list[np.ndarray]:
        return [np.array([step])]

    def read(self, step: int) -> list[Tensor]:
        bad = float("nan") if step == self.bad_step else 1.0
        return [bad * torch.randn(24, 32, generator=torch.Generator().manual_seed(step))]

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


def engine(task: Contrast, out: Path, **config: Any) -> Engine[Tensor]:
    settings = Train(**{"epochs": 2, "lr": 1e-3, "log_steps": 1, "checkpoint_steps": 3, **config})
    made = Engine(
        task,
        settings,
        adamw(task.trained, settings.lr, 0.01),
        ALONE,
        checkpoint=Checkpoint(out / "last.safetensors", {"task": "contrast"}),
    )
    out.mkdir(exist_ok=True)
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


def kept(out: Path) -> dict[str, Tensor]:
    return load_file(out / "last.safetensors")


@pytest.mark.parametrize("clip_grad", [1.0, None])
def test_a_step_that_is_not_finite_stops_before_anything_is_kept(clip_grad: float | None, tmp_path: Path) -> None:
    """Steps are logged and saved at other moments than the bad one, and its epoch ends after it."""
    config = {"log_steps": 100, "checkpoint_steps": 3, "clip_grad": clip_grad, "epochs": 2}
    straight = Contrast()
    engine(straight, tmp_path / "straight", **config).fit()
    task = Contrast()
    task.bad_step = 6  # of 0 … 7; checkpoints are after 3, 4 (the epoch), 6 and 8 steps
    with pytest.raises(DeriError, match=r"nan at step 7: try less.*g/106 \(x\.hea\); --resume continues") as error:
        engine(task, tmp_path / "bad", **config).fit()
    assert len(str(error.value).splitlines()) == 1
    assert all(bool(value.isfinite().all()) for value in kept(tmp_path / "bad").values())
    assert [result.epoch for result in task.results] == [0]
    mended = Contrast()
    again = engine(mended, tmp_path / "bad", **config)
    assert again.resume()
    assert again.state.step == 6
    again.fit()
    expected, found = kept(tmp_path / "straight"), kept(tmp_path / "bad")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    task = Contrast()
    made = engine(task, tmp_path)

    def poison(step: int) -> int:
        if step == 2:
            with torch.no_grad():
                task.maps["left"].bias[3] = float("inf")  # finite losses: what is normalised hides it in this task
        return step

    task.seed = poison  # type: ignore[method-assign]
    task.forward = lambda part: (task.maps["right"](part), part)  # type: ignore[method-assign]
    with pytest.raises(DeriError, match=r"weights are not finite after step 3.*c/102.*there is no checkpoint yet"):
        made.fit()
    assert not (tmp_path / "last.safetensors").exists()
    assert not task.results


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_not_finite_is_never_the_best(value: float, tmp_path: Path) -> None:
    task = Contrast()
    task.criterion = value
    with pytest.raises(DeriError, match=f"held-out records is {value} after step 4: try less; --resume continues"):
        engine(task, tmp_path).fit()
    assert not task.results
    again = engine(Contrast(), tmp_path)
    assert again.resume()
    assert (again.state.step, again.state.best_loss) == (3, None)


def test_the_train_loss_of_an_epoch_covers_it_over_a_resume(tmp_path: Path) -> None:
    task = Contrast()
    made = engine(task, tmp_path / "whole", epochs=1, log_steps=3)
    losses = []
    step = made._step
    made._step = lambda *a: (step(*a), losses.append(float(made.tally.last)))[0]  # type: ignore[method-assign,func-returns-value]
    made.fit()
    (result,) = task.results
    assert len(losses) == 4
    assert result.train_loss == pytest.approx(np.mean(losses))
    cut = Contrast()
    cut.bad_step = 3
    with pytest.raises(DeriError):
        engine(cut, tmp_path / "cut", epochs=1, log_steps=3).fit()
    again = Contrast()
    resumed = engine(again, tmp_path / "cut", epochs=1, log_steps=3)
    assert resumed.resume()
    resumed.fit()
    assert again.results[0].train_loss == result.train_loss


def test_a_signal_that_another_process_received_stops_after_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here nothing was received; what all processes learn at the second step counts."""
    said = iter([0, signal.SIGTERM])
    monkeypatch.setattr(Replica, "most", lambda self, value: max(value, next(said, 0)))
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        engine(Contrast(), tmp_path, checkpoint_steps=100).fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    _, about = load_tensors(tmp_path / "last.safetensors", "")
    assert json.loads(about["progress"])["step"] == 2


@pytest.mark.parametrize(
    "numbers", [[signal.SIGUSR1], [signal.SIGTERM, signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]]
)
def test_what_schedulers_send_keeps_a_checkpoint_and_ends_as_sigterm(numbers: list[int], tmp_path: Path) -> None:
    """Also where SIGTERM comes twice: to the whole job, and from the launcher of the process."""
    task = Contrast()

    def seed(step: int) -> int:
        for number in numbers if step == 1 else []:
            os.kill(os.getpid(), number)
        return step

    task.seed = seed  # type: ignore[method-assign]
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        engine(task, tmp_path, checkpoint_steps=100).fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    _, about = load_tensors(tmp_path / "last.safetensors", "")
    assert json.loads(about["progress"])["step"] == 2


def test_what_is_no_matrix_by_meaning_is_not_decayed() -> None:
    shapes = {"conv.weight": (3, 2), "conv.bias": (3,), "pool.cls_token": (1, 1, 4), "pool.positions": (1, 5, 4)}
    named = [(name, nn.Parameter(torch.ones(shape))) for name, shape in shapes.items()]
    groups = adamw(named, 1e-3, 0.01).param_groups
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert [decays[id(p)] for _, p in named] == [0.01, 0, 0, 0]
