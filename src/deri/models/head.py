"""A linear head on a model's embeddings, trained on the classes of a task by ``deri probe --save`` or ``finetune``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deri.errors import DeriError
from deri.models.directory import HEAD, read_manifest, read_weights, save


@dataclass(frozen=True)
class Head:
    """A head and its classes.

    Attributes:
        weight: (classes, d) float32, for embeddings that are not normalised.
        bias: (classes,) float32.
        task: that it was trained on.
        classes: their names.
        thresholds: of highest F1 on validation, on probabilities; None where there is none.
        prevalence: share of positives of each class in training, in (0, 1), that its probabilities hold for; None where
            the directory does not say it.
    """

    weight: np.ndarray
    bias: np.ndarray
    task: str
    classes: list[str]
    thresholds: list[float | None]
    prevalence: list[float] | None = None

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Log odds (n, classes) of embeddings (n, d) that are not normalised."""
        return embeddings @ self.weight.T + self.bias

    def save(self, folder: Path) -> None:
        """Write it into the directory of its model."""
        about = {name: value for name, value in vars(self).items() if name not in ("weight", "bias")}
        weights = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in ("weight", "bias")}
        save(HEAD, folder, weights, about)


def read_head(folder: Path, dim: int) -> Head:
    """The head in the directory of a model of ``dim`` dimensions.

    Raises:
        DeriError: its files are broken or do not fit the model.
    """
    about, weights = read_manifest(HEAD, folder), read_weights(HEAD, folder)
    shape = (len(about["classes"]), dim)
    if set(weights) != {"weight", "bias"} or tuple(weights["weight"].shape) != shape:
        raise DeriError(f"{folder / HEAD.weights} does not fit the model and its {shape[0]} classes")
    return Head(
        weights["weight"].numpy(),
        weights["bias"].numpy(),
        *(about[name] for name in ("task", "classes", "thresholds")),
        about.get("prevalence"),
    )
