"""The table of ECG file formats. A format is a file with a :class:`Format` and a row here.

A package outside this one adds a row by ``@FORMATS.register("name")`` or by an entry point of the group
``deri.formats``; its files are then read by :func:`deri.read_ecg` and by every command.
"""

from __future__ import annotations

from deri.ecg.formats.common import Format, Options
from deri.registry import Registry

__all__ = ["FORMATS", "Format", "Options", "find_format"]

_HERE = "deri.ecg.formats"

FORMATS: Registry[Format] = Registry(
    "ECG format",
    "deri.formats",
    {
        "wfdb": f"{_HERE}.wfdb:FORMAT",
        "dicom": f"{_HERE}.dicom:FORMAT",
        "ishne": f"{_HERE}.ishne:FORMAT",
        "edf": f"{_HERE}.edf:FORMAT",
        "hdf5": f"{_HERE}.hdf5:FORMAT",
        "cpsc2018": f"{_HERE}.cpsc:FORMAT",
        "npy": f"{_HERE}.arrays:NPY",
        "npz": f"{_HERE}.arrays:NPZ",
        "aecg": f"{_HERE}.aecg:FORMAT",
        "sierra": f"{_HERE}.sierra:FORMAT",
        "muse": f"{_HERE}.muse:FORMAT",
        "cardiosoft": f"{_HERE}.vendor_xml:CARDIOSOFT",
        "mortara": f"{_HERE}.vendor_xml:MORTARA",
        "schiller": f"{_HERE}.vendor_xml:SCHILLER",
        "scp": f"{_HERE}.scp:FORMAT",
        "fhir": f"{_HERE}.fhir:FORMAT",
        "apple-watch": f"{_HERE}.csv_leads:APPLE",
        "csv": f"{_HERE}.csv_leads:FORMAT",
    },
)
"""In the order in which they are asked; the loosest test is last, before those of other packages."""


def find_format(path: str, head: bytes) -> Format | None:
    """The format of a file of this name that begins with ``head``."""
    return next((row for row in map(FORMATS.get, FORMATS) if row is not None and row.sniff(path, head)), None)
