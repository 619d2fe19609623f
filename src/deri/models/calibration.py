"""Probabilities of findings: what ``calibration.json`` of a model's directory says, and what it was made for.

The score s of a finding (the cosine of a recording with its prompts) becomes a likelihood ratio, which does not depend
on how common the finding is, and with a prevalence a probability, by Bayes on the odds::

    likelihood ratio = exp(slope · s + intercept)
    odds(probability) = likelihood ratio · odds(prevalence)
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from deri.errors import DeriError
from deri.files import write_json
from deri.recipes.load import explain

if TYPE_CHECKING:
    from deri.models.base import EcgTextModel

CALIBRATION = "calibration.json"
Share = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Strict):
    """The map of one class.

    Attributes:
        prompts: the texts whose mean embedding is scored; they are the identity of the finding.
        slope, intercept: of the log likelihood ratio.
        prevalence: share of positives that probabilities hold for, unless the user gives another.
        n_pos: positives that the map was learnt from.
    """

    prompts: tuple[str, ...]
    slope: Annotated[FiniteFloat, Field(gt=0)]
    intercept: FiniteFloat
    prevalence: Share
    n_pos: int


class StoreIdentity(_Strict):
    """The store that a calibration was learnt from."""

    dataset: str
    fingerprint: str


class TaskCalibration(_Strict):
    """The classes of one task; ``too_few`` counts the positives of those that have no map."""

    store: StoreIdentity
    split: str
    n: int
    classes: dict[str, Finding]
    too_few: dict[str, int]


class Calibration(_Strict):
    """Content of ``calibration.json``; ``model`` is :func:`model_digest` of the model that it was made for."""

    format: Literal["deri-calibration"] = "deri-calibration"
    version: Literal[1] = 1
    deri_version: str
    model: str
    tasks: dict[str, TaskCalibration]

    def findings(self) -> dict[tuple[str, ...], Finding]:
        """The maps by their prompts; where several tasks have the same, that from the most records."""
        tasks = sorted(self.tasks.values(), key=lambda task: task.n)
        return {finding.prompts: finding for task in tasks for finding in task.classes.values()}


def encoder_digest(model: EcgTextModel) -> str:
    """SHA-256 of all weights and buffers outside the text encoder, batch-norm statistics among them."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith("text_encoder."):
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def model_digest(model: EcgTextModel) -> str:
    """SHA-256 of all that decides a score: the encoder, its configuration's input, and the text encoder."""
    identity = f"{encoder_digest(model)} {model.config.signal.model_dump_json()} {model.text_encoder.fingerprint}"
    return hashlib.sha256(identity.encode()).hexdigest()


def log_odds(share: np.ndarray) -> np.ndarray:
    """Logarithm of the odds of probabilities in (0, 1)."""
    return np.log(share) - np.log1p(-share)


def prevalence_of(labels: np.ndarray) -> np.ndarray:
    """Share of positives (classes,) of labels (n, classes), within (0, 1): (n_pos + ½) / (n + 1) where it is 0 or 1."""
    n, n_pos = len(labels), labels.sum(axis=0, dtype=np.float64)
    return np.where((n_pos == 0) | (n_pos == n), (n_pos + 0.5) / (n + 1), n_pos / max(n, 1))


def read_calibration(folder: Path, model: EcgTextModel) -> Calibration | None:
    """The calibration in the directory of ``model``; None where there is none.

    Raises:
        DeriError: it is broken, has an unknown field, or was made for other weights.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    cure = "remove the file, then make it again with deri calibrate"
    try:
        found = Calibration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DeriError(f"{path}: {explain(error, Calibration)}; {cure}") from None
    if found.model != model_digest(model):
        raise DeriError(f"{path} was made for other weights than {folder / 'model.safetensors'} has; {cure}")
    return found


def save_calibration(folder: Path, model: EcgTextModel) -> None:
    """Write the calibration of ``model`` into its directory; that of a model trained further since is left out."""
    found = model.calibration
    if found is not None and found.model == model_digest(model):
        write_json(folder / CALIBRATION, found.model_dump(mode="json"))
