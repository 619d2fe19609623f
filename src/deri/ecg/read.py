"""``read_ecg``: one recording from a file of any supported format."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from deri.ecg.formats.common import Options
from deri.ecg.formats.wfdb import header_file, read_wfdb
from deri.ecg.recording import ECG
from deri.errors import DeriError, ReadError

_HEAD = 4096
_MAX_NESTING = 2
"""A gzipped zip is read, a bomb of archives in archives is not."""


class Reader(NamedTuple):
    """A file format: what it is called, how its files are known, and who reads them."""

    description: str
    claims: Callable[[str, bytes], bool]  # path and first 4096 bytes of an existing file
    read: Callable[[str, Options], ECG]
    takes_options: bool = False  # whether the format leaves rate or unit to the caller


def _is_wfdb_header(path: str, head: bytes) -> bool:
    return path.endswith(".hea")


def _is_xml(path: str, head: bytes) -> bool:
    from deri.ecg.formats.xml_tree import is_xml

    return is_xml(head)


def _is_dicom(path: str, head: bytes) -> bool:
    # Without the preamble: the waveform classes' identifier early in a file that begins with group 0002 or 0008.
    bare = head[:2] in (b"\x02\0", b"\x08\0") and b"1.2.840.10008.5.1.4.1.1.9." in head
    return head[128:132] == b"DICM" or bare


def _is_edf(path: str, head: bytes) -> bool:
    from deri.ecg.formats.edf import is_edf

    return is_edf(head)


def _is_scp(path: str, head: bytes) -> bool:
    from deri.ecg.formats.scp import is_scp

    return is_scp(head)


def _is_csv(path: str, head: bytes) -> bool:
    from deri.ecg.formats.tables import is_csv

    return is_csv(head)


def _is_matlab5(path: str, head: bytes) -> bool:
    return head.startswith(b"MATLAB 5.0")


def _is_hdf5(path: str, head: bytes) -> bool:
    signature = b"\x89HDF\r\n\x1a\n"
    return any(head[at : at + 8] == signature for at in (0, 512, 1024, 2048))


def _is_ishne(path: str, head: bytes) -> bool:
    return head[:8] == b"ISHNE1.0"


def _is_npy(path: str, head: bytes) -> bool:
    return head[:6] == b"\x93NUMPY"


def _wfdb(path: str, options: Options) -> ECG:
    return read_wfdb(path)


def _xml(path: str, options: Options) -> ECG:
    from deri.ecg.formats.xml_tree import root_name

    with open(path, "rb") as handle:
        name = root_name(handle.read(2**20))
    if name == "AnnotatedECG":
        from deri.ecg.formats.aecg import read_aecg

        return read_aecg(path)
    if name == "restingecgdata":
        from deri.ecg.formats.sierra import read_sierra

        return read_sierra(path)
    if name == "RestingECG":
        from deri.ecg.formats.muse import read_muse

        return read_muse(path)
    raise ReadError(
        f"{path}: is an XML file with the root <{name[:40]}>; read are HL7 aECG (AnnotatedECG), "
        "Philips Sierra (restingecgdata) and GE MUSE (RestingECG)",
        "unsupported_format",
    )


def _dicom(path: str, options: Options) -> ECG:
    from deri.ecg.formats.dicom import read_dicom

    return read_dicom(path)


def _edf(path: str, options: Options) -> ECG:
    from deri.ecg.formats.edf import read_edf

    return read_edf(path)


def _ishne(path: str, options: Options) -> ECG:
    from deri.ecg.formats.ishne import read_ishne

    return read_ishne(path)


def _scp(path: str, options: Options) -> ECG:
    from deri.ecg.formats.scp import read_scp

    return read_scp(path)


def _matlab5(path: str, options: Options) -> ECG:
    from deri.ecg.formats.cpsc import read_cpsc

    return read_cpsc(path)


def _hdf5(path: str, options: Options) -> ECG:
    from deri.ecg.formats.hdf5 import read_hdf5

    return read_hdf5(path, options)


def _npy(path: str, options: Options) -> ECG:
    from deri.ecg.formats.tables import read_npy

    return read_npy(path, options)


def _csv(path: str, options: Options) -> ECG:
    from deri.ecg.formats.tables import read_csv

    return read_csv(path, options)


READERS = (
    Reader("WFDB (.hea with .dat or .mat)", _is_wfdb_header, _wfdb),
    Reader("DICOM", _is_dicom, _dicom),
    Reader("ISHNE", _is_ishne, _ishne),
    Reader("EDF, EDF+ and BDF", _is_edf, _edf),
    Reader("HDF5 (SPH)", _is_hdf5, _hdf5, takes_options=True),
    Reader("CPSC2018 .mat", _is_matlab5, _matlab5),
    Reader("NumPy", _is_npy, _npy, takes_options=True),
    Reader("XML (HL7 aECG, Philips Sierra, GE MUSE)", _is_xml, _xml),
    Reader("SCP-ECG", _is_scp, _scp),
    Reader("CSV with leads as header", _is_csv, _csv, takes_options=True),
)
"""In the order in which they are asked; the loosest test is last."""


def claims_ecg(path: str, head: bytes) -> bool:
    """Whether some reader knows a file of this name that begins with ``head``."""
    return any(reader.claims(path, head) for reader in READERS)


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
        from deri.ecg.formats.container import read_remote

        return read_remote(name, options, lambda inner, given: _read(inner, given, depth + 1))
    # The usual case first, with no look at the disk beyond opening the header itself.
    header = header_file(name)
    if os.path.exists(header):
        return _use(READERS[0], header, options)
    return _read_other(Path(name), header, options, depth)


def _use(reader: Reader, path: str, options: Options) -> ECG:
    if options != Options() and not reader.takes_options:
        raise DeriError(f"{path}: is {reader.description}, which states its own rate and unit; leave out fs and units")
    return reader.read(path, options)


def _read_other(path: Path, header: str, options: Options, depth: int) -> ECG:
    if path.is_dir():
        raise ReadError(f"{path}: is a folder; name one recording in it", "unsupported_format")
    if not path.exists():
        archive, separator, member = str(path).partition("::")
        if separator and os.path.isfile(archive):
            return _read_packed(archive, member, options, depth)
        alone = Path(header.removesuffix(".hea") + ".mat")
        if alone != path and alone.is_file() and path.suffix != ".hea":
            return _read_other(alone, header, options, depth)
        if any(os.path.exists(header.removesuffix(".hea") + suffix) for suffix in (".dat", ".mat")):
            raise ReadError(f"{path}: its header {os.path.basename(header)} is missing", "missing_header")
        raise ReadError(f"{path}: no such file (nor {os.path.basename(header)})", "missing_file")
    try:
        with open(path, "rb") as handle:
            head = handle.read(_HEAD)
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror})", "unreadable_file") from error
    if head[:2] == b"\x1f\x8b" or head[:4] in (b"PK\3\4", b"PK\5\6"):
        return _read_packed(str(path), None, options, depth)
    for reader in READERS:
        if reader.claims(str(path), head):
            return _use(reader, str(path), options)
    if path.suffix in (".dat", ".mat"):
        raise ReadError(
            f"{path}: has no header {os.path.basename(header)} beside it to tell its leads, gain and sampling rate",
            "missing_header",
        )
    kind = "empty" if not head else "a PDF" if head.startswith(b"%PDF") else "of no known format"
    supported = ", ".join(reader.description for reader in READERS)
    raise ReadError(f"{path}: is {kind}; supported are: {supported}", "unsupported_format")


def _read_packed(path: str, member: str | None, options: Options, depth: int) -> ECG:
    from deri.ecg.formats.container import read_gzip, read_zip

    if depth >= _MAX_NESTING:
        raise ReadError(f"{path}: archives within archives are not unpacked further", "unsupported_format")

    def read(inner: str, given: Options) -> ECG:
        return _read(inner, given, depth + 1)

    with open(path, "rb") as handle:
        if handle.read(2) == b"\x1f\x8b":
            return read_gzip(path, options, read)
    return read_zip(path, member, options, read, claims_ecg)
