"""Recordings in gzip files, in zip archives and at addresses that fsspec opens, unpacked to a temporary folder."""

from __future__ import annotations

import gzip
import os
import posixpath
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from deri.ecg.formats.common import brief
from deri.errors import DeriError, ReadError
from deri.remote import connect, is_missing, told_by

MAX_UNPACKED = 256 * 2**20
"""Bytes that one recording may take when unpacked."""
MAX_DIRECTORY = 16 * 2**20
"""Bytes of a zip archive's table of contents."""
_MAX_RATIO = 250
_FREE_BYTES = 16 * 2**20  # below this any ratio will do: a flat recording compresses well
_BLOCK = 2**20
_SNIFFED = 64

Claims = Callable[[str, bytes], bool]  # whether a file of this name and beginning is a recording
Fetch = Callable[[str, Path], None]  # writes a file of the source (by its name) to a path; KeyError if there is none


class Unpacked(NamedTuple):
    """A recording in a temporary folder."""

    path: str
    folder: str  # the temporary folder, with a separator at its end
    source: str  # what messages and metadata say instead of it


def is_packed(head: bytes) -> bool:
    """Whether a file begins like gzip or zip."""
    return head[:2] == b"\x1f\x8b" or head[:4] in (b"PK\3\4", b"PK\5\6")


@contextmanager
def unpacked(path: str, member: str | None, claims: Claims) -> Iterator[Unpacked]:
    """Unpack the recording in a gzip file (``x.edf.gz``) or a zip archive: the one named ``member``, or the only one.

    Raises:
        ReadError: ``unreadable_signal`` (damaged, encrypted), ``truncated_signal``, ``too_long``,
            ``several_recordings`` (naming them), ``missing_file``, ``no_signals`` (no recording in it).
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with open(path, "rb") as handle:
            is_gzip = handle.read(2) == b"\x1f\x8b"
        inner, source = _gunzip(path, folder) if is_gzip else _unzip(path, member, claims, folder)
        yield Unpacked(inner, f"{temporary}{os.sep}", source)


def _gunzip(path: str, folder: Path) -> tuple[str, str]:
    name = os.path.basename(path)
    target = folder / (name[:-3] if name.lower().endswith(".gz") and len(name) > 3 else f"{name}.unpacked")
    try:
        with gzip.open(path) as source:
            _copy(path, source, target, os.path.getsize(path), MAX_UNPACKED)
    except EOFError:
        raise ReadError(f"{path}: the gzip stream is cut off", "truncated_signal") from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ReadError(f"{path}: a damaged gzip stream ({error})", "unreadable_signal") from None
    except OSError as error:
        raise ReadError(f"{path}: cannot be unpacked ({error.strerror})", "unreadable_file") from error
    return str(target), f"{path}::"


def _copy(path: str, source: Any, target: Path, packed: int | None, budget: int) -> int:
    """Write what ``source`` holds to ``target`` and return its size; ``packed`` is its size in an archive."""
    total = 0
    with open(target, "wb") as out:
        while block := source.read(_BLOCK):
            total += len(block)
            if packed is not None and total > max(_FREE_BYTES, _MAX_RATIO * packed):
                raise ReadError(
                    f"{path}: expands from {packed} to more than {total} bytes; that is no recording", "too_long"
                )
            if total > budget:
                raise ReadError(
                    f"{path}: its files are larger than {MAX_UNPACKED} bytes; unpack or download them first", "too_long"
                )
            out.write(block)
    return total


@contextmanager
def open_zip(path: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive and turn every error of its content into ``unreadable_signal``.

    An archive whose table of contents alone would fill the memory is ``too_long``.
    """
    with open(path, "rb") as handle:
        handle.seek(max(0, os.fstat(handle.fileno()).st_size - 65557))
        tail = handle.read()
    at = tail.rfind(b"PK\5\6")
    if at >= 0 and len(tail) >= at + 16 and struct.unpack_from("<I", tail, at + 12)[0] > MAX_DIRECTORY:
        raise ReadError(f"{path}: lists too many files; unpack it and read the recording you want", "too_long")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except DeriError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, RuntimeError (password), zlib and struct errors …
        raise ReadError(f"{path}: cannot be unpacked ({brief(error)})", "unreadable_signal") from error


