from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from deri.errors import DeriError
from deri.models import Output
from deri.objectives import TERMS, PairBatch, PairObjective
from deri.recipes import Objective, load_recipe
from deri.recipes.load import build_recipe


def length(output: Output, batch: PairBatch, config: Objective) -> Tensor:
    return (batch.gather(output.ecg_aligned).norm(dim=-1) - 1).square().mean()


def needs_mixed(output: Output, batch: PairBatch, config: Objective) -> Tensor | None:
    return None if output.ecg_mixed is None else output.ecg_mixed.sum()


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TERMS, "_rows", dict(TERMS._rows))
    TERMS.register("length")(length)
    TERMS.register("needs_mixed")(needs_mixed)


def output() -> Output:
    a = torch.tensor([[3.0, 4.0], [0.0, 1.0]], requires_grad=True)
    return Output(a, torch.eye(2), (torch.eye(2), torch.eye(2)))


@pytest.mark.usefixtures("registered")
def test_a_term_from_outside_is_weighted_logged_and_trained() -> None:
    config = load_recipe("merl", ["objective.terms.length=0.5", "objective.terms.needs_mixed=1"]).objective
    out = output()
    losses, logged = PairObjective(config)(out, PairBatch(report_ids=torch.arange(2)))
    assert float(logged["length"]) == 8  # lengths 5 and 1: (16 + 0) / 2
    assert float(losses["length"]) == 4
    assert set(logged) == {"alignment", "view_contrast", "length"}  # MERL has no mixed embedding
    losses["length"].backward()
    assert out.ecg_aligned.grad is not None
    # d/dx of 0.5 · mean((|x| - 1)²) is 0.5 · (|x| - 1) · x / |x|
    torch.testing.assert_close(out.ecg_aligned.grad, torch.tensor([[1.2, 1.6], [0.0, 0.0]]))


def test_unknown_and_double_terms_are_refused() -> None:
    with pytest.raises(DeriError, match="'nothing' is no objective term; there are alignment, mixed_alignment"):
        PairObjective(Objective(terms={"nothing": 1.0}))
    with pytest.raises(DeriError, match=r"the weight of alignment is objective\.alignment"):
        PairObjective(Objective(terms={"alignment": 1.0}))
    with pytest.raises(DeriError, match="terms"):
        load_recipe("deri", ["objective.terms.length=-1"])


def test_recipes_of_old_runs_load_where_they_say_what_is_left(tmp_path: Path) -> None:
    content = load_recipe("deri").model_dump()
    content["objective"] |= {"loss": "info_nce", "train_temperature": False}
    assert build_recipe(content, "old") == load_recipe("deri")
    for key, value in (("loss", "sigmoid"), ("train_temperature", True)):
        changed = content | {"objective": content["objective"] | {key: value}}
        with pytest.raises(DeriError, match=f"{key}={value} exists no longer; remove the key"):
            build_recipe(changed, "old")
