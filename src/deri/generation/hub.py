"""Language models and their tokenizers from a directory, the local cache, or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deri.errors import DeriError
from deri.models.hub import cache_alone


def load_from_hub(what: str, source: str, auto_class: Any, **options: Any) -> Any:
    """``auto_class.from_pretrained(source)``; the many ways in which that fails become one error.

    Args:
        what: the option that names it, for the error.
        source: hub id or directory.
        auto_class: has ``from_pretrained``.
        options: passed on.
    """
    from huggingface_hub import HfApi
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # that cross-attention is new is no news here
    path = Path(source).expanduser()
    try:
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise DeriError(f"{what} {source}: the directory has no config.json; save a transformers model there")
            try:
                return auto_class.from_pretrained(str(path), local_files_only=True, **options)
            except Exception as error:  # broken files raise types of several libraries
                cause = (str(error) or type(error).__name__).splitlines()[0]
                raise DeriError(f"{what} {source} does not hold a usable model ({cause})") from error
        if path.is_absolute() or source.startswith((".", "~")):
            raise DeriError(f"{what} {source}: no such directory")
        try:
            with cache_alone():
                return auto_class.from_pretrained(source, local_files_only=True, **options)
        except Exception:  # not cached
            pass
        try:
            # The loaders retry an unreachable hub for half a minute; one question with a short limit comes first.
            HfApi().model_info(source, timeout=10)
            return auto_class.from_pretrained(source, **options)
        except Exception as error:  # offline, the hub client raises types of several libraries
            raise DeriError(
                f"{what} {source} is no directory, and neither cached nor to be had from the model hub "
                f"({type(error).__name__}); without a hub: --writer scratch, or a directory with a saved model"
            ) from error
    finally:
        logging.set_verbosity(before)
