"""A fine-tuned model on disk: a model directory with a linear head and its classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deri.errors import DeriError
from deri.files import atomic_path, write_json
from deri.models import EcgTextModel, load_model

HEAD_FORMAT = "deri-head"
HEAD_FILE = "head.safetensors"
CLASSES_FILE = "classes.json"


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
        ecg, valid = self.model.preprocess(signals, fs, valid_samples, lead_mask)
        device = self.model.device
        embedding = self.model.ecg_embedding(ecg.to(device), None if valid is None else valid.to(device))
        return self.head(embedding.float()).sigmoid().cpu().numpy()


def load_classifier(directory: str | Path, *, device: str = "cpu") -> Classifier:
    """Load what ``deri finetune`` wrote: its output directory, or the ``model`` folder in it."""
    from safetensors.torch import load_file

    directory = Path(directory)
    folder = directory if (directory / HEAD_FILE).is_file() else directory / "model"
    if not (folder / HEAD_FILE).is_file():
        raise DeriError(f"{directory} holds no fine-tuned model (no {HEAD_FILE}); make one with deri finetune")
    try:
        about = json.loads((folder / CLASSES_FILE).read_text(encoding="utf-8"))
        weights = load_file(folder / HEAD_FILE)
    except Exception as error:  # safetensors raises its own error type beside OSError and ValueError
        raise DeriError(f"{folder}: the head cannot be read ({error}); copy or fine-tune the model again") from None
    if not isinstance(about, dict) or about.get("format") != HEAD_FORMAT or about.get("version") != 1:
        raise DeriError(f"{folder / CLASSES_FILE} is not of format {HEAD_FORMAT!r} 1; use the deri that wrote it")
    model = load_model(folder, device=device)
    shape = (len(about["classes"]), model.config.dim)
    if set(weights) != {"weight", "bias"} or tuple(weights["weight"].shape) != shape:
        raise DeriError(f"{folder / HEAD_FILE} does not fit the model and its {shape[0]} classes")
    head = nn.Linear(shape[1], shape[0]).to(device)
    head.load_state_dict(weights)
    return Classifier(model, head.eval(), about["task"], about["classes"], about["thresholds"])


def save_head(head: nn.Linear, folder: Path, task: str, classes: list[str], thresholds: list[float | None]) -> None:
    """Write the head (weight (classes, d), bias) and its classes into a model directory."""
    from safetensors.torch import save_file

    weights = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    with atomic_path(folder / HEAD_FILE) as path:
        save_file(weights, path, metadata={"format": "pt"})
    write_json(
        folder / CLASSES_FILE,
        {"format": HEAD_FORMAT, "version": 1, "task": task, "classes": classes, "thresholds": thresholds},
    )
