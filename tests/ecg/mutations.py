"""A deterministic corpus of damaged and hostile files: mutation ``number`` is the same on every machine."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecg.wfdb_writer import record
from ecg.writers import LEADS, aecg, aecg_set, annotation_signal, digital_ecg, edf, ishne, muse, scp, sierra

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)
HUGE = (b"99999999", b"-1", b"1e308", b"nan", b"4294967295", b"0", b"")


def _wfdb(digital: np.ndarray) -> dict[str, bytes]:
    k, n = digital.shape
    lines = [f"r {k} 500 {n}", *(f"r.dat 16 1000/mV 16 0 0 0 0 {name}" for name in LEADS), "# Age: 60"]
    return {"r.hea": "\n".join(lines).encode(), "r.dat": digital.T.astype("<i2").tobytes()}


def _segments(frames: np.ndarray) -> dict[str, bytes]:
    names = [LEADS[i] for i in (1, 0, 7)]
    layout = "\n".join(["m0 12 500 0", *(f"~ 0 100/mV 16 0 0 0 0 {name}" for name in LEADS)])
    return {
        "m.hea": b"m/4 12 500 300\nm0 0\nm1 100\n~ 50\nm2 150\n",
        "m0.hea": layout.encode(),
        **record(frames[:100][:, [1, 0, 7]], 16, name="m1", names=names),
        **record(frames[150:], 212, name="m2"),
    }


def _cinc(digital: np.ndarray) -> dict[str, bytes]:
    k, n = digital.shape
    lines = [f"A0001 {k} 500 {n}"]
    for name, row in zip(LEADS, digital, strict=True):
        lines.append(f"A0001.mat 16+24 1000/mV 16 0 {row[0]} {int(row.astype(int).sum()) & 0xFFFF} 0 {name}")
    head = struct.pack("<5i", 30, k, n, 0, 4) + b"val\0"
    text = "\n".join([*lines, "#Age: 40", "#Sex: Male", "#Dx: 426783006"])
    return {"A0001.hea": text.encode(), "A0001.mat": head + digital.T.astype("<i2").tobytes()}


def _saved(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def seeds() -> dict[str, dict[str, bytes]]:
    """One small good file of each format: name -> files (the first is the one to read)."""
    from scipy.io import savemat

    digital = digital_ecg(300)
    marks = annotation_signal([b"+0\x14\x14\0", b"+1\x14\x14\0", b"+4\x14\x14\0"])
    rows = [*(row.reshape(3, 100) for row in digital), marks]
    limits = [(-3276.8, 3276.7, -32768, 32767)] * 13
    struct_ecg = {"ECG": {"sex": "Male", "age": 50.0, "data": digital * 1e-3}}
    csv = ",".join(f"{name} (uV)" for name in LEADS) + ",time\n"
    csv += "\n".join(",".join(map(str, row)) + f",{i / 500:.3f}" for i, row in enumerate(digital.T))
    beat = digital[:, :50].copy()
    small = np.clip(digital, -120, 120).T
    eight = [0, 1, *range(6, 12)]
    names8 = [LEADS[i] for i in eight]
    files: dict[str, dict[str, bytes]] = {
        "wfdb": _wfdb(digital),
        **{f"wfdb-{form}": record(small, form) for form in (8, 24, 80, 212, 310, 311)},
        "wfdb-skew": record(small, 16, skews=[i % 3 for i in range(12)], count=len(small)),
        "wfdb-segments": _segments(small),
        "cinc": _cinc(digital),
        "aecg": {"a.xml": aecg(aecg_set(digital, LEADS)).encode()},
        "sierra": {"a.xml": sierra(digital).encode()},
        "sierra-plain": {"a.xml": sierra(digital, version="1.03", compressed=False).encode("utf-16")},
        "muse": {"a.xml": muse(digital, LEADS).encode()},
        "muse-8": {"a.xml": muse(digital[eight], names8).encode()},
        "edf-plain": {"a.edf": edf(rows[:12], LEADS, units=["uV"] * 12, limits=limits[:12])},
        "bdf": {
            "a.bdf": edf(rows[:12], LEADS, units=["uV"] * 12, limits=[(-9e4, 9e4, -(2**23), 2**23 - 1)] * 12, bdf=True)
        },
        "edf": {"a.edf": edf(rows, [*LEADS, "EDF Annotations"], units=["uV"] * 13, limits=limits, reserved="EDF+D")},
        "ishne": {"a.ecg": ishne(digital, LEADS)},
        "scp": {"a.scp": scp(digital // 2, LEADS, beat=beat // 4, beats_at=(20, 120))},
        "scp-plain": {"a.scp": scp(digital, LEADS, coded=False, order=0)},
        "scp-bimodal": {
            "a.scp": scp(digital // 2, LEADS, beat=beat // 4, beats_at=(21, 121), bimodal=1, factor=2, order=1)
        },
        "mat": {"a.mat": _saved(lambda stream: savemat(stream, struct_ecg))},
        "mat-compressed": {"a.mat": _saved(lambda stream: savemat(stream, struct_ecg, do_compression=True))},
        "npy": {"a.npy": _saved(lambda stream: np.save(stream, digital))},
        "npz": {"a.npz": _saved(lambda stream: np.savez_compressed(stream, ecg=digital, fs=500.0, units="uV"))},
        "csv": {"a.csv": csv.encode()},
        "gzip": {"a.csv.gz": gzip.compress(csv.encode(), mtime=0)},
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files["wfdb"].items():
            archive.writestr(zipfile.ZipInfo(f"x/{name}"), data, zipfile.ZIP_DEFLATED)
    files["zip"] = {"a.zip": stream.getvalue()}
    files |= _by_libraries(digital)
    return files


def _by_libraries(digital: np.ndarray) -> dict[str, dict[str, bytes]]:
    """Seeds that need an optional package to be written."""
    files: dict[str, dict[str, bytes]] = {}
    try:
        import h5py

        stream = io.BytesIO()
        with h5py.File(stream, "w", track_order=False) as file:
            values = (digital * 1e-3).astype(np.float16)
            file.create_dataset("ecg", data=values, chunks=(12, 100), compression="gzip", track_times=False)
        files["hdf5"] = {"a.h5": stream.getvalue()}
    except ImportError:
        pass
    try:
        from ecg.dicom_writer import dicom_bytes

        files["dicom"] = {"a.dcm": dicom_bytes(digital)}
        files["dicom-implicit"] = {"a.dcm": dicom_bytes(digital, "ImplicitVRLittleEndian")}
        files["dicom-deflated"] = {"a.dcm": dicom_bytes(digital, "DeflatedExplicitVRLittleEndian")}
    except ImportError:
        pass
    with contextlib.suppress(ImportError):
        files["wfdb-flac"] = record(np.clip(digital, -120, 120).T, 516)
    return files


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: bit flips, bytes set, cuts, runs removed, doubled or zeroed, numbers replaced, sizes blown up."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        # Half of all damage falls on the first kilobyte, where headers are.
        end = min(len(out), 1024) if rng.random() < 0.5 else len(out)
        at = int(rng.integers(0, end))
        kind = int(rng.integers(0, 9))
        length = int(rng.integers(1, 64))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            out[at] = INTERESTING[int(rng.integers(0, len(INTERESTING)))]
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + length]
        elif kind == 4:
            out[at:at] = out[at : at + length]
        elif kind == 5:
            out[at : at + length] = bytes(len(out[at : at + length]))
        elif kind == 6:
            numbers = [match.span() for match in re.finditer(rb"\d+", bytes(out[max(0, at - 200) : at + 200]))]
            if numbers:
                first, last = numbers[int(rng.integers(0, len(numbers)))]
                base = max(0, at - 200)
                out[base + first : base + last] = HUGE[int(rng.integers(0, len(HUGE)))]
        elif kind == 7:
            value = int(rng.choice([0, 1, 2**31 - 1, 2**32 - 1, 2**16 - 1]))
            out[at : at + 4] = struct.pack("<I", value)
        else:
            out[at : at + length] = rng.integers(0, 256, len(out[at : at + length]), dtype=np.uint8).tobytes()
    return bytes(out)


def mutation(number: int, good: dict[str, dict[str, bytes]], folder: Path) -> Path:
    """Write mutation ``number`` and return the path to read."""
    rng = np.random.default_rng([20250, number])
    kinds = sorted(good)
    files = dict(good[kinds[number % len(kinds)]])
    victim = sorted(files)[int(rng.integers(0, len(files)))]
    files[victim] = mutate(files[victim], rng)
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / next(iter(files))


BOMB_COUNT = 18


def bombs() -> dict[str, bytes]:
    """Small files that ask for much: name -> content."""
    digital = digital_ecg(100)
    good = aecg(aecg_set(digital, LEADS))
    laughs = '<!DOCTYPE x [<!ENTITY a0 "1 ">' + "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12))
    lzw = np.zeros(400_000, dtype=np.uint8).tobytes()
    sierra_text = sierra(digital)
    zeros = bytes(2**20)
    out = {
        "laughs.xml": good.replace("<AnnotatedECG", f"{laughs}]><AnnotatedECG").replace("<digits>", "<digits>&a11; "),
        "quadratic.xml": good.replace(
            "<AnnotatedECG", f'<!DOCTYPE x [<!ENTITY a "{"1 " * 50000}">]><AnnotatedECG'
        ).replace("<digits>", "<digits>" + "&a;" * 50000),
        "deep.xml": "<AnnotatedECG>" + "<a>" * 500_000,
        "wide.xml": "<AnnotatedECG>" + "<a/>" * 2_000_000,
        "attributes.xml": "<AnnotatedECG " + " ".join(f'a{k}="1"' for k in range(200_000)) + "/>",
        "long.xml": sierra_text.replace('durationperchannel="200"', 'durationperchannel="99999999999"'),
    }
    files = {name: text.encode() for name, text in out.items()}
    import base64

    body = base64.b64encode((struct.pack("<ihh", len(lzw), 1, 0) + lzw) * 12).decode()
    files["lzw.xml"] = re.sub(r"(<parsedwaveforms[^>]*>)[^<]*", rf"\g<1>{body}", sierra_text).encode()
    packer = zlib.compressobj(1, wbits=31)
    files["bomb.gz"] = b"".join(packer.compress(zeros) for _ in range(64)) + packer.flush()
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.edf", "w") as member,
    ):
        member.write(b"0       " + b" " * 244 + b"1   ")
        for _ in range(64):
            member.write(zeros)
    files["bomb.zip"] = stream.getvalue()
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("ecg.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (12, 2**27)})
        for _ in range(260):
            member.write(zeros)
    files["bomb.npz"] = stream.getvalue()
    nested = gzip.compress(good.encode(), mtime=0)
    for _ in range(6):
        nested = gzip.compress(nested, mtime=0)
    files["nested.gz"] = nested
    packer = zlib.compressobj(1)
    inflated = struct.pack("<2I", 14, 2**31 - 1)
    packed = packer.compress(inflated) + b"".join(packer.compress(zeros) for _ in range(130)) + packer.flush()
    files["bomb.mat"] = b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + struct.pack("<2I", 15, len(packed)) + packed
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (12, 10**15)})
    files["huge.npy"] = header.getvalue()
    limits = [(-1.0, 1.0, -32768, 32767)]
    one = [np.zeros((1, 4), dtype=int)]
    files["huge.edf"] = edf(one, ["II"], units=["mV"], limits=limits, records=99999999)
    files["samples.edf"] = edf(one, ["II"], units=["mV"], limits=limits).replace(b"4       ", b"99999999")
    files["huge.ecg"] = ishne(digital, LEADS).replace(struct.pack("<i", 100), struct.pack("<i", 2**31 - 1), 1)
    files["huge.scp"] = scp(digital, LEADS).replace(struct.pack("<II", 1, 100), struct.pack("<II", 1, 2**32 - 1))
    files["huge.hea"] = b"huge 12 500 9999999999\n" + b"".join(
        b"huge.dat 212 1000/mV 16 0 0 0 0 " + name.encode() + b"\n" for name in LEADS
    )
    assert len(files) == BOMB_COUNT
    return files
