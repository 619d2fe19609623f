"""WFDB records in every signal format, packed by the specification (https://wfdb.io/spec/signal-files.html)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg.writers import LEADS

BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 10, 311: 10, 508: 8, 516: 16, 524: 24}


def pack(frames: np.ndarray, form: int) -> bytes:
    """Digital samples (n, k), any integer type, as the bytes of a signal file."""
    values = frames.astype(np.int64)
    if form == 8:
        return np.diff(values, axis=0, prepend=values[:1]).astype("i1").tobytes()
    flat = [int(value) for value in values.ravel()]
    if form in (16, 61):
        return struct.pack(f"{'<' if form == 16 else '>'}{len(flat)}h", *flat)
    if form == 160:
        return struct.pack(f"<{len(flat)}H", *(value + 2**15 for value in flat))
    if form == 80:
        return bytes(value + 2**7 for value in flat)
    if form in (24, 32):
        return b"".join(value.to_bytes(form // 8, "little", signed=True) for value in flat)
    out = bytearray()
    if form == 212:
        for first, second in zip(flat[::2], [*flat[1::2], 0], strict=False):
            high = (first >> 8 & 15) | (second >> 8 & 15) << 4
            out += bytes([first & 255, high, second & 255])
        return bytes(out)
    flat += [0] * (-len(flat) % 3)
    for at in range(0, len(flat), 3):
        one, two, three = (value & 1023 for value in flat[at : at + 3])
        if form == 310:
            out += struct.pack("<2H", one << 1 | (three & 31) << 11, two << 1 | three >> 5 << 11)
        else:
            out += struct.pack("<I", one | two << 10 | three << 20)
    return bytes(out)


def flac(frames: np.ndarray, form: int) -> bytes:
    """The same in FLAC (508, 516, 524); needs soundfile."""
    import io

    import soundfile

    bits = BITS[form]
    stream = io.BytesIO()
    wide = (frames.astype(np.int64) << (32 - bits)).astype(np.int32)
    kind = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}[bits]
    soundfile.write(stream, wide, samplerate=96000, format="FLAC", subtype=kind)
    return stream.getvalue()


def record(
    frames: np.ndarray,
    form: int,
    *,
    name: str = "r",
    gain: str = "100(0)/mV",
    fs: str = "500",
    names: Sequence[str] = LEADS,
    skews: Sequence[int] | None = None,
    offset: int = 0,
    count: int | None = None,
) -> dict[str, bytes]:
    """Header and signal file of one record; ``count``: samples that the header states, of a skewed record."""
    total, width = frames.shape
    # FLAC has eight channels at most.
    step = 8 if form > 500 else width
    parts = [list(range(first, min(first + step, width))) for first in range(0, width, step)]
    files = {f"{name}{i or ''}.dat": part for i, part in enumerate(parts)}
    lines = [f"{name} {width} {fs} {count or total - max(skews or [0])}"]
    for file, part in files.items():
        for i in part:
            token = f"{form}{f':{skews[i]}' if skews else ''}{f'+{offset}' if offset else ''}"
            total = int(frames[:, i].astype(np.int64).sum()) & 0xFFFF
            checksum = 0 if skews else total - 2**16 if total >= 2**15 else total
            lines.append(f"{file} {token} {gain} {BITS[form]} 0 {int(frames[0, i])} {checksum} 0 {names[i]}")
    out = {f"{name}.hea": "\n".join(lines).encode() + b"\n"}
    for file, part in files.items():
        out[file] = b"\xaa" * offset + (flac(frames[:, part], form) if form > 500 else pack(frames[:, part], form))
    return out


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write the files and return the path of the first."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / next(iter(files))
