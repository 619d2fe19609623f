"""A backbone and a text encoder from a package outside deri: registered by its entry points, saved and loaded."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.models import build_model, build_text_encoder, load_model
from deri.models.backbones import BACKBONES
from deri.models.text import TEXT_ENCODERS
from deri.recipes import load_recipe
from support import tiny

SOURCE = '''
from types import SimpleNamespace
import torch
from torch import nn
from deri.models import TextEncoder
from deri.models.backbones import Backbone


class Patches(Backbone):
    """Patches of 40 samples, then two linear layers."""

    stride = 40

    def __init__(self, config):
        super().__init__()
        self.width = config.base_width
        self.embed = nn.Conv1d(12, self.width, self.stride, self.stride)
        self.blocks = nn.ModuleList(nn.Conv1d(self.width, self.width, 1) for _ in range(2))

    def n_tokens(self, samples):
        return samples // self.stride

    def forward(self, ecg, mask=None):
        x = self.embed(ecg)
        for block in self.blocks:
            x = x + block(x).relu()
        return x


class Letters:
    """Characters as tokens."""

    pad_token = eos_token = " "

    def get_vocab(self):
        return {chr(i): i for i in range(128)}

    def __call__(self, texts, **options):
        width = max(map(len, texts))
        ids = torch.tensor([[ord(c) for c in text.ljust(width, "\\0")] for text in texts])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Bag(nn.Module):
    """Embeddings of characters."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=16)
        self.table = nn.Embedding(128, 16)

    def forward(self, input_ids, attention_mask):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def letters(config):
    return TextEncoder(Bag(), config, Letters())
'''
ENTRY_POINTS = """
[deri.backbones]
patches = outside_deri:Patches
[deri.text_encoders]
letters = outside_deri:letters
"""
RECIPE = [
    "model.backbone=patches",
    "model.text.encoder=letters",
    "model.text.pooling=mean",
    "model.signal.samples=1000",
]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that extends deri."""
    site = tmp_path / "site"
    about = site / "outside_deri-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "outside_deri.py").write_text(SOURCE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-deri\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    for table in (BACKBONES, TEXT_ENCODERS):
        monkeypatch.setattr(table, "_rows", dict(table._rows))
        monkeypatch.setattr(table, "_entry_points_loaded", False)
    yield
    sys.modules.pop("outside_deri", None)


@pytest.mark.parametrize("family", ["deri", "merl"])
@pytest.mark.usefixtures("outside")
def test_they_survive_saving_and_loading(family: str, tmp_path: Path) -> None:
    overrides = [*RECIPE, f"model.family={family}", "model.dim=32", "model.base_width=8"]
    model = build_model(load_recipe("deri", overrides).model, seed=3)
    assert model.n_tokens(1000) == (9 if family == "deri" else 25)  # 25 patches, DERI takes every third
    assert len(list(model.backbone.blocks)) == 2
    before, behind = model.backbone.ends()
    assert (before, behind) == ([model.backbone.embed], [])
    out = model.train()(torch.randn(3, 12, 1000), *model.text_encoder.tokenize(["a", "bc", "d"]))
    assert out.ecg_aligned.shape == out.text_aligned.shape == (3, 32)
    model.save_pretrained(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert type(loaded.backbone).__name__ == "Patches"
    signals = np.random.default_rng(0).normal(size=(2, 12, 1000)).astype(np.float32)
    np.testing.assert_array_equal(loaded.embed_signals(signals, 500.0), model.embed_signals(signals, 500.0))
    np.testing.assert_array_equal(loaded.encode_text(["sinus"]), model.encode_text(["sinus"]))


@pytest.mark.usefixtures("outside")
def test_without_the_package_it_is_told_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_model(load_recipe("deri", RECIPE).model).save_pretrained(tmp_path / "m")
    for table in (BACKBONES, TEXT_ENCODERS):
        monkeypatch.setattr(table, "_rows", {name: row for name, row in table._rows.items() if name not in RECIPE[0]})
    with pytest.raises(DeriError, match=r"config\.json: model\.backbone=patches: there are resnet18.*package") as error:
        load_model(tmp_path / "m")
    assert len(str(error.value).splitlines()) == 1


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    for override, known in (("model.backbone=resnet19", "resnet18"), ("model.family=clip", "deri, merl")):
        with pytest.raises(DeriError, match=known):
            tiny.model(override)


def test_an_encoder_that_nothing_can_rebuild_is_not_saved(tmp_path: Path) -> None:
    model = tiny.model()
    text = model.text_encoder
    text.model.config.model_type = "of-my-own"
    text.config = text.config.model_copy(update={"encoder": "of-my-own"})
    with pytest.raises(DeriError, match="register it"):
        model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m" / "config.json").exists()


def test_a_registered_name_without_files_is_no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from deri.models.text import source_of

    monkeypatch.setattr(TEXT_ENCODERS, "_rows", dict(TEXT_ENCODERS._rows))
    TEXT_ENCODERS.register("mine")(lambda config: tiny.text_encoder())
    assert build_text_encoder(load_recipe("deri", ["model.text.encoder=mine"]).model.text).width > 0
    with pytest.raises(DeriError, match="mine has no files"):
        source_of("mine")
