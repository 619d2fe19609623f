"""Standard deviations of the initial weights, by layer, as docs/recipes.md gives them for the released code."""

from __future__ import annotations

import math

import pytest

from deri.models import EcgTextModel, build_model
from deri.recipes import load_recipe
from support import tiny

D = 256


def model(recipe: str, *overrides: str) -> EcgTextModel:
    config = load_recipe(recipe, overrides).model
    return build_model(config, seed=1, text_encoder=tiny.text_encoder())


def torch_default(fan_in: int) -> float:
    """Uniform between -1/√fan_in and 1/√fan_in."""
    return 1 / math.sqrt(3 * fan_in)


RELEASED = {
    "deri-reference": {
        "ecg_to_text.positions": 1.0,
        "ecg_to_text.separator": 1.0,
        "text_to_ecg.positions": 1.0,
        "text_to_ecg.separator": 1.0,
        "token_attention.positions": 1 / D,
        "token_attention.separator": 1.0,
        "view_attention.0.positions": 1 / D,
        "view_attention.1.separator": 1.0,
        "token_conv.weight": torch_default(512),
        "text_projection.0.weight": torch_default(48),
        "ecg_to_text.embed.fc1.weight": torch_default(D),
        "backbone.conv1.weight": torch_default(12 * 7),
        "backbone.layer1.0.conv1.weight": torch_default(64 * 3),
        "backbone.layer4.1.conv2.weight": torch_default(512 * 3),
    },
    "merl": {
        "attention_pool.positions": 1 / D,
        "attention_pool.cls_token": 1.0,
        "backbone.layer2.0.conv1.weight": torch_default(64 * 3),
    },
}
RELEASED["deri-paper"] = RELEASED["deri-reference"]
DEFAULT = {
    "ecg_to_text.positions": 0.02,
    "token_attention.positions": 1 / math.sqrt(D),
    "token_attention.separator": 1 / math.sqrt(D),
    "backbone.layer1.0.conv1.weight": math.sqrt(2 / (64 * 3)),
}


@pytest.mark.parametrize(("recipe", "expected"), [*RELEASED.items(), ("deri", DEFAULT)])
def test_standard_deviations(recipe: str, expected: dict[str, float]) -> None:
    made = model(recipe)
    weights = dict(made.named_parameters())
    for name, std in expected.items():
        if name == "text_projection.0.weight":
            std = torch_default(made.text_encoder.width)
        value = weights[name].detach()
        sigma = 1 / math.sqrt(2 * value.numel())  # relative error of a standard deviation of normal draws
        assert float(value.std()) == pytest.approx(std, rel=5 * sigma), name


def test_the_same_seed_gives_the_same_released_weights() -> None:
    a, b = (model("merl").state_dict() for _ in range(2))
    assert all((a[name] == b[name]).all() for name in a)
