from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import deri
from deri.errors import DeriError
from support import parity, tiny
from support.released import released_merl


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_resnets_are_recognised_and_loaded(backbone: str) -> None:
    weights = released_merl(backbone)
    model = deri.import_checkpoint(weights, text_encoder=tiny.text_encoder())
    assert model.config.backbone == backbone
    assert not model.training
    torch.testing.assert_close(model.backbone.conv1.weight, weights["ecg_encoder.conv1.weight"])


def test_files_wrappers_and_the_unused_head(tmp_path: Path) -> None:
    weights = released_merl("resnet18")
    weights["ecg_encoder.linear.weight"] = torch.zeros(10, 32)
    weights["ecg_encoder.linear.bias"] = torch.zeros(10)
    torch.save({"state_dict": weights}, tmp_path / "a.pth")
    model = deri.import_checkpoint(tmp_path / "a.pth", text_encoder=tiny.text_encoder())
    assert model.family == "merl"


def test_unknown_missing_and_misshapen_tensors_are_named() -> None:
    weights = released_merl("resnet18")
    text = tiny.text_encoder()
    with pytest.raises(DeriError, match=r"unknown tensors surprise\.weight"):
        deri.import_checkpoint({**weights, "surprise.weight": torch.zeros(1)}, text)
    with pytest.raises(DeriError, match="unknown tensors backbone.extra"):
        deri.import_checkpoint({**weights, "ecg_encoder.extra": torch.zeros(1)}, text)
    partial = {k: v for k, v in weights.items() if k != "att_pool_head.cls_token"}
    with pytest.raises(DeriError, match=r"missing tensors attention_pool\.cls_token"):
        deri.import_checkpoint(partial, text)
    with pytest.raises(DeriError, match=r"token_conv\.bias is \(3,\), expected \(32,\)"):
        deri.import_checkpoint({**weights, "downconv.bias": torch.zeros(3)}, text)


def test_without_a_text_encoder_one_must_be_named() -> None:
    weights = {name: value for name, value in released_merl("resnet18").items() if not name.startswith("lm_model.")}
    with pytest.raises(DeriError, match=r"holds no text encoder \(lm_model\.\*\); name one"):
        deri.import_checkpoint(weights)


def test_another_backbone_than_asked_for() -> None:
    with pytest.raises(DeriError, match="has backbone resnet18, not resnet50"):
        deri.import_checkpoint(released_merl("resnet18"), tiny.text_encoder(), backbone="resnet50")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a checkpoint", "cannot be read"),
        ([1, 2], "not a dictionary of tensors"),
        ({"epoch": 3}, "epoch"),
        ({}, "no tensors"),
        ({"a": torch.zeros(1)}, "backbone"),
    ],
)
def test_foreign_files(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(DeriError, match=message):
        deri.import_checkpoint(path)
    with pytest.raises(DeriError, match="does not exist"):
        deri.import_checkpoint(tmp_path / "none.pth")


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save(tiny.model(), tmp_path / "whole.pth")  # a pickled object, as careless releases ship
    with pytest.raises(DeriError, match="cannot be read as plain tensors"):
        deri.import_checkpoint(tmp_path / "whole.pth")


def test_parity_weights_follow_their_recipe() -> None:
    weights = parity.make_weights({"a.weight": [[4], "float32"], "b": [[2, 3], "float32"], "n": [[], "int64"]})
    assert weights["a.weight"].mean() == pytest.approx(1, abs=0.3)
    assert weights["n"].item() == 0
