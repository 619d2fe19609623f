"""Recordings in gzip files, in zip archives and at addresses that fsspec opens, unpacked to a temporary folder."""

from __future__ import annotations

import os
import posixpath
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deri.ecg.formats.common import Options, optional
from deri.ecg.formats.tables import is_npz, read_npz
from deri.ecg.recording import ECG
from deri.errors import DeriError, ReadError

MAX_UNPACKED = 256 * 2**20
"""Bytes that one recording may take when unpacked."""
MAX_DIRECTORY = 16 * 2**20
"""Bytes of a zip archive's table of contents."""
_MAX_RATIO = 250
_FREE_BYTES = 16 * 2**20  # below this any ratio will do: a flat recording compresses well
_BLOCK = 2**20
_SNIFFED = 64

Read = Callable[[str, Options], ECG]  # reads an unpacked file
Claims = Callable[[str, bytes], bool]  # whether a file of this name and beginning is a recording
Fetch = Callable[[str, Path], None]  # writes a file of the source (by its name) to a path; KeyError if there is none


def read_gzip(path: str, options: Options, read: Read) -> ECG:
    """Read a gzipped file (``x.edf.gz``).

    Raises:
        ReadError: ``unreadable_signal`` (damaged), ``too_long``, and those of the format inside.
    """
    name = os.path.basename(path)
    inner = name[:-3] if name.lower().endswith(".gz") and len(name) > 3 else f"{name}.unpacked"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / inner
        inflater = zlib.decompressobj(wbits=31)
        try:
            with open(path, "rb") as source, open(target, "wb") as out:
                total = taken = 0
                while block := source.read(_BLOCK // 16):
                    taken += len(block)
                    while block and not inflater.eof:
                        content = inflater.decompress(block, _BLOCK)
                        total += len(content)
                        _check_ratio(path, total, taken)
                        out.write(content)
                        block = inflater.unconsumed_tail
                if not inflater.eof:
                    raise ReadError(f"{path}: the gzip stream is cut off", "truncated_signal")
        except zlib.error as error:
            raise ReadError(f"{path}: a damaged gzip stream ({error})", "unreadable_signal") from None
        except OSError as error:
            raise ReadError(f"{path}: cannot be unpacked ({error.strerror})", "unreadable_file") from error
        return _relabel(folder, f"{path}::", lambda: read(str(target), options))


def _check_ratio(path: str, total: int, taken: int) -> None:
    if total > MAX_UNPACKED or (total > _FREE_BYTES and total > _MAX_RATIO * taken):
        raise ReadError(f"{path}: expands from {taken} to more than {total} bytes; that is no recording", "too_long")


def read_zip(path: str, member: str | None, options: Options, read: Read, claims: Claims) -> ECG:
    """Read a record in a zip archive: the one named, or the only one. A ``.npz`` is such an archive.

    Raises:
        ReadError: ``several_recordings`` (naming them), ``missing_file``, ``unreadable_signal`` (damaged, encrypted),
            ``too_long``, ``no_signals`` (no recording in it), and those of the format inside.
    """
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            if member is None and is_npz(archive):
                return read_npz(path, archive, options)
            return _read_member(path, archive, member, options, read, claims)
    except DeriError:
        raise
    except Exception as error:  # zipfile raises BadZipFile, RuntimeError (password), zlib and struct errors …
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        raise ReadError(f"{path}: cannot be unpacked ({detail})", "unreadable_signal") from error


def _check_directory(path: str) -> None:
    """Refuse an archive whose table of contents alone would fill the memory."""
    with open(path, "rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        handle.seek(max(0, size - 65557))
        tail = handle.read()
    at = tail.rfind(b"PK\5\6")
    if at >= 0 and len(tail) >= at + 16 and struct.unpack_from("<I", tail, at + 12)[0] > MAX_DIRECTORY:
        raise ReadError(f"{path}: lists too many files; unpack it and read the recording you want", "too_long")


def _read_member(
    path: str, archive: zipfile.ZipFile, member: str | None, options: Options, read: Read, claims: Claims
) -> ECG:
    names = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    if member is None:
        member = _only_record(path, archive, names, claims)
    folder_in_zip = posixpath.dirname(member)
    budget = [MAX_UNPACKED]

    def fetch(name: str, target: Path) -> None:
        info = names[posixpath.join(folder_in_zip, name)]
        with archive.open(info) as source, open(target, "wb") as out:
            total = 0
            while block := source.read(_BLOCK):
                total += len(block)
                _check_ratio(path, total, max(info.compress_size, 1))
                if total > budget[0]:
                    raise ReadError(f"{path}: its parts expand to more than {MAX_UNPACKED} bytes", "too_long")
                out.write(block)
        budget[0] -= total

    return _read_fetched(posixpath.basename(member), f"{path}::{folder_in_zip}", fetch, options, read)


def _only_record(path: str, archive: zipfile.ZipFile, names: dict[str, Any], claims: Claims) -> str:
    visible = [n for n in names if not posixpath.basename(n).startswith(".") and not n.startswith("__MACOSX/")]
    records = [name for name in visible if name.endswith(".hea")]
    stems = {name.removesuffix(".hea") for name in records}
    for name in visible[:_SNIFFED]:
        if name.endswith(".hea") or posixpath.splitext(name)[0] in stems:
            continue
        with archive.open(names[name]) as handle:
            if claims(name, handle.read(4096)):
                records.append(name)
    if len(records) == 1:
        return records[0]
    if not records:
        raise ReadError(f"{path}: no recording was found among its {len(names)} files", "no_signals")
    listed = ", ".join(records[:3]) + (" …" if len(records) > 3 else "")
    raise ReadError(
        f"{path}: holds {len(records)} recordings ({listed}); name one: {path}::{records[0]}", "several_recordings"
    )


def read_remote(url: str, options: Options, read: Read) -> ECG:
    """Read a recording at an address such as ``s3://bucket/x.edf`` or ``https://host/100.hea``, through fsspec.

    Raises:
        ReadError: ``missing_dependency``, ``missing_file``, ``unreadable_file``, ``too_long``, and those of the format.
    """
    fsspec: Any = optional(url, "fsspec", "fsspec", "an address")
    try:
        files, place = fsspec.core.url_to_fs(url)
    except Exception as error:  # unknown protocols, missing protocol packages, bad credentials
        detail = " ".join(str(error).split())[:160]
        raise ReadError(f"{url}: cannot be opened ({detail})", "unreadable_file") from error
    base, name = posixpath.dirname(place), posixpath.basename(place)
    budget = [MAX_UNPACKED]

    def fetch(part: str, target: Path) -> None:
        try:
            with files.open(posixpath.join(base, part), "rb") as source, open(target, "wb") as out:
                while block := source.read(_BLOCK):
                    budget[0] -= len(block)
                    if budget[0] < 0:
                        raise ReadError(f"{url}: is larger than {MAX_UNPACKED} bytes; download it first", "too_long")
                    out.write(block)
        except FileNotFoundError as error:
            # fsspec says so of every fault of HTTP; the cause knows better.
            cause = error.__cause__
            if (
                cause is not None
                and type(cause).__module__.startswith("aiohttp")
                and getattr(cause, "status", 0) != 404
            ):
                detail = " ".join(str(cause).split())[:160] or type(cause).__name__
                raise ReadError(f"{url}: {part} cannot be fetched ({detail})", "unreadable_file") from error
            raise KeyError(part) from None
        except ReadError:
            raise
        except Exception as error:  # every protocol has its own errors
            detail = " ".join(str(error).split())[:160] or type(error).__name__
            raise ReadError(f"{url}: {part} cannot be fetched ({detail})", "unreadable_file") from error

    return _read_fetched(name, url[: len(url) - len(name)].rstrip("/"), fetch, options, read)


def _read_fetched(name: str, source: str, fetch: Fetch, options: Options, read: Read) -> ECG:
    """Fetch a recording with the files its WFDB header names, and read it."""
    if name in ("", ".", "..") or "\\" in name or "\0" in name:
        raise ReadError(f"{source}/{name}: is not the name of a file", "missing_file")
    stem = name.removesuffix(".hea").removesuffix(".dat").removesuffix(".mat")
    prefix = source if source.endswith("::") else f"{source}/"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            fetch(f"{stem}.hea", place / f"{stem}.hea")
            _fetch_signals(place / f"{stem}.hea", fetch)
            name = f"{stem}.hea"
        except KeyError:
            try:
                (place / f"{stem}.hea").unlink(missing_ok=True)
                fetch(name, place / name)
            except KeyError:
                raise ReadError(f"{prefix}{name}: no such file", "missing_file") from None
        return _relabel(folder, prefix, lambda: read(str(place / name), options))


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


def _relabel(folder: str, source: str, read: Callable[[], ECG]) -> ECG:
    """Read, and say ``source`` instead of the temporary folder in messages and metadata."""
    try:
        ecg = read()
    except ReadError as error:
        raise ReadError(str(error).replace(f"{folder}{os.sep}", source), error.reason) from error
    ecg.metadata["source_file"] = str(ecg.metadata["source_file"]).replace(f"{folder}{os.sep}", source)
    return ecg
