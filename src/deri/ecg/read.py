"""``read_ecg``: one recording from a file of any supported format."""

from __future__ import annotations

import os

from deri.ecg.formats import FORMATS, Format, Options, find_format
from deri.ecg.formats.container import fetched, is_packed, unpacked
from deri.ecg.formats.wfdb import header_file
from deri.ecg.formats.xml_tree import is_xml, root_name
from deri.ecg.recording import ECG
from deri.errors import DeriError, ReadError

_HEAD = 4096
_MAX_NESTING = 2
"""A gzipped zip is read, a bomb of archives in archives is not."""


def claims_ecg(path: str, head: bytes) -> bool:
    """Whether some format knows a file of this name that begins with ``head``."""
    return find_format(path, head) is not None


def read_ecg(path: str | os.PathLike[str], *, fs: float | None = None, units: str | None = None) -> ECG:
    """Read a 12-lead ECG. Formats are known by their content, see ``docs/formats.md``.

    Args:
        path: a file; a WFDB record by its name without suffix, its header (``.hea``) or its signal file (``.dat``,
            ``.mat``); a zip archive with one record, or ``archive.zip::folder/record.hea``; an address (``s3://``, ``https://``).
        fs: sampling rate in Hz of a file that does not state it (CSV without a time column, NumPy, HDF5).
        units: ``mV``, ``uV``, ``nV`` or ``V``, for the same files.

    Returns:
        The recording in mV, leads in canonical order; missing limb leads are derived where two of I, II and III exist.

    Raises:
        ReadError: with a ``reason``, see ``docs/formats.md``.
        DeriError: ``fs`` or ``units`` given for a file that states its own.
    """
    return _read(os.fspath(path), Options(fs, units), 0)


def _read(name: str, options: Options, depth: int) -> ECG:
    if "://" in name:
        return _read_packed(name, None, options, depth)
    stem = header_file(name).removesuffix(".hea")
    # The usual case first, with no look at the disk beyond opening the header itself.
    if os.path.exists(f"{stem}.hea"):
        return _read_as(FORMATS["wfdb"], f"{stem}.hea", options)
    if os.path.isdir(name):
        raise ReadError(f"{name}: is a folder; name one recording in it", "unsupported_format")
    if not os.path.exists(name):
        archive, separator, member = name.partition("::")
        if separator and os.path.isfile(archive):
            return _read_packed(archive, member, options, depth)
        if not name.endswith((".hea", ".mat")) and os.path.isfile(f"{stem}.mat"):
            return _read(f"{stem}.mat", options, depth)
        _refuse_missing(name, stem)
    try:
        with open(name, "rb") as handle:
            head = handle.read(_HEAD)
    except OSError as error:
        raise ReadError(f"{name}: cannot be opened ({error.strerror})", "unreadable_file") from error
    found = find_format(name, head)
    if found is not None:
        return _read_as(found, name, options)
    if is_packed(head):
        return _read_packed(name, None, options, depth)
    raise _unknown(name, stem, head)


def _read_as(found: Format, path: str, options: Options) -> ECG:
    if any(value is not None and key not in found.takes for key, value in options._asdict().items()):
        raise DeriError(f"{path}: is {found.description}, which states its own rate and unit; leave out fs and units")
    return found.read(path, options)


def _read_packed(name: str, member: str | None, options: Options, depth: int) -> ECG:
    """Read a recording at an address or in an archive, and name its source in place of the temporary folder."""
    is_address = "://" in name
    if depth >= _MAX_NESTING and not is_address:
        raise ReadError(f"{name}: archives within archives are not unpacked further", "unsupported_format")
    with fetched(name) if is_address else unpacked(name, member, claims_ecg) as inner:
        try:
            ecg = _read(inner.path, options, depth + 1)
        except ReadError as error:
            raise ReadError(str(error).replace(inner.folder, inner.source), error.reason) from error
    ecg.metadata["source_file"] = str(ecg.metadata["source_file"]).replace(inner.folder, inner.source)
    return ecg


def _refuse_missing(name: str, stem: str) -> None:
    if any(os.path.exists(stem + suffix) for suffix in (".dat", ".mat")):
        raise ReadError(f"{name}: its header {os.path.basename(stem)}.hea is missing", "missing_header")
    raise ReadError(f"{name}: no such file (nor {os.path.basename(stem)}.hea)", "missing_file")


def _unknown(name: str, stem: str, head: bytes) -> ReadError:
    if name.endswith((".dat", ".mat")):
        return ReadError(
            f"{name}: has no header {os.path.basename(stem)}.hea beside it to tell its leads, gain and sampling rate",
            "missing_header",
        )
    kind = "empty" if not head else "a PDF" if head.startswith(b"%PDF") else "of no known format"
    if is_xml(head):
        kind = f"an XML file with the root <{root_name(head)[:40]}>"
    supported = ", ".join(FORMATS[row].description for row in FORMATS)
    return ReadError(f"{name}: is {kind}; supported are: {supported}", "unsupported_format")
