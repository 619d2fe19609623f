"""Diagnosis codes from the WFDB headers of the CinC Challenge form: ``#Dx: code,code``.

Such a data set has no table: its labels are in one small file per recording. Only what the labels need is parsed here;
signals and the rest of the header are the reader's business (``deri.ecg``).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deri.errors import DeriError

_MOST_BYTES = 1 << 20
_DX = re.compile(rb"^[ \t]*#[ \t]*Dx[ \t]*:(.*)$", re.MULTILINE | re.IGNORECASE)
_RECORD_LINE = re.compile(rb"\S+[ \t]+[1-9]\d{0,3}(?:\s|$)")  # name and number of signals


class Recording(NamedTuple):
    """A recording found on disk."""

    stem: str  # posix path relative to the root, without suffix
    header: bool  # whether it has a .hea file
    signal: bool  # whether it has a .mat file


class Diagnosis(NamedTuple):
    """What a header says of the recording's labels, or why it cannot be used."""

    codes: tuple[str, ...]  # as written, in order; empty where the line is empty or absent
    reason: str = ""  # "" = usable
    detail: str = ""


def find_recordings(root: Path, below: str, name: re.Pattern[str]) -> list[Recording]:
    """Every ``.hea`` and ``.mat`` whose stem matches ``name`` below ``root/below``, in the order of name, then path.

    Hidden files and folders are passed over; links to folders are followed, each folder once.
    """
    found: dict[str, set[str]] = {}
    for folder, names in walk(root / below):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        for file in names:
            stem, suffix = posixpath.splitext(file)
            if suffix in (".hea", ".mat") and name.fullmatch(stem):
                found.setdefault(stem if inside == "." else f"{inside}/{stem}", set()).add(suffix)
    order = sorted(found, key=lambda stem: (posixpath.basename(stem), stem))
    return [Recording(stem, ".hea" in found[stem], ".mat" in found[stem]) for stem in order]


def walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders below ``top`` with their file names, hidden ones left out; links are followed, each folder once."""

    def fail(error: OSError) -> None:
        raise DeriError(f"{error.filename} cannot be listed: {error.strerror}") from error

    seen = set()
    for folder, folders, names in os.walk(top, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, [name for name in names if not name.startswith(".")]


def read_diagnosis(header: str | Path) -> Diagnosis:
    """The codes of the ``#Dx:`` line of a header file.

    Reasons: ``missing_header``, ``unreadable_file``, ``bad_header`` (empty, huge, or without a record line).
    """
    try:
        with open(header, "rb") as handle:
            data = handle.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return Diagnosis((), "missing_header", "there is a signal file, but no header with its labels")
    except OSError as error:
        return Diagnosis((), "unreadable_file", f"the header cannot be opened ({error.strerror})")
    if len(data) > _MOST_BYTES:
        return Diagnosis((), "bad_header", f"more than {_MOST_BYTES} bytes are too many for a header")
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n")
    first = next((line for line in data.split(b"\n") if line.strip() and not line.lstrip().startswith(b"#")), b"")
    if not _RECORD_LINE.match(first.lstrip()):
        what = "does not begin with a record name and a number of signals" if data.strip() else "is empty"
        return Diagnosis((), "bad_header", f"the header {what}")
    match = _DX.search(data)
    text = match[1].decode("latin-1") if match else ""
    codes = (code.strip() for code in re.split(r"[,;]", text))
    return Diagnosis(tuple(dict.fromkeys(code for code in codes if code)))
