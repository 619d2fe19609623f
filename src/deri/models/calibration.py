"""Probabilities of findings: what ``calibration.json`` of a model's directory says, and what it was made for.

The score of a finding (the cosine of a recording with its prompts) becomes a likelihood ratio, which does not depend on
how common the finding is, and with a prevalence a probability, by Bayes on the odds::

    odds(probability) = likelihood ratio(score) · odds(prevalence)
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from deri._version import __version__
from deri.errors import DeriError
from deri.files import read_sealed, write_sealed
from deri.recipes.load import explain

if TYPE_CHECKING:
    from deri.models.base import EcgTextModel

CALIBRATION = "calibration.json"
_CURE = "remove the file, then make it again with deri calibrate"


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(b <= a for a, b in pairwise(values)):
        raise ValueError("values must rise")
    return values


Share = Annotated[float, Field(gt=0, lt=1)]
Ascending = Annotated[tuple[FiniteFloat, ...], Field(min_length=2), AfterValidator(_ascending)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Strict):
    """The map of one class.

    Attributes:
        prompts: the texts whose mean embedding is scored; they are the identity of the finding.
        scores: where the map has its kinks, ascending; it is linear between them and goes on beyond the outer ones.
        log_ratios: the log likelihood ratio at these scores, ascending.
        prevalence: share of positives that probabilities hold for, unless the user gives another.
        n_pos: positives that the map was learnt from.
    """

    prompts: tuple[str, ...]
    scores: Ascending
    log_ratios: Ascending
    prevalence: Share
    n_pos: int

    @model_validator(mode="after")
    def _as_many(self) -> Finding:
        if len(self.scores) != len(self.log_ratios):
            raise ValueError(f"{len(self.scores)} scores but {len(self.log_ratios)} log_ratios")
        return self

    def log_ratio(self, score: np.ndarray) -> np.ndarray:
        """Log likelihood ratios of scores (n,)."""
        x, y = np.array(self.scores), np.array(self.log_ratios)
        slopes = np.diff(y) / np.diff(x)
        beyond = slopes[0] * np.minimum(score - x[0], 0) + slopes[-1] * np.maximum(score - x[-1], 0)
        return np.interp(score, x, y) + beyond


class StoreIdentity(_Strict):
    """The store that a calibration was learnt from."""

    dataset: str
    fingerprint: str


class TaskCalibration(_Strict):
    """The classes of one task.

    Attributes:
        store, split: the records that the maps were learnt from, ``n`` in number.
        scores_of: whose scores they were learnt from.
        too_few: positives of the classes that have no map.
    """

    store: StoreIdentity
    split: str
    scores_of: Literal["this model", "a twin that was not trained on these records"] = "this model"
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
    if not (folder / CALIBRATION).is_file():
        return None
    found = parse_calibration(folder)
    if found.model != model_digest(model):
        raise DeriError(f"{folder / CALIBRATION} was made for other weights than the model has; {_CURE}")
    return found


def parse_calibration(folder: Path) -> Calibration:
    """The calibration in a directory, whatever model it is for; DeriError where it is broken."""
    path = folder / CALIBRATION
    try:
        return Calibration.model_validate(read_sealed(path, _CURE))
    except ValidationError as error:
        raise DeriError(f"{path}: {explain(error, Calibration)}; {_CURE}") from None


def with_task(model: EcgTextModel, name: str, learnt: TaskCalibration) -> Calibration:
    """The calibration of ``model`` with what was learnt for a task, instead of what there was for it."""
    before = {} if model.calibration is None else model.calibration.tasks
    return Calibration(deri_version=__version__, model=model_digest(model), tasks={**before, name: learnt})


def save_calibration(folder: Path, model: EcgTextModel) -> None:
    """Write the calibration of ``model`` into its directory; that of a model trained further since is left out."""
    found = model.calibration
    if found is not None and found.model == model_digest(model):
        write_sealed(folder / CALIBRATION, found.model_dump(mode="json"))
