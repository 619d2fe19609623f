"""A fine-tuned model on disk: a model directory with a linear head and its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deri.errors import DeriError
from deri.models import EcgTextModel, load_model
from deri.models.directory import HEAD, find, read_manifest, read_weights, save, weights_of


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned model: encoder, linear head, class names and F1 thresholds on probabilities."""

    model: EcgTextModel
    head: nn.Linear
    task: str
    classes: list[str]
    thresholds: list[float | None]

    @torch.inference_mode()
    def probabilities(
        self,
        signals: np.ndarray,
        fs: float,
        valid_samples: np.ndarray | None = None,
        lead_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Probabilities (B, classes) of standardised signals (B, 12, n) in mV at ``fs`` Hz, canonical leads."""
        self.model.eval()
        embedding = self.model.ecg_embedding(*self.model.prepare(signals, fs, valid_samples, lead_mask))
        return self.head(embedding.float()).sigmoid().cpu().numpy()


def load_classifier(directory: str | Path, *, device: str = "cpu") -> Classifier:
    """Load what ``deri finetune`` wrote: its output directory, or the ``model`` folder in it."""
    folder = find(HEAD, directory)
    about, weights = read_manifest(HEAD, folder), read_weights(HEAD, folder)
    model = load_model(folder, device=device)
    shape = (len(about["classes"]), model.config.dim)
    if set(weights) != {"weight", "bias"} or tuple(weights["weight"].shape) != shape:
        raise DeriError(f"{folder / HEAD.weights} does not fit the model and its {shape[0]} classes")
    head = nn.Linear(shape[1], shape[0]).to(device)
    head.load_state_dict(weights)
    return Classifier(model, head.eval(), about["task"], about["classes"], about["thresholds"])


def save_head(head: nn.Linear, folder: Path, task: str, classes: list[str], thresholds: list[float | None]) -> None:
    """Write the head (weight (classes, d), bias) and its classes into a model directory."""
    save(HEAD, folder, weights_of(head), {"task": task, "classes": classes, "thresholds": thresholds})
