"""``read_ecg``: one recording from a file of any supported format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deri.ecg.formats.wfdb import read_wfdb
from deri.ecg.recording import ECG
from deri.errors import ReadError


class Reader(NamedTuple):
    """A file format: what it is called, how its files are known, and who reads them."""

    description: str
    claims: Callable[[str, bytes], bool]  # path and first bytes of an existing file
    read: Callable[[str], ECG]


def _is_wfdb_header(path: str, head: bytes) -> bool:
    return path.endswith(".hea")


READERS = (Reader("WFDB (.hea with .dat or .mat)", _is_wfdb_header, read_wfdb),)

# For the message alone: what a file that no reader claims seems to be.
_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file"),
    (b"DICM", 128, "a DICOM file"),
    (b"<?xml", 0, "an XML file"),
    (b"\xff\xfe<\0?\0", 0, "an XML file"),
    (b"\xef\xbb\xbf<?xml", 0, "an XML file"),
    (b"0       ", 0, "an EDF file"),
    (b"\x93NUMPY", 0, "a NumPy file"),
    (b"%PDF", 0, "a PDF"),
)


def read_ecg(path: str | os.PathLike[str]) -> ECG:
    """Read a 12-lead ECG.

    Args:
        path: a WFDB record by its name without suffix, its header (``.hea``) or its signal file (``.dat``, ``.mat``).

    Returns:
        The recording in mV, leads in canonical order; missing limb leads are derived where two of I, II and III exist.

    Raises:
        ReadError: with a ``reason``: missing_file, missing_header, missing_signal_file, unreadable_file,
            unreadable_signal, unsupported_format, bad_header, no_signals, unknown_leads, duplicate_lead, bad_units,
            bad_gain, unequal_lead_lengths, truncated_signal, too_long.
    """
    name = os.fspath(path)
    # The usual case first, with no look at the disk beyond opening the header itself.
    header = name if name.endswith(".hea") else (name[:-4] if name.endswith((".dat", ".mat")) else name) + ".hea"
    if os.path.exists(header):
        return read_wfdb(header)
    return _read_other(Path(name), header)


def _read_other(path: Path, header: str) -> ECG:
    if path.is_dir():
        raise ReadError(f"{path}: is a folder; name one recording in it", "unsupported_format")
    if not path.exists():
        if any(os.path.exists(header.removesuffix(".hea") + suffix) for suffix in (".dat", ".mat")):
            raise ReadError(f"{path}: its header {os.path.basename(header)} is missing", "missing_header")
        raise ReadError(f"{path}: no such file (nor {os.path.basename(header)})", "missing_file")
    try:
        with open(path, "rb") as handle:
            head = handle.read(512)
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror})", "unreadable_file") from error
    for reader in READERS:
        if reader.claims(str(path), head):
            return reader.read(str(path))
    if path.suffix in (".dat", ".mat"):
        raise ReadError(
            f"{path}: has no header {os.path.basename(header)} beside it to tell its leads, gain and sampling rate",
            "missing_header",
        )
    kind = next((kind for mark, at, kind in _SIGNATURES if head[at : at + len(mark)] == mark), "of no known format")
    supported = ", ".join(reader.description for reader in READERS)
    raise ReadError(f"{path}: is {kind}; supported are: {supported}", "unsupported_format")
