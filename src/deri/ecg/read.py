"""``read_ecg``: one recording from a file of any supported format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from deri.ecg.formats import FORMATS, Format, Options, find_format
from deri.ecg.formats.common import NO_OPTIONS, refuse_options, units_per_mv
from deri.ecg.formats.container import fetched, is_packed, unpacked
from deri.ecg.formats.wfdb import header_file
from deri.ecg.formats.xml_tree import is_xml, root_name
from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.errors import DeriError, ReadError

_HEAD = 4096
_MAX_NESTING = 2
"""A gzipped zip is read, a bomb of archives in archives is not."""


def claims_ecg(path: str, head: bytes) -> bool:
    """Whether some format knows a file of this name that begins with ``head``."""
    return find_format(path, head) is not None


def recordings_in(path: str | os.PathLike[str]) -> list[str]:
    """What :func:`read_ecg` reads of a file: ``FILE::NAME`` for each recording of a batch, else the file itself.

    Batches are arrays of many recordings in HDF5 or ``.npy``. Names are the ids in the file (``exam_id`` of CODE-15),
    else positions from 0. A file that cannot be opened counts as one recording, and fails when it is read.
    """
    name = os.fspath(path)
    try:
        found = find_format(name, _head(name)) if os.path.isfile(name) else None
        members = found.members(name) if found is not None and found.members is not None else ()
    except ReadError:
        members = ()
    return [f"{name}::{member}" for member in members] or [name]


def read_ecg(
    path: str | os.PathLike[str],
    *,
    fs: float | None = None,
    units: str | None = None,
    gain: float | None = None,
    leads: Mapping[str, str] | None = None,
    fallback: bool = False,
) -> ECG:
    """Read a 12-lead ECG. Formats are known by their content, see ``docs/formats.md``.

    Args:
        path: a file; a WFDB record by its name without suffix, its header (``.hea``) or its signal file (``.dat``,
            ``.mat``); a zip archive with one record, or ``archive.zip::folder/record.hea``; one recording of a batch
            (``batch.npy::0``, see :func:`recordings_in`); an address (``s3://``, ``https://``).
        fs: sampling rate in Hz of a file that does not state it (CSV without a time column, NumPy, HDF5).
        units: ``mV``, ``uV``, ``nV`` or ``V``, of a file that does not state its unit.
        gain: digital units per mV, in place of ``units``.
        leads: names of channels in the file, and which of the twelve leads they are: ``{"MLII": "II", "ecg": "I"}``.
        fallback: the options are for many files: what one of them states itself holds, and is not refused.

    Returns:
        The recording in mV, leads in canonical order; missing limb leads are derived where two of I, II and III exist.

    Raises:
        ReadError: with a ``reason``, see ``docs/formats.md``; ``stated_by_file`` where an option contradicts what the
            file says.
        DeriError: an option that no file could need.
    """
    return _read(os.fspath(path), reading_options(fs, units, gain, leads, fallback), 0)


def reading_options(
    fs: float | None = None,
    units: str | None = None,
    gain: float | None = None,
    leads: Mapping[str, str] | None = None,
    fallback: bool = False,
) -> Options:
    """The options of :func:`read_ecg`, checked.

    Raises:
        DeriError: an option that no file could need.
    """
    for name, value, reason in (("fs", fs, "bad_sampling_rate"), ("gain", gain, "bad_gain")):
        if value is not None and not 0 < value < float("inf"):
            raise ReadError(f"{name}={value} (--{name}) is no positive number", reason)
    if units is not None and units_per_mv(units) is None:
        raise ReadError(f"units={units!r} (--units) is no voltage; use mV, uV, nV or V", "bad_units")
    if units is not None and gain is not None:
        raise DeriError("units and gain both say what a unit is; give one of them")
    for name, lead in (leads or {}).items():
        if lead not in LEADS:
            raise DeriError(f'leads={{{name!r}: {lead!r}}} (--leads "{name}={lead}"): {lead!r} is none of {LEADS}')
    found = Options(fs, units, gain, {name.strip(): lead for name, lead in leads.items()} if leads else None)
    return found._replace(fallback=True) if fallback and found != NO_OPTIONS else found


def lead_names(text: str) -> dict[str, str]:
    """``"MLII=II,ecg=I"`` → {"MLII": "II", "ecg": "I"}."""
    pairs = [part.split("=") for part in text.split(",")]
    if not all(len(pair) == 2 and all(name.strip() for name in pair) for pair in pairs):
        raise DeriError(f"--leads {text}: write NAME=LEAD, several with commas, e.g. MLII=II,ecg=I")
    return {name.strip(): lead.strip() for name, lead in pairs}


def given_options(
    fs: float | None = None, units: str | None = None, gain: float | None = None, leads: str | None = None
) -> dict[str, Any]:
    """Those of the options of :func:`read_ecg` that were given, checked; ``leads`` as text, see :func:`lead_names`.

    Raises:
        DeriError: an option that no file could need.
    """
    given = {"fs": fs, "units": units, "gain": gain, "leads": None if leads is None else lead_names(leads)}
    options = {name: value for name, value in given.items() if value is not None}
    reading_options(**options)  # type: ignore[arg-type]
    return options


def _read(name: str, options: Options, depth: int) -> ECG:
    if "://" in name:
        return _read_packed(name, None, options, depth)
    header = header_file(name)
    if os.path.exists(header):
        return _read_as(FORMATS["wfdb"], header, options)
    stem = header[:-4]
    if os.path.isdir(name):
        raise ReadError(f"{name}: is a folder; name one recording in it", "unsupported_format")
    if not os.path.exists(name):
        file, separator, member = name.partition("::")
        if separator and os.path.isfile(file):
            return _read_member(file, member, options, depth)
        if not name.endswith((".hea", ".mat")) and os.path.isfile(f"{stem}.mat"):
            return _read(f"{stem}.mat", options, depth)
        _refuse_missing(name, stem)
    head = _head(name)
    found = find_format(name, head)
    if found is None and options.leads and b"\0" not in head:  # a table whose columns the caller names
        found = FORMATS["csv"]
    if found is not None:
        return _read_as(found, name, options)
    if is_packed(head):
        return _read_packed(name, None, options, depth)
    raise _unknown(name, stem, head)


def _head(name: str) -> bytes:
    try:
        with open(name, "rb") as handle:
            return handle.read(_HEAD)
    except OSError as error:
        raise ReadError(f"{name}: cannot be opened ({error.strerror})", "unreadable_file") from error


def _read_member(file: str, member: str, options: Options, depth: int) -> ECG:
    """Read one recording of an archive, or of a file of many."""
    head = _head(file)
    found = find_format(file, head)
    if found is not None and found.members is not None:
        try:
            ecg = _read_as(found, file, options._replace(member=member))
        except ReadError as error:
            raise ReadError(str(error).replace(f"{file}:", f"{file}::{member}:", 1), error.reason) from error
        ecg.metadata["source_file"] = f"{file}::{member}"
        return ecg
    if is_packed(head):
        return _read_packed(file, member, options, depth)
    raise ReadError(f"{file}: is no file of many recordings; leave out ::{member}", "unsupported_format")


def _read_as(found: Format, path: str, options: Options) -> ECG:
    stated = [name for name in ("fs", "units", "gain") if name not in found.takes]
    refuse_options(path, f"is {found.description}, which states its own rate and unit", options, *stated)
    ecg = found.read(path, options)
    if any(name in (options.leads or {}) for name in ecg.metadata.get("dropped_leads", ())):
        raise ReadError(f"{path}: the reader of {found.description} takes no names of leads", "unsupported_format")
    return ecg


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
