"""Starting from the weights of another model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deri.errors import DeriError, some
from deri.files import read_sealed
from deri.models import EcgTextModel, load_model
from deri.models.calibration import encoder_digest
from deri.progress import SILENT, Progress


@dataclass(frozen=True)
class Start:
    """A model whose weights a run starts from: its name, and the digest of its weights."""

    name: str
    digest: str


def take_weights(model: EcgTextModel, name: str | Path) -> tuple[Start, list[str]]:
    """Copy the weights of a model directory, run or built-in name where name and shape are the same.

    The text encoder is the recipe's, unless both train theirs and it has the same shape.

    Returns:
        The start, and what a user should know: tensors that begin at random, other input, another text encoder.

    Raises:
        DeriError: nothing fits.
    """
    source = load_model(name)
    given, own = source.state_dict(), model.state_dict()
    if not (source.text_encoder.trained and model.text_encoder.trained):
        given, own = ({k: v for k, v in s.items() if not k.startswith("text_encoder.")} for s in (given, own))
    fits = [key for key, value in own.items() if key in given and given[key].shape == value.shape]
    if not any(key.startswith("backbone.") and own[key].dim() > 1 for key in fits):
        raise DeriError(
            f"--init {name}: none of its backbone's weights fits model.backbone={model.config.backbone} with "
            f"model.base_width={model.config.base_width}; use a recipe of the same sizes"
        )
    for key in fits:
        own[key].copy_(given[key])
    notes = [f"--init {name}: {len(fits)} of {len(own)} tensors taken"]
    if missing := [key for key in own if key not in fits]:
        notes[0] += f"; these begin at random: {some(missing, 6)}"
    notes += _differences(source.config.signal.model_dump(), model.config.signal.model_dump(), f"--init {name}")
    if source.text_encoder.fingerprint != model.text_encoder.fingerprint:
        notes.append(f"warning: --init {name} has another text encoder: what it knows of texts does not carry over")
    return Start(str(name), encoder_digest(source)), notes


def _differences(source: dict[str, Any], own: dict[str, Any], what: str) -> list[str]:
    return [
        f"warning: {what} was trained with model.signal.{key}={source[key]}, this recipe has {own[key]}"
        for key in own
        if source[key] != own[key]
    ]


def start_of(
    out: Path, model: EcgTextModel, init: str | None, *, resume: bool, progress: Progress = SILENT
) -> Start | None:
    """Take the weights of ``init``; a resumed run in ``out`` has its own, and need not be told again where it began."""
    told = out / "run.json"
    if init is None and resume and told.is_file():
        known = read_sealed(told, "start the run again").get("init")
        return None if known is None else Start(**known)
    if init is None:
        return None
    start, notes = take_weights(model, init)
    for note in notes:
        progress.message(note)
    return start
