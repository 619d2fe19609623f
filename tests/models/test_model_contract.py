"""One contract for all models: every family on every backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import deri
from deri.errors import DeriError
from deri.models import EcgTextModel, Output, TextFeatures, build_model, load_model
from deri.recipes import load_recipe
from support import tiny

BACKBONES = ["resnet18", "resnet34", "resnet50", "resnet101", "vit_tiny", "vit_small", "vit_middle", "vit_base"]


def batch(b: int = 3, samples: int = 1000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ecg = torch.randn(b, 12, samples, generator=generator)
    ids = torch.randint(4, 20, (b, 7), generator=generator)
    mask = (torch.arange(7)[None] < torch.tensor([7, 4, 2])[:b, None]).long()
    return ecg, ids * mask, mask


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("family", ["deri", "merl"])
def test_every_backbone_trains_and_embeds(family: str, backbone: str) -> None:
    model = tiny.model(f"model.family={family}", f"model.backbone={backbone}", "model.signal.samples=1000").train()
    ecg, ids, mask = batch()
    out: Output = model(ecg, ids, mask)
    assert out.ecg_aligned.shape == out.text_aligned.shape == (3, 32)
    assert [view.shape for view in out.ecg_views] == [(3, 32)] * 2
    torch.testing.assert_close(out.text_aligned.norm(dim=1), torch.ones(3))
    if family == "deri":
        for value in (out.ecg_original, out.ecg_decoded, out.ecg_mixed, out.text_mixed):
            assert value is not None
            assert value.shape == (3, 32)
        assert out.text_decoded is not None
        assert out.text_decoded.shape == (3, model.text_encoder.width)
    loss = sum(x.square().sum() for x in (out.ecg_views[0], out.ecg_views[1], out.ecg_aligned, out.text_aligned))
    if family == "deri":
        loss = loss + out.ecg_mixed.sum() + out.text_mixed.sum() + out.ecg_original.sum()  # type: ignore[union-attr]
    loss.backward()  # type: ignore[union-attr]
    dead = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert dead == []
    assert all(p.grad is None for p in model.text_encoder.parameters())
    embedding = model.eval().ecg_embedding(ecg)
    assert embedding.shape == (3, 32)
    assert torch.isfinite(embedding).all()


@pytest.mark.parametrize("family", ["deri", "merl"])
@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny"])
@pytest.mark.parametrize("samples", [600, 1000, 1300])
def test_any_ecg_length(family: str, backbone: str, samples: int) -> None:
    model = tiny.model(f"model.family={family}", f"model.backbone={backbone}", "model.signal.samples=1000")
    ecg, ids, mask = batch(samples=samples)
    assert model(ecg, ids, mask).ecg_aligned.shape == (3, 32)


def test_parameter_count_of_the_paper() -> None:
    """SPEC: 9.23 M outside the text encoder, counting layers that released models carry and never use."""
    recipe = load_recipe("deri-reference")
    encoder = tiny.text_encoder()
    encoder.width = 768
    model = build_model(recipe.model.model_copy(update={"text": encoder.config}), text_encoder=encoder)
    count = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("text_encoder."))
    unused = 3 * 256 * 257 + 10 * 513  # c_proj of three token attentions, the backbone's classification layer
    assert round((count + unused) / 1e6, 2) == 9.23


def test_corrected_recipe_does_not_see_padding() -> None:
    model = tiny.model("model.signal.samples=1000")
    ecg, ids, mask = batch()
    wide = torch.nn.functional.pad(ids, (0, 20)), torch.nn.functional.pad(mask, (0, 20))
    noise = (torch.rand(3, 21), torch.rand(3, 21))
    a, b = model(ecg, ids, mask, view_noise=noise), model(ecg, *wide, view_noise=noise)
    for name in ("text_mixed", "ecg_decoded", "text_aligned", "ecg_mixed"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=1e-5, rtol=1e-5)
    released = tiny.model("model.signal.samples=1000", "model.mask_padding=false")
    a, b = released(ecg, ids, mask, view_noise=noise), released(ecg, *wide, view_noise=noise)
    assert not torch.allclose(a.ecg_decoded, b.ecg_decoded, atol=1e-3)  # type: ignore[arg-type]


def test_masked_tail_of_a_short_recording_does_not_reach_the_token_mean() -> None:
    model = tiny.model("model.signal.samples=1000")
    mask = model.token_mask(torch.tensor([1000, 480, 48]), 1000)
    assert mask is not None
    assert mask.sum(dim=1).tolist() == [21, 10, 1]  # 48 samples a token
    assert model.token_mask(torch.tensor([1000, 990, 1000]), 1000) is None
    ecg, ids, text_mask = batch()
    out = model(ecg, ids, text_mask, valid_samples=torch.tensor([1000, 480, 48]))
    assert out.ecg_original is not None
    tokens = model.ecg_tokens(ecg, None)  # type: ignore[attr-defined]
    torch.testing.assert_close(out.ecg_original[1], tokens[1, :10].mean(dim=0))


def test_views_keep_the_stated_share_in_order_and_differ() -> None:
    model = tiny.model("model.signal.samples=1000", "model.views.mask_ratio=0.4")
    assert isinstance(model, deri.DERI)
    tokens = torch.randn(2, 21, 32)
    noise = torch.rand(2, 21)
    first, second = model.views(tokens, None, (noise, noise))
    kept = noise.argsort(dim=1)[:, : int(21 * 0.6)]
    keep = torch.zeros(2, 21, dtype=torch.bool).scatter_(1, kept, True)
    attended = model.view_attention[0](tokens, keep)
    expected = torch.stack([attended[i][keep[i]].mean(dim=0) for i in range(2)])
    torch.testing.assert_close(first, expected)
    assert not torch.allclose(first, second)
    # A token that is not kept has no influence.
    changed = tokens.clone()
    changed[~keep] = 100.0
    torch.testing.assert_close(model.views(changed, None, (noise, noise))[0], first)


def test_features_and_ids_give_the_same() -> None:
    model = tiny.model("model.signal.samples=1000")
    ecg, ids, mask = batch()
    encoded = model.text_encoder(ids, mask)
    noise = (torch.rand(3, 21), torch.rand(3, 21))
    a = model(ecg, ids, mask, view_noise=noise)
    features = TextFeatures(encoded.pooled, encoded.tokens, encoded.mask)
    b = model(ecg, features=features, view_noise=noise)
    torch.testing.assert_close(a.text_mixed, b.text_mixed)


@pytest.mark.parametrize("family", ["deri", "merl"])
def test_directory_round_trip(family: str, tmp_path: Path) -> None:
    model = tiny.model(f"model.family={family}", "model.signal.samples=1000", seed=5)
    model.recipe_name = "mine"
    model.save_pretrained(tmp_path / "m")
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert {"config.json", "model.safetensors", "preprocessing.json", "README.md", "tokenizer.json"} <= names
    assert not any(name.endswith((".tmp", ".pt", ".pth", ".bin", ".pkl")) for name in names)
    loaded = type(model).from_pretrained(tmp_path / "m")
    ecg, ids, mask = batch()
    torch.testing.assert_close(loaded.ecg_embedding(ecg), model.ecg_embedding(ecg), rtol=0, atol=0)
    np.testing.assert_array_equal(loaded.encode_text(["sinus rhythm"]), model.encode_text(["sinus rhythm"]))
    assert loaded.recipe_name == "mine"
    other = deri.MERL if family == "deri" else deri.DERI
    with pytest.raises(DeriError, match=family):
        other.from_pretrained(tmp_path / "m")


def test_weights_of_another_backbone_are_an_error_that_names_tensors(tmp_path: Path) -> None:
    a, b = (tiny.model(f"model.backbone={name}", "model.signal.samples=1000") for name in ("resnet18", "resnet34"))
    a.save_pretrained(tmp_path / "a")
    b.save_pretrained(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(DeriError, match=r"unknown tensors backbone\.layer1\.2"):
        load_model(tmp_path / "a")


def test_bad_model_names_are_clear(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="no such directory"):
        load_model(tmp_path / "nothing")
    with pytest.raises(DeriError, match="config.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DeriError, match="is a model of transformers, not a model; .*deri convert"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "deri-model", "version": 99}')
    with pytest.raises(DeriError, match="99"):
        load_model(tmp_path)
    with pytest.raises(DeriError, match="demo"):
        load_model("random:nothing")


def test_random_models_depend_on_their_seed_alone() -> None:
    def first(model: EcgTextModel) -> torch.Tensor:
        return next(model.backbone.parameters()).detach()

    a, b, c = (tiny.model(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first(a), first(b))
    assert not torch.equal(first(a), first(c))
    state = torch.get_rng_state()
    tiny.model(seed=3)
    assert torch.equal(state, torch.get_rng_state())


def test_encode_and_classify_recordings() -> None:
    model = tiny.model("model.signal.samples=1000", "model.signal.fs=100")
    rng = np.random.default_rng(0)
    ecgs = [deri.ECG(rng.normal(size=(12, n)).astype(np.float32), fs, {}) for n, fs in ((5000, 500.0), (2500, 250.0))]
    embedded = model.encode_ecg(ecgs)
    assert embedded.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, rtol=1e-5)
    table = model.classify(ecgs, ["sinus rhythm", "atrial fibrillation"])
    assert list(table.columns) == ["sinus rhythm", "atrial fibrillation"]
    np.testing.assert_allclose(table.to_numpy(), embedded @ model.encode_labels(list(table.columns))[0].T, atol=1e-6)
    # One at a time gives the same as a batch.
    np.testing.assert_allclose(np.concatenate([model.encode_ecg(ecg) for ecg in ecgs]), embedded, atol=1e-5)
    with pytest.raises(DeriError, match="labels"):
        model.classify(ecgs, [])


def test_a_long_text_does_not_move_the_positions_of_the_others() -> None:
    """Positions of the text→ECG decoder are few here; a text that needs more has its own stretched."""
    model = tiny.model("model.text_positions=8").eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 20, (3, 30), generator=generator)
    mask = torch.arange(30)[None] < torch.tensor([[5], [30], [12]])
    together = model.text_features(ids * mask, mask.long(), None)
    decoded = model.text_embedding(together)
    for row, length in enumerate([5, 30, 12]):
        one = model.text_features(ids[row : row + 1, :length], torch.ones(1, length, dtype=torch.long), None)
        torch.testing.assert_close(decoded[row : row + 1], model.text_embedding(one), atol=1e-5, rtol=1e-5)
