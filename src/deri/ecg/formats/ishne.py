"""ISHNE Holter files (``ISHNE1.0``): a header of 522 bytes, a text block, then int16 samples, leads interleaved."""

from __future__ import annotations

import binascii
import struct
from typing import Any

import numpy as np

from deri.ecg.formats.common import Format, Options, device_name, load, make_ecg, moment, to_date, years_between
from deri.ecg.recording import ECG
from deri.errors import ReadError

_HEADER = 522
_LEADS = {5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF", **{10 + k: f"V{k}" for k in range(1, 7)}}
_OTHER = {0: "unknown", 1: "bipolar", 2: "X", 3: "Y", 4: "Z", 17: "ES", 18: "AS", 19: "AI"}
_FAULT = -32768


def read_ishne(path: str, options: Options) -> ECG:
    """Read an ISHNE Holter file. A lead fault (−32768) is NaN.

    Raises:
        ReadError: ``bad_header``, ``bad_gain``, ``truncated_signal``, and those of ``make_ecg``.
    """
    data = load(path)
    if len(data) < _HEADER:
        raise ReadError(f"{path}: cut off within its header", "bad_header")
    text_size, samples, _, start = struct.unpack_from("<4i", data, 10)
    count, fs = struct.unpack_from("<h", data, 156)[0], struct.unpack_from("<h", data, 272)[0]
    if not 1 <= count <= 12 or text_size < 0 or samples < 0:
        raise ReadError(f"{path}: its header states {count} leads and a text of {text_size} bytes", "bad_header")
    notes: dict[str, str] = {}
    # The text block ends where the samples begin; some writers leave the stated start at 0.
    begin = _HEADER + text_size
    if start not in (0, begin):
        notes["inconsistent_header"] = f"the samples should begin at {start} and at {begin}; read from {begin}"
    if begin > len(data):
        raise ReadError(f"{path}: its text block reaches beyond the end of the file", "truncated_signal")
    stored = struct.unpack_from("<H", data, 8)[0]
    found = binascii.crc_hqx(data[10:begin], 0xFFFF)
    if stored and stored not in (found, (found >> 8) | (found & 0xFF) << 8):
        notes["checksum_mismatch"] = "the header's checksum does not fit"
    available = (len(data) - begin) // (2 * count)
    # The standard says samples per lead; some writers state the total over all leads.
    length = samples // count if samples == available * count and samples != available else samples
    if length > available or samples == 0:
        raise ReadError(f"{path}: {available} of {samples} samples per lead are there", "truncated_signal")
    if length < available:
        notes["surplus_data"] = f"the file holds {available} samples per lead, {length} are stated"
    codes = struct.unpack_from("<12h", data, 158)[:count]
    names = [_LEADS.get(code, _OTHER.get(code, f"lead code {code}")) for code in codes]
    gains = struct.unpack_from("<12h", data, 206)[:count]
    frames = np.frombuffer(data, dtype="<i2", count=length * count, offset=begin).reshape(length, count)
    channels = []
    for index, (name, gain) in enumerate(zip(names, gains, strict=True)):
        if gain <= 0 and name in _LEADS.values():
            raise ReadError(f"{path}: lead {name} has a resolution of {gain} nV", "bad_gain")
        column = frames[:, index]
        values = column.astype(np.float32) * np.float32(gain * 1e-6)
        values[column == _FAULT] = np.nan
        channels.append(values)
    names = [options.lead(name) for name in names]
    return make_ecg(path, "ISHNE", channels, names, float(fs), {"warnings": notes, **_about(data, begin)})


def _about(data: bytes, begin: int) -> dict[str, Any]:
    born, recorded = (to_date(*struct.unpack_from("<3h", data, at)[::-1]) for at in (132, 138))
    hour, minute, second = struct.unpack_from("<3h", data, 150)
    text = data[_HEADER:begin].split(b"\0")[0].decode("latin-1").strip()
    return {
        "sex": {1: "male", 2: "female"}.get(struct.unpack_from("<h", data, 128)[0]),
        "age": years_between(born, recorded),
        "date": moment(recorded, f"{hour:02d}:{minute:02d}:{second:02d}"),
        "device": device_name(data[232:272].split(b"\0")[0].decode("latin-1")),
        "comments": [text] if text else [],
    }


FORMAT = Format("ISHNE", lambda path, head: head.startswith(b"ISHNE1.0"), read_ishne)
