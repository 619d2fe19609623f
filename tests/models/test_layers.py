from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from deri.models.layers import (
    AttentionPool,
    DropPath,
    GatedMLP,
    PackedAttention,
    SelfAttention,
    TokenAttention,
    fit_positions,
    masked_mean,
)


def test_packed_attention_equals_torch_multihead_attention() -> None:
    torch.manual_seed(0)
    ours, theirs = PackedAttention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    query, keys = torch.randn(3, 2, 16), torch.randn(3, 5, 16)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False], [True] + [False] * 4])
    expected, _ = theirs(query, keys, keys, key_padding_mask=~mask)
    torch.testing.assert_close(ours(query, keys, mask), expected)


def test_self_attention_equals_a_numpy_restatement() -> None:
    torch.manual_seed(1)
    layer = SelfAttention(dim=6, heads=2, head_dim=5)
    x = torch.randn(1, 4, 6)
    qkv = x[0].numpy() @ layer.to_qkv.weight.detach().numpy().T + layer.to_qkv.bias.detach().numpy()
    out = np.zeros((4, 10))
    for h in range(2):
        q, k, v = (qkv[:, 10 * i + 5 * h : 10 * i + 5 * h + 5] for i in range(3))
        scores = q @ k.T / np.sqrt(5)
        weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        out[:, 5 * h : 5 * h + 5] = weights @ v
    expected = out @ layer.to_out.weight.detach().numpy().T + layer.to_out.bias.detach().numpy()
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-5)


def test_gated_mlp_by_hand() -> None:
    layer = GatedMLP(1, 1, 1)
    with torch.no_grad():
        for fc, weight, bias in ((layer.fc1, 2.0, 1.0), (layer.fc2, 3.0, 0.5), (layer.fc3, -1.0, 0.0)):
            fc.weight.fill_(weight)
            fc.bias.fill_(bias)
    gate = 5.0 / (1 + np.exp(-5.0))  # SiLU(2 * 2 + 1)
    assert layer(torch.tensor([[2.0]])).item() == pytest.approx(3 * gate * -2 + 0.5, rel=1e-6)


def test_positions_prefix_and_stretch() -> None:
    positions = torch.arange(5.0).view(1, 5, 1)
    assert fit_positions(positions, 5) is positions
    assert fit_positions(positions, 3, prefix=True).flatten().tolist() == [0, 1, 2]
    assert fit_positions(positions, 3).flatten().tolist() == [0, 2, 4]
    assert fit_positions(positions, 9, prefix=True).flatten().tolist() == [i / 2 for i in range(9)]


def test_masked_mean_ignores_what_is_masked() -> None:
    x = torch.tensor([[[1.0], [2.0], [99.0]]])
    assert masked_mean(x, torch.tensor([[True, True, False]])).item() == 1.5
    assert masked_mean(x, None).item() == 34.0


def test_token_attention_ignores_masked_tokens() -> None:
    torch.manual_seed(2)
    layer = TokenAttention(6, 8, 2)
    tokens = torch.randn(2, 6, 8)
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    changed = tokens.clone()
    changed[:, 4:] = 1e3
    torch.testing.assert_close(layer(tokens, mask)[:, :4], layer(changed, mask)[:, :4])
    assert not torch.allclose(layer(tokens)[:, :4], layer(changed)[:, :4])


def test_attention_pool_adds_position_zero_twice_to_the_class_token() -> None:
    torch.manual_seed(3)
    pool = AttentionPool(4, 8, 2)
    tokens = torch.randn(1, 4, 8)
    p = pool.positions
    x = torch.cat([pool.cls_token + 2 * p[:, :1], tokens + p[:, 1:]], dim=1)
    expected = pool.projection(pool.attention(x[:, :1], x)[:, 0])
    torch.testing.assert_close(pool(tokens), expected)


def test_drop_path_keeps_the_expectation_and_is_off_in_eval() -> None:
    torch.manual_seed(4)
    layer = DropPath(0.25)
    x = torch.ones(20_000, 1)
    out = layer(x)
    assert sorted(out.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])
    assert out.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(layer.eval()(x), x)
