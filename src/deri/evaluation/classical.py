"""The classical row of a benchmark: gradient boosting on intervals and amplitudes (:mod:`deri.ecg.measure`).

A yardstick: what a table of measurements knows without a network. The trees take what cannot be measured as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from deri.evaluation.task import Split

BOOSTING = {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 15, "l2_regularization": 1.0}
"""Settings of the gradient boosting; fixed, so that nothing is chosen on any data."""


def fit_boosting(
    train: Split, val: Split, test: Split, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """One gradient boosting per class on ``train``; its probabilities on ``val`` and ``test``, and its settings.

    A leaf has at least 2 % of the training records, at most 20 of them: few records need small leaves to be told apart.
    A class whose training records are all of one kind has a constant probability, (n_pos + ½) / (n + 1).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    n = len(train.labels)
    chosen = BOOSTING | {"min_samples_leaf": max(1, min(20, n // 50)), "early_stopping": False}
    out = [np.empty((len(part.features), train.labels.shape[1])) for part in (val, test)]
    for c in range(train.labels.shape[1]):
        y = train.labels[:, c]
        n_pos = int(y.sum())
        if n_pos in (0, n):
            for target in out:
                target[:, c] = (n_pos + 0.5) / (n + 1)
            continue
        model = HistGradientBoostingClassifier(random_state=seed, **chosen)
        model.fit(train.features, y)
        for part, target in zip((val, test), out, strict=True):
            target[:, c] = model.predict_proba(part.features)[:, 1] if len(part.features) else 0.0
    return out[0], out[1], {"boosting": chosen}
