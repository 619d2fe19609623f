from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar

import pytest

from deri.progress import Progress
from deri.recipes import Train
from deri.training.schedule import learning_rate, with_warmup


def test_warmup_then_cosine_to_the_minimum() -> None:
    config = Train(lr=1.0, min_lr=0.1, warmup_steps=10, schedule="cosine")
    values = [learning_rate(step, 110, config) for step in range(110)]
    assert values[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert values[10] == 1.0
    assert values[60] == pytest.approx(0.55)
    assert values[-1] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in pairwise(values[10:]))


def test_a_long_warmup_is_not_cut() -> None:
    config = Train(lr=1.0, min_lr=0.0, warmup_steps=10)
    assert [learning_rate(step, 20, config) for step in (4, 9, 10, 15)] == pytest.approx([0.5, 1.0, 1.0, 0.5])


def test_pretraining_warms_up_over_at_most_a_tenth_of_a_short_run_and_says_so() -> None:
    class Said(Progress):
        lines: ClassVar[list[str]] = []

        def message(self, text: str) -> None:
            self.lines.append(text)

    said = Said()
    assert with_warmup(Train(warmup_steps=500), 20, said).warmup_steps == 2
    assert said.lines == ["warm-up over 2 of 20 steps, a tenth, instead of 500"]
    for config in (Train(warmup_steps=2), Train(warmup_steps=500, schedule="restarts")):
        assert with_warmup(config, 20, said) == config
    assert len(said.lines) == 1


def test_restarts_as_released_equal_torch() -> None:
    import torch

    config = Train(lr=1e-3, min_lr=1e-8, schedule="restarts", restart_steps=7, warmup_steps=0)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=7, eta_min=1e-8)
    for step in range(20):
        assert learning_rate(step, 20, config) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        scheduler.step()


def test_constant() -> None:
    assert math.isclose(learning_rate(90, 100, Train(lr=0.5, schedule="constant", warmup_steps=5)), 0.5)
