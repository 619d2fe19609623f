"""The door to the model hub: from a name to a local folder, and to what transformers makes of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from deri.errors import DeriError
from deri.remote import Address, fetch_folder, place

MODEL_FILES = (".json", ".txt", ".md", ".model", ".safetensors")
"""Ends of the names of files that belong to a model."""


def hub_folder(what: str, hub_id: str, cure: str, *, cached: bool = True, weights: bool = True) -> Path:
    """The folder with the files of a model of the hub: that of the local cache, or else downloaded.

    A hub that cannot be reached is told after one question with a short limit; the clients retry for half a minute.
    Pickled weights are fetched only where there are no others.

    Args:
        what: begins the error, e.g. "text encoder".
        hub_id: OWNER/NAME.
        cure: ends the error.
        cached: False to ask the hub although something is cached, e.g. where that is not all.
        weights: False to fetch the small files alone.

    Raises:
        DeriError: neither cache nor hub has it.
    """
    from huggingface_hub import HfApi, snapshot_download

    if cached:
        try:
            return Path(snapshot_download(hub_id, local_files_only=True))
        except Exception:  # not cached, or no valid id; the hub's answer says which
            pass
    try:
        names = [file.rfilename for file in HfApi().model_info(hub_id, timeout=10).siblings or []]
        wanted = [
            name for name in names if name.endswith(MODEL_FILES) and (weights or not name.endswith(".safetensors"))
        ]
        if weights and not any(name.endswith(".safetensors") for name in names):
            wanted += [name for name in names if name.startswith("pytorch_model") and name.endswith(".bin")]
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as error:  # offline, the hub client raises types of several libraries
        raise DeriError(
            f"{what} {hub_id} is no directory, and neither cached nor to be had from the model hub "
            f"({type(error).__name__}); {cure}"
        ) from error


def load_pretrained(
    what: str, source: str, auto_class: Any, cure: str, *, weights: bool = True, quiet: bool = False, **options: Any
) -> Any:
    """``auto_class.from_pretrained`` of a directory or hub id.

    Args:
        what: begins an error, e.g. "text encoder".
        source: a directory that transformers saved, its address, or OWNER/NAME.
        auto_class: a class of transformers.
        cure: ends the error where neither cache nor hub has it.
        weights: whether the class needs them.
        quiet: hide the warnings of transformers about weights that are new.
        options: passed on.

    Raises:
        DeriError: there is none, or it cannot be loaded.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    found = place(source)
    path = fetch_folder(found, MODEL_FILES) if isinstance(found, Address) else found.expanduser()
    if not path.is_dir() and (path.is_absolute() or source.startswith((".", "~"))):
        raise DeriError(f"{what} {source}: no such directory")
    if weights and path.is_dir() and not (path / "config.json").is_file():
        raise DeriError(f"{what} {source}: the directory has no config.json; save a transformers model there")
    verbosity = logging.get_verbosity()
    if quiet:
        logging.set_verbosity_error()
    try:
        for cached in (True, False):  # another program may have cached a part of what is needed here
            folder = path if path.is_dir() else hub_folder(what, source, cure, cached=cached, weights=weights)
            try:
                return auto_class.from_pretrained(str(folder), local_files_only=True, **options)
            except Exception as error:  # broken files raise types of several libraries
                problem = error
            if path.is_dir():
                break
        cause = (str(problem) or type(problem).__name__).splitlines()[0]
        raise DeriError(f"{what} {source}: {folder} does not hold a usable model ({cause})") from problem
    finally:
        logging.set_verbosity(verbosity)


def warn_of_folder(what: str, name: str) -> None:
    """Warn where a folder here is called like something that deri knows by name: the folder is not taken for it."""
    if (Path(name) / "config.json").is_file():
        warnings.warn(
            f"{what} {name} is the one that deri knows by this name; write ./{name} for the folder here",
            stacklevel=3,
        )