def _unzip(path: str, member: str | None, claims: Claims, folder: Path) -> tuple[str, str]:
    with open_zip(path) as archive:
        members = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        chosen = member if member is not None else _only_record(path, archive, members, claims)
        inside = posixpath.dirname(chosen)
        budget = MAX_UNPACKED

        def fetch(name: str, target: Path) -> None:
            nonlocal budget
            info = members[posixpath.join(inside, name)]
            with archive.open(info) as source:
                budget -= _copy(path, source, target, max(info.compress_size, 1), budget)

        source = f"{path}::{inside}/" if inside else f"{path}::"
        return _fetch_record(posixpath.basename(chosen), source, fetch, folder), source


def _only_record(path: str, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], claims: Claims) -> str:
    visible = [n for n in members if not posixpath.basename(n).startswith(".") and not n.startswith("__MACOSX/")]
    records = [name for name in visible if name.endswith(".hea")]
    stems = {name.removesuffix(".hea") for name in records}
    for name in visible[:_SNIFFED]:
        if name.endswith(".hea") or posixpath.splitext(name)[0] in stems:
            continue
        with archive.open(members[name]) as handle:
            if claims(name, handle.read(4096)):
                records.append(name)
    if len(records) == 1:
        return records[0]
    if not records:
        raise ReadError(f"{path}: no recording was found among its {len(members)} files", "no_signals")
    listed = ", ".join(records[:3]) + (" …" if len(records) > 3 else "")
    raise ReadError(
        f"{path}: holds {len(records)} recordings ({listed}); name one: {path}::{records[0]}", "several_recordings"
    )


@contextmanager
def fetched(url: str) -> Iterator[Unpacked]:
    """Fetch a recording from an address such as ``s3://bucket/x.edf`` or ``https://host/100.hea``, through fsspec.

    Raises:
        ReadError: ``missing_dependency``, ``missing_file``, ``unreadable_file``, ``too_long``.
    """
    try:
        files, place = connect(url)
    except DeriError as error:
        missing = isinstance(error.__cause__, ImportError)
        raise ReadError(str(error), "missing_dependency" if missing else "unreadable_file") from error
    base, name = posixpath.dirname(place), posixpath.basename(place)
    budget = MAX_UNPACKED

    def fetch(part: str, target: Path) -> None:
        nonlocal budget
        try:
            with files.open(posixpath.join(base, part), "rb") as source:
                budget -= _copy(url, source, target, None, budget)
        except ReadError:
            raise
        except Exception as error:  # every protocol has its own errors
            if is_missing(error):
                raise KeyError(part) from None
            raise ReadError(f"{url}: {part} cannot be fetched ({told_by(error)})", "unreadable_file") from error

    source = url[: len(url) - len(name)].rstrip("/") + "/"
    with tempfile.TemporaryDirectory() as temporary:
        yield Unpacked(_fetch_record(name, source, fetch, Path(temporary)), f"{temporary}{os.sep}", source)


def _fetch_record(name: str, source: str, fetch: Fetch, folder: Path) -> str:
    """Fetch a recording with the files its WFDB header names, and return the path of what is to be read."""
    if name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise ReadError(f"{source}{name}: is not the name of a file", "missing_file")
    header = folder / f"{name.removesuffix('.hea').removesuffix('.dat').removesuffix('.mat')}.hea"
    try:
        fetch(header.name, header)
    except KeyError:
        header.unlink(missing_ok=True)
    else:
        _fetch_signals(header, fetch)
        return str(header)
    try:
        fetch(name, folder / name)
    except KeyError:
        raise ReadError(f"{source}{name}: no such file", "missing_file") from None
    return str(folder / name)


def _fetch_signals(header: Path, fetch: Fetch, depth: int = 0) -> None:
    text = header.read_bytes()[:_BLOCK].decode("latin-1")
    lines = [line.split() for line in text.splitlines() if line.split() and not line.lstrip().startswith("#")]
    # The first line names the record, in early challenge headers by the very name of its signal file.
    first = lines[0][0] if lines else ""
    for name in sorted({line[0] for line in lines[1:]})[:64]:
        if "/" in name or "\\" in name or name in ("~", ".", ".."):
            continue
        for part in (name, f"{name}.hea") if "/" in first else (name,):
            try:
                if not (header.parent / part).exists():
                    fetch(part, header.parent / part)
            except KeyError:
                (header.parent / part).unlink(missing_ok=True)  # the reader says what is missing
                continue
            if part.endswith(".hea") and depth == 0:
                _fetch_signals(header.parent / part, fetch, depth + 1)
