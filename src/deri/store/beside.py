"""What is computed of a store once and kept beside it, so that whoever needs it next finds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from deri.files import AGAIN, MADE_AGAIN, OTHER_CACHE, WriteError, cache_folder, check_place, writing
from deri.locks import file_lock
from deri.progress import SILENT, Progress
from deri.remote import Address
from deri.store.npy import older_arrays, read_arrays, write_arrays
from deri.store.reader import Store


def keep_beside(
    store: Store,
    name: str,
    done: Callable[[Path], bool],
    make: Callable[[Path], None],
    progress: Progress = SILENT,
) -> Path:
    """The place ``KIND/NAME`` of a store, made where it is not done yet: by one process, while others wait.

    Args:
        store: where its folder is read-only or at an address, the place is in :func:`deri.files.cache_folder`.
        name: kind and name, with a slash between them.
        done: whether a place holds everything.
        make: makes it, and goes on with what a killed process left there.
        progress: is told of a place elsewhere.

    Raises:
        DeriError: the disk cannot be written, or what ``make`` raises.
    """
    kind, _, own = name.partition("/")
    elsewhere = cache_folder() / kind / store.fingerprint / own
    path = elsewhere if isinstance(store.path, Address) else store.path / name
    if done(path):
        return path
    if path != elsewhere:
        try:
            check_place(path)
        except WriteError:
            path = elsewhere
            progress.message(f"{store.path} is read-only: {kind.replace('_', ' ')} are kept in {path}")
    with writing(path, OTHER_CACHE if path == elsewhere else f"{AGAIN}: what is done is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_suffix(".lock"), wait=True):
            if not done(path):
                make(path)
    return path


def arrays_beside(
    store: Store, name: str, make: Callable[[], dict[str, np.ndarray]], progress: Progress = SILENT
) -> dict[str, np.ndarray]:
    """The arrays that ``make`` gives, kept in ``KIND/NAME.npz``, see :func:`keep_beside`."""

    def done(path: Path) -> bool:
        return path.is_file() and not older_arrays(path)

    path = keep_beside(store, f"{name}.npz", done, lambda path: write_arrays(path, **make()), progress)
    return read_arrays(path, MADE_AGAIN)
