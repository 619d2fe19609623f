from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import typer
from torch import Tensor

from deri.cli.main import app
from deri.errors import DeriError
from deri.models.device import choose_device, to_device


def gpus(patch: pytest.MonkeyPatch, n: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: n > 0)
    patch.setattr(torch.cuda, "device_count", lambda: n)


def test_the_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    assert choose_device() == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("cpu") == torch.device("cpu")
    gpus(monkeypatch, 0)
    assert choose_device() == torch.device("cpu")


@pytest.mark.parametrize(
    ("n", "name", "message"),
    [(0, "cuda", "finds no GPU here; use cpu"), (1, "cuda:1", "finds 1 GPU here"), (1, "gpu", "name cpu, cuda or")],
)
def test_a_device_that_is_not_there_is_an_error(
    n: int, name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, n)
    with pytest.raises(DeriError, match=f"--device {name}: .*{message}"):
        choose_device(name)


def test_no_command_has_a_device_of_its_own_by_default() -> None:
    def commands(group: object) -> list[object]:
        inside = getattr(group, "commands", None)
        return [group] if inside is None else [one for child in inside.values() for one in commands(child)]

    found = {
        command.name: option.default
        for command in commands(typer.main.get_command(app))
        for option in command.params
        if option.name == "device"
    }
    assert len(found) >= 12
    assert set(found.values()) == {None}


@dataclass
class Inner:
    a: Tensor
    n: int


@dataclass
class Outer:
    inner: Inner | None
    pair: tuple[Tensor, None]


def test_tensors_are_moved_wherever_they_stand() -> None:
    x = torch.zeros(2)
    there = to_device(Outer(Inner(x, 3), (x, None)), torch.device("meta"))
    assert there.inner is not None
    assert (there.inner.a.device.type, there.pair[0].device.type) == ("meta", "meta")
    assert (there.inner.n, there.pair[1], x.device.type) == (3, None, "cpu")
    assert to_device(Outer(None, (x, None)), torch.device("cpu")).pair[0] is x
