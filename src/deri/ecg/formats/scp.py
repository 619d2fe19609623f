"""SCP-ECG (EN 1064, ISO 11073-91064), decoded by the package ecgdatakit."""

from __future__ import annotations

import struct
import warnings
from typing import Any

import numpy as np

from deri.ecg.formats.common import Strip, lay_out, load, make_ecg, optional, sex_of, years
from deri.ecg.recording import ECG
from deri.errors import ReadError

LEAD_CODES = {
    **{1: "I", 2: "II", 3: "V1", 4: "V2", 5: "V3", 6: "V4", 7: "V5", 8: "V6"},
    **{61: "III", 62: "aVR", 63: "aVL", 64: "aVF"},
}
"""Lead identification of the standard, shared by DICOM (SCPECG and MDC codes)."""

_MAX_BYTES = 64 * 2**20


def is_scp(head: bytes) -> bool:
    """Whether a file begins like SCP-ECG: section 0 at byte 7, which lists itself first."""
    if len(head) < 32 or struct.unpack_from("<H", head, 8)[0] != 0:
        return False
    if head[16:22] == b"SCPECG":
        return True
    return struct.unpack_from("<H", head, 22)[0] == 0 and struct.unpack_from("<I", head, 28)[0] == 7


def read_scp(path: str) -> ECG:
    """Read the rhythm data (section 6) of an SCP-ECG file, reference beats added back where they were subtracted.

    Raises:
        ReadError: ``missing_dependency``, ``unreadable_signal`` (damaged), ``truncated_signal``, ``bad_gain``,
            ``unsupported_format`` (bimodal compression, long-term data of version 3), and those of ``make_ecg``.
    """
    optional(path, "ecgdatakit", "ecgdatakit", "SCP-ECG")
    data = load(path, _MAX_BYTES)
    stated = struct.unpack_from("<I", data, 2)[0] if len(data) >= 6 else 0
    if len(data) < 6 or stated > len(data):
        raise ReadError(f"{path}: {len(data)} of {stated} bytes are there", "truncated_signal")
    _check_counts(path, data)
    record, notes = _parse(path)
    interval = record.raw_metadata.get("rhythm_sample_interval_us")
    if not interval:
        raise ReadError(f"{path}: states no sampling interval", "bad_sampling_rate")
    fs = 1e6 / float(interval)
    strips = []
    for lead in record.leads:
        per_unit = {"uV": 1e-3, "mV": 1.0, "nV": 1e-6}.get(lead.resolution_unit)
        if per_unit is None or not lead.resolution:
            raise ReadError(f"{path}: lead {lead.label} states no amplitude per unit", "bad_gain")
        first = int(lead.annotations.get("start_sample", "1"))
        strips.append(Strip(lead.label, (first - 1) / fs, np.asarray(lead.samples) * (lead.resolution * per_unit)))
    if len({s.lead for s in strips}) < len(strips):
        raise ReadError(f"{path}: two channels are the same lead", "duplicate_lead")
    names, channels, _ = lay_out(path, strips, fs)
    return make_ecg(path, "SCP-ECG", channels, names, fs, {"warnings": notes, **_about(record)})


def _check_counts(path: str, data: bytes) -> None:
    """Compare the lengths that section 3 claims with the size of the file, before the decoder allocates them.

    A sample takes one bit at least (the shortest Huffman code), so no lead has more samples than the file has bits.
    """
    for at in range(22, min(6 + 16 + 10 * 32, len(data) - 9), 10):
        number, length, index = struct.unpack_from("<HII", data, at)
        begin = index - 1 + 16
        if number != 3 or not 16 <= begin <= len(data) - 2:
            continue
        for lead in range(min(data[begin], (min(length, len(data) - index) - 18) // 9)):
            first, last = struct.unpack_from("<II", data, begin + 2 + 9 * lead)
            if last - first >= 8 * len(data):
                raise ReadError(
                    f"{path}: lead {lead + 1} claims {last - first + 1} samples, more than {len(data)} bytes can hold",
                    "truncated_signal",
                )
        return


def _parse(path: str) -> tuple[Any, dict[str, str]]:
    from ecgdatakit.exceptions import UnsupportedFormatError
    from ecgdatakit.parsing.parsers.scp_ecg import SCPECGParser

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            from pathlib import Path

            record = SCPECGParser().parse(Path(path))
    except UnsupportedFormatError as error:
        raise ReadError(f"{path}: {error}", "unsupported_format") from error
    except Exception as error:  # whatever a decoder meets in a damaged file
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(f"{path}: cannot be decoded ({detail})", "unreadable_signal") from error
    notes: dict[str, str] = {}
    for warning in caught:
        text = str(warning.message)
        code = "checksum_mismatch" if "CRC" in text else "decoder_note"
        notes[code] = f"{notes[code]}; {text}" if code in notes else text
    return record, notes


def _about(record: Any) -> dict[str, Any]:
    age = record.patient.age
    about: dict[str, Any] = {
        "age": years(float(age)) if age is not None else None,
        "sex": sex_of(str(record.patient.sex or "")),
    }
    lines = [" ".join(part for part in statement if part) for statement in record.interpretation.statements]
    lines = [line for line in lines if line]
    if lines:
        about["interpretation"] = lines
    return about
