from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deri.objectives import info_nce, sigmoid_loss


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@given(
    n=st.integers(1, 6),
    seed=st.integers(0, 1000),
    rule=st.sampled_from(["none", "ignore", "positive"]),
    temperature=st.sampled_from([0.1, 0.5]),
    bias=st.sampled_from([-10.0, 0.0]),
)
def test_sigmoid_equals_a_loop_over_pairs(n: int, seed: int, rule: str, temperature: float, bias: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 4)), rng.normal(size=(n, 4))
    groups = rng.integers(-1, 2, n)
    total = 0.0
    for i in range(n):
        for j in range(n):
            same = i != j and groups[i] == groups[j] >= 0
            if rule == "ignore" and same:
                continue
            matches = i == j or (rule == "positive" and same)
            logit = unit(a)[i] @ unit(b)[j] / temperature + bias
            total += math.log1p(math.exp(-logit if matches else logit))
    actual = sigmoid_loss(
        torch.tensor(a),
        torch.tensor(b),
        temperature,
        bias,
        None if rule == "none" else torch.tensor(groups),
        same_group="positive" if rule == "positive" else "ignore",
    )
    assert float(actual) == pytest.approx(total / n, rel=1e-4, abs=1e-5)


@given(n=st.integers(2, 6), seed=st.integers(0, 1000))
def test_equal_reports_as_positives_share_the_target(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 4)), rng.normal(size=(n, 4))
    groups = rng.integers(-1, 2, n)
    total = 0.0
    for x, y in ((unit(a), unit(b)), (unit(b), unit(a))):
        for i in range(n):
            logits = y @ x[i] / 0.5
            log_p = logits - np.log(np.exp(logits).sum())
            friends = [j for j in range(n) if j == i or groups[j] == groups[i] >= 0]
            total -= np.mean(log_p[friends]) / n
    actual = info_nce(torch.tensor(a), torch.tensor(b), 0.5, torch.tensor(groups), same_group="positive")
    assert float(actual) == pytest.approx(total, rel=1e-4)
