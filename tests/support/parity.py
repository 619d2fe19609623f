"""The released checkpoints' recipe for weights and inputs, restated from the README of the parity folder."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel


def text_config() -> BertConfig:
    return BertConfig(
        vocab_size=200, hidden_size=768, num_hidden_layers=1, num_attention_heads=12, intermediate_size=64
    )


def make_weights(keys: dict[str, list]) -> dict[str, torch.Tensor]:
    """Tensors named and shaped by ``keys``, with the deterministic values that the expected numbers belong to."""
    weights = {}
    for name, (shape, dtype) in keys.items():
        if "int" in dtype:
            weights[name] = torch.zeros(shape, dtype=getattr(torch, dtype))
            if name.endswith("position_ids"):
                weights[name] = torch.arange(shape[-1]).expand(shape)
            continue
        seed = zlib.crc32(name.encode()) & 0xFFFFFFFF
        x = np.random.RandomState(seed).standard_normal(shape)
        if name.endswith("running_var"):
            x = 1 + 0.2 * np.abs(x)
        elif name.endswith("running_mean"):
            x = 0.1 * x
        elif len(shape) == 1 and name.endswith("weight"):
            x = 1 + 0.1 * x
        elif len(shape) == 1:
            x = 0.1 * x
        else:
            x = x / np.sqrt(np.prod(shape[1:]))
        weights[name] = torch.from_numpy(np.asarray(x, dtype=np.float32))
    return weights


def load(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    keys = json.loads((folder / f"{name}.keys.json").read_text())
    with np.load(folder / f"{name}.npz") as archive:
        expected = {key: archive[key] for key in archive.files}
    return make_weights(keys), expected


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r = np.random.RandomState(7)
    ecg = torch.from_numpy(r.random_sample((6, 12, 5000)).astype(np.float32))
    ids = torch.from_numpy(r.randint(5, 200, (6, 256)))
    lengths = torch.tensor([9, 30, 256, 4, 64, 17])
    mask = (torch.arange(256)[None, :] < lengths[:, None]).long()
    return ecg, ids * mask, mask


def text_model() -> BertModel:
    return BertModel(text_config())
