"""Models that come with the package. ``make pretrained`` trains them anew; each has a model card beside its weights."""

from __future__ import annotations

from pathlib import Path

from deri.errors import DeriError

DEFAULT_MODEL = "deri-open"
"""Used where no model is named. It was trained on simulated recordings and PTB-XL, ``deri-sim`` on simulation alone."""

_FOLDER = Path(__file__).parent / "pretrained"


def builtin_names() -> list[str]:
    """Names of the models in this installation, sorted."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def builtin_directory(name: str) -> Path | None:
    """The directory of the built-in model ``name``; None where ``name`` is no built-in one.

    Raises:
        DeriError: the default model is not in this installation.
    """
    folder = _FOLDER / name
    if name in builtin_names():
        return folder
    if name == DEFAULT_MODEL:
        raise DeriError(f"the built-in model {name} is not in this installation; train it with make pretrained")
    return None
