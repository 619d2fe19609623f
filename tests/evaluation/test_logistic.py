from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from deri.evaluation.logistic import fit_logistic
from deri.evaluation.sgd_probe import Training, fit_published
from deri.evaluation.task import Split

STRENGTHS = (1.0, 1e-2, 1e-4)


def correlated(n: int, d: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ (rng.normal(size=(d, d)) / np.arange(1, d + 1)[:, None])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    logits = x @ rng.normal(size=(d, classes)) / 4 - np.linspace(0, 3, classes)
    return x, (logits + rng.logistic(size=logits.shape) > 0).astype(np.uint8)


@pytest.mark.parametrize(("n", "d"), [(400, 20), (30, 60)], ids=["more records", "more features"])
def test_equals_sklearn_at_every_strength(n: int, d: int) -> None:
    x, y = correlated(n, d, 3, seed=n)
    fits = fit_logistic(x, y, STRENGTHS)
    assert fits.converged.all()
    for s, strength in enumerate(STRENGTHS):
        for c in range(3):
            exact = LogisticRegression(C=1 / (n * strength), tol=1e-10, max_iter=50_000).fit(x, y[:, c])
            np.testing.assert_allclose(fits.weight[s, c], exact.coef_[0], atol=2e-3 * np.abs(exact.coef_).max())
            assert fits.bias[s, c] == pytest.approx(exact.intercept_[0], rel=2e-3, abs=1e-3)
    logits = fits.logits(x)
    np.testing.assert_allclose(logits[1, :, 2], x @ fits.weight[1, 2] + fits.bias[1, 2], atol=1e-9)


def test_features_that_are_equal_constant_or_shifted() -> None:
    x, y = correlated(200, 6, 2, seed=5)
    doubled = np.concatenate([x, x, np.zeros((200, 1))], axis=1)
    fits = fit_logistic(doubled, y, (1e-3,))
    assert fits.converged.all()
    np.testing.assert_allclose(fits.weight[0, :, :6], fits.weight[0, :, 6:12], atol=1e-6)
    assert np.abs(fits.weight[0, :, 12]).max() == 0
    # Twins share the weight, so that they cost half the penalty.
    alone = fit_logistic(x, y, (0.5e-3,))
    np.testing.assert_allclose(fits.weight[0, :, :6] * 2, alone.weight[0], atol=5e-3)
    shifted = fit_logistic(x + 100, y, (1e-3,))
    np.testing.assert_allclose(shifted.logits(x + 100), fit_logistic(x, y, (1e-3,)).logits(x), atol=1e-4)


def test_a_class_of_one_kind_is_the_same_for_every_record() -> None:
    x, y = correlated(50, 4, 3, seed=2)
    y[:, 0], y[:, 2] = 0, 1
    fits = fit_logistic(x, y, STRENGTHS)
    assert (fits.weight[:, [0, 2]] == 0).all()
    np.testing.assert_allclose(fits.bias[:, 0], np.log(0.5 / 50.5))
    np.testing.assert_allclose(fits.bias[:, 2], np.log(50.5 / 0.5))
    assert np.abs(fits.weight[:, 1]).max() > 0
    one = fit_logistic(x[:1], y[:1], STRENGTHS)
    assert (one.weight == 0).all()
    with pytest.raises(ValueError, match="positive"):
        fit_logistic(x, y, (0.0,))


def test_published_probe_equals_torch_layer_and_optimizer() -> None:
    """The same draws through torch.nn.Linear, BCEWithLogitsLoss, torch.optim.AdamW and LambdaLR."""
    x, y = correlated(37, 5, 3, seed=9)
    x = x.astype(np.float32)
    epochs, warmup, batch, lr, decay = 6, 2, 16, 0.05, 0.1
    records = Split(x, y, np.arange(len(x)))
    weight, bias, chosen = fit_published(records, records, seed=3, training=Training(epochs, warmup, batch, lr, decay))
    generator = torch.Generator().manual_seed(3)
    start = (torch.rand(3, 6, generator=generator) * 2 - 1) / 5**0.5
    layer = torch.nn.Linear(5, 3)
    layer.load_state_dict({"weight": start[:, :5].clone(), "bias": start[:, 5].clone()})
    optimizer = torch.optim.AdamW(layer.parameters(), lr=lr, weight_decay=decay)
    total, warm = 3 * epochs, 3 * warmup
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: (s + 1) / warm if s < warm else (1 + np.cos(np.pi * (s - warm) / (total - warm))) / 2,
    )
    by_epoch = []
    for _ in range(epochs):
        for rows in torch.randperm(37, generator=generator).split(batch):
            loss = torch.nn.BCEWithLogitsLoss()(layer(torch.from_numpy(x)[rows]), torch.from_numpy(y)[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        by_epoch.append((layer.weight.detach().clone().numpy(), layer.bias.detach().clone().numpy()))
    from sklearn.metrics import roc_auc_score

    quality = [roc_auc_score(y, x @ w.T + b, average="macro") for w, b in by_epoch]
    best = int(np.argmax(quality))
    assert chosen == {"epoch": best + 1}
    np.testing.assert_allclose(weight, by_epoch[best][0], atol=1e-5)
    np.testing.assert_allclose(bias, by_epoch[best][1], atol=1e-5)
