"""Uploaded files in a private folder, the recordings in them, and the end of that folder.

A file keeps the last part of the name that the client gave it, because a WFDB header names its signal files.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from deri.ecg import ECG, read_ecg, recordings_in
from deri.errors import ReadError
from deri.serving.limits import Limits
from deri.serving.problem import Problem

_UNSAFE = re.compile(r"[^\w.()+ -]")
_LONGEST = 120  # bytes


@dataclass(frozen=True)
class Upload:
    """A file of a request: the name given by the client, and its content."""

    name: str | None
    content: BinaryIO


@dataclass(frozen=True)
class Recording:
    """A recording that was read: its name in the request, and what it is."""

    file: str
    ecg: ECG


def safe_name(name: str | None) -> str:
    """The last part of a client's file name, without what means anything to a file system."""
    last = re.split(r"[/\\]", name or "")[-1]
    clean = _UNSAFE.sub("_", last).strip(" .")
    return clean.encode()[-_LONGEST:].decode(errors="ignore") or "upload"


@contextmanager
def private_folder(uploads: Sequence[Upload]) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder that only this user may enter, with the files in it, and their names; it is deleted at the end.

    Raises:
        Problem: two files of one name.
    """
    names = [safe_name(upload.name) for upload in uploads]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Problem(422, "duplicate_file", f"two files are called {twice}: give each its own name")
    with TemporaryDirectory(prefix="deri-") as temporary:
        folder = Path(temporary)
        for name, upload in zip(names, uploads, strict=True):
            with open(folder / name, "wb") as target:
                shutil.copyfileobj(upload.content, target, 2**20)
        yield folder, names


def read_uploads(uploads: Sequence[Upload], options: dict[str, Any], limits: Limits) -> list[Recording]:
    """Read the recordings of uploaded files, in the order of the files.

    Args:
        uploads: one file or several; those that a WFDB header names are part of its record.
        options: ``fs``, ``units``, ``gain`` and ``leads`` of :func:`deri.ecg.read_ecg`.
        limits: ``recordings`` and ``duration_s`` hold.

    Raises:
        ReadError: a file cannot be read; its message names the file as the client did.
        Problem: no recording, too many, or too long ones.
    """
    with private_folder(uploads) as (folder, names):
        inside = f"{folder}/"
        paths = [path for name in _records(folder, names) for path in recordings_in(folder / name)]
        if not paths:
            raise Problem(422, "no_signals", "each file is part of another one: none is a recording")
        if len(paths) > limits.recordings:
            raise Problem(413, "too_many", f"{len(paths)} recordings in one request; the limit is {limits.recordings}")
        found: list[Recording] = []
        seconds = 0.0
        for path in paths:
            name = path.replace(inside, "")
            try:
                ecg = read_ecg(path, **options, fallback=len(paths) > 1)
            except ReadError as error:
                raise ReadError(str(error).replace(inside, ""), error.reason) from None
            seconds += ecg.duration
            if seconds > limits.duration_s:
                cause = f"{name}: more than {limits.duration_s:.0f} s of recording in one request, which is the limit"
                raise Problem(413, "too_long", cause)
            ecg.metadata["source_file"] = name
            found.append(Recording(name, ecg))
        return found


def _records(folder: Path, names: list[str]) -> list[str]:
    """The files to be read: all but those that belong to the record of a WFDB header."""
    parts: set[str] = set()
    for name in names:
        if name.endswith(".hea"):
            stem = name.removesuffix(".hea")
            lines = (folder / name).read_bytes()[: 2**20].decode("latin-1").splitlines()
            words = {line.split()[0] for line in lines[1:] if line.strip()}
            parts |= {f"{stem}.dat", f"{stem}.mat"} | words | {f"{word}.hea" for word in words}
    return [name for name in names if name not in parts]
