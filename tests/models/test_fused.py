"""Folded convolutions give what the modules give one after the other, and follow every change of weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from deri.models import fused
from deri.models.resnet import ResNet1d
from deri.recipes import Model

needs_kernel = pytest.mark.skipif(not fused._has_kernel(), reason="no oneDNN kernel on this processor")


def backbone(name: str = "resnet18") -> ResNet1d:
    torch.manual_seed(0)
    made = ResNet1d(Model(backbone=name, base_width=64))
    with torch.no_grad():
        for _ in range(2):  # statistics that are not those of the start
            made(torch.randn(4, 12, 64) + 0.3)
    return made.eval()


def both(made: ResNet1d, ecg: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What inference mode gives, and then the modules one after the other."""
    with torch.inference_mode():
        folded = made(ecg).clone()
    made_plain = [module for module in made.modules() if hasattr(module, "fold")]
    for module in made_plain:
        module.fold = False
    with torch.no_grad():
        plain = made(ecg)
    for module in made_plain:
        module.fold = True
    return folded, plain


@needs_kernel
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("samples", [64, 97])
def test_folded_backbone_is_the_plain_one(name: str, samples: int) -> None:
    folded, plain = both(backbone(name), torch.randn(3, 12, samples))
    assert not torch.equal(folded, plain)  # the kernel was at work
    torch.testing.assert_close(folded, plain, atol=1e-4 * float(plain.abs().max()), rtol=0)


def step(made: ResNet1d) -> None:
    """One of training, as optimisers that leave no trace in versions would make it."""
    made.train()(torch.randn(4, 12, 64)).square().mean().backward()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.data.sub_(0.1 * parameter.grad)
    made.eval()


def scale(made: ResNet1d) -> None:
    with torch.no_grad():
        made.bn1.weight.mul_(2)


@needs_kernel
@pytest.mark.parametrize(
    "change",
    [
        step,
        scale,
        lambda made: made.load_state_dict({name: value * 0.9 for name, value in made.state_dict().items()}),
        lambda made: nn.init.ones_(made.bn1.running_mean),
    ],
)
def test_weights_that_change_are_folded_anew(change: Callable[[ResNet1d], object]) -> None:
    made, ecg = backbone(), torch.randn(2, 12, 64)
    with torch.inference_mode():
        before = made(ecg).clone()
    change(made)
    with torch.inference_mode():
        after = made(ecg).clone()
    _, plain = both(made, ecg)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, plain, atol=1e-4 * float(plain.abs().max()), rtol=0)
