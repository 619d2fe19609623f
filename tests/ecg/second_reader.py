"""Other people's readers of every format, to which damaged files are given as well: what both read must agree."""

from __future__ import annotations

import csv
import gzip
import io
import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from deri.ecg import LEADS, canonical_lead

PER_MV = {"mv": 1.0, "millivolts": 1.0, "uv": 1e3, "µv": 1e3, "microvolts": 1e3, "nv": 1e6, "v": 1e-3}

Leads = dict[str, np.ndarray]  # canonical name -> mV


class Refused(Exception):
    """The other reader does not read the file either, or cannot know its unit."""


def read(kind: str, path: Path) -> tuple[float, Leads]:
    """Sampling rate and leads by another reader; of a format with two, by the first that reads the file.

    Raises:
        Refused: whatever it raises.
    """
    refusals = []
    for reader in READERS[kind.partition("-")[0]]:
        try:
            return reader(path)
        except Exception as error:
            refusals.append(f"{type(error).__name__}: {error}")
    raise Refused("; ".join(refusals))


def _wfdb(path: Path) -> tuple[float, Leads]:
    import wfdb

    # It stumbles over skews (a broadcast of unlike shapes), and takes the spare bits of format 311 for a sample's.
    for data in [*path.parent.glob("*.dat")] if b" 311 " in path.read_bytes() else []:
        words = np.frombuffer(data.read_bytes().ljust(-(-data.stat().st_size // 4) * 4, b"\0"), "<u4")
        data.write_bytes((words & 0x3FFFFFFF).tobytes())
    record = wfdb.rdrecord(str(path.with_suffix("")), smooth_frames=False, ignore_skew=True)
    if isinstance(record, wfdb.MultiRecord):
        raise Refused("several segments")
    if record.e_p_signal is None:
        record = wfdb.rdrecord(str(path.with_suffix("")))
        signals: list[np.ndarray] = list(record.p_signal.T)
    else:
        signals = record.e_p_signal
    rates = set(record.samps_per_frame)
    if len(rates) > 1:
        raise Refused("rates")
    skewed = [
        np.append(signal[skew or 0 :], [np.nan] * (skew or 0))
        for signal, skew in zip(signals, record.skew, strict=True)
    ]
    return record.fs * rates.pop(), _by_name(record.sig_name, skewed, record.units)


def _by_name(names: Any, signals: Any, units: Any) -> Leads:
    leads: Leads = {}
    for name, signal, unit in zip(names, signals, units, strict=True):
        lead = canonical_lead(name)
        if lead in leads:  # wfdb passes over bytes that are not ASCII: "I\xff" is "I" to it
            raise Refused(f"lead {lead} twice")
        if lead is not None and str(unit).strip().lower() in PER_MV:
            leads[lead] = np.asarray(signal, dtype=np.float64) / PER_MV[str(unit).strip().lower()]
    return leads


def _ecgdatakit(path: Path) -> tuple[float, Leads]:
    from ecgdatakit import FileParser

    record = FileParser.parse(path)
    names = [lead.label for lead in record.leads]
    return float(record.leads[0].sampling_rate), _by_name(
        names, [lead.samples for lead in record.leads], [lead.units for lead in record.leads]
    )


def _muse(path: Path) -> tuple[float, Leads]:
    """Without the median beats, for whose damage ecgdatakit refuses the whole file."""
    text = re.sub(rb"<Waveform>\s*<WaveformType>Median.*?</Waveform>", b"", path.read_bytes(), flags=re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.xml").write_bytes(text)
        return _ecgdatakit(Path(folder) / "a.xml")


def _sierra(path: Path) -> tuple[float, Leads]:
    """In UTF-8: ecgdatakit believes the declaration, where we believe the byte order mark."""
    data = path.read_bytes()
    text = (
        data.decode("utf-16", errors="replace") if data[:2] == b"\xff\xfe" else data.decode("utf-8", errors="replace")
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "a.xml").write_text(text, encoding="utf-8")
        return _ecgdatakit(Path(folder) / "a.xml")


def _edf(path: Path) -> tuple[float, Leads]:
    """Without the texts that say nothing of the samples, for which pyedflib refuses a file."""
    data = bytearray(path.read_bytes())
    count = int(data[252:256])
    data[8:168] = b"X X X X".ljust(80) + b"Startdate X X X X".ljust(80)
    data[168:184] = b"01.01.2012.00.00"
    data[184:192] = str(256 * (count + 1)).encode().ljust(8)
    for start, size in ((16, 80), (136, 80), (224, 32)):
        data[256 + start * count : 256 + (start + size) * count] = b" " * (size * count)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path.name).write_bytes(data)
        return _pyedflib(Path(folder) / path.name)


def _pyedflib(path: Path) -> tuple[float, Leads]:
    import pyedflib

    with pyedflib.EdfReader(str(path), annotations_mode=pyedflib.DO_NOT_READ_ANNOTATIONS) as reader:
        names = reader.getSignalLabels()
        if max(reader.getNSamples()) > 10**6:
            raise Refused("long")
        kept = [i for i, name in enumerate(names) if canonical_lead(name)]
        signals = [reader.readSignal(i) for i in kept]
        units = [reader.getPhysicalDimension(i) for i in kept]
        return float(reader.getSampleFrequency(kept[0])), _by_name([names[i] for i in kept], signals, units)


def _dicom(path: Path) -> tuple[float, Leads]:
    import pydicom

    # From memory: of a file it would allocate whatever length an element claims.
    data = pydicom.dcmread(io.BytesIO(path.read_bytes()), force=True)
    group = data.WaveformSequence[0]
    values = data.waveform_array(0)
    names, units = [], []
    for channel in group.ChannelDefinitionSequence:
        names.append(str(channel.ChannelSourceSequence[0].CodeMeaning))
        units.append(
            str(channel.ChannelSensitivityUnitsSequence[0].CodeValue) if "ChannelSensitivity" in channel else ""
        )
    return float(group.SamplingFrequency), _by_name(names, values.T, units)


def _mat(path: Path) -> tuple[float, Leads]:
    from scipy.io import loadmat

    data = loadmat(path, simplify_cells=True)["ECG"]["data"]
    return 500.0, dict(zip(LEADS, np.asarray(data, dtype=np.float64), strict=True))


def _npy(path: Path) -> tuple[float, Leads]:
    return 500.0, _rows(np.load(path, allow_pickle=False), 1e3)


def _npz(path: Path) -> tuple[float, Leads]:
    with np.load(path, allow_pickle=False) as archive:
        return float(archive["fs"]), _rows(archive["ecg"], PER_MV[str(archive["units"]).lower()])


def _rows(values: np.ndarray, per_mv: float) -> Leads:
    rows = values if values.shape[0] == 12 else values.T
    return dict(zip(LEADS, rows.astype(np.float64) / per_mv, strict=True))


def _csv(path: Path, data: bytes | None = None) -> tuple[float, Leads]:
    text = (path.read_bytes() if data is None else data).decode("latin-1")
    rows = [row for row in csv.reader(text.splitlines()) if row]
    names = [cell.strip() for cell in rows[0]]
    table = np.array(
        [[float(cell) if cell.strip() else np.nan for cell in row[: len(names)]] for row in rows[1:]], dtype=np.float64
    )
    leads: Leads = {}
    for i, name in enumerate(names):
        lead = canonical_lead(name.partition("(")[0].strip())
        if lead:
            leads[lead] = table[:, i] / PER_MV[name.partition("(")[2].strip(") ").lower()]
    times = table[:, names.index("time")]
    return float((len(times) - 1) / (times[-1] - times[0])), leads


def _hdf5(path: Path) -> tuple[float, Leads]:
    import h5py

    with h5py.File(path) as file:
        return 500.0, _rows(np.asarray(file["ecg"]), 1.0)


def _gzip(path: Path) -> tuple[float, Leads]:
    return _csv(path, gzip.decompress(path.read_bytes()))


def _zip(path: Path) -> tuple[float, Leads]:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            (Path(folder) / Path(info.filename).name).write_bytes(archive.read(info))
        return _wfdb(next(Path(folder).glob("*.hea")))


READERS = {
    **dict.fromkeys(("wfdb", "cinc"), (_wfdb,)),
    **dict.fromkeys(("edf", "bdf"), (_edf, _ecgdatakit)),
    **dict.fromkeys(("aecg", "ishne", "scp"), (_ecgdatakit,)),
    **{
        "dicom": (_dicom, _ecgdatakit),
        "muse": (_muse,),
        "sierra": (_sierra,),
        "mat": (_mat,),
        "npy": (_npy,),
        "npz": (_npz,),
    },
    **{"csv": (_csv,), "hdf5": (_hdf5,), "gzip": (_gzip,), "zip": (_zip,)},
}
