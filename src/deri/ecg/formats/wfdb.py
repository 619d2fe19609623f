"""Reading WFDB records: ``.hea`` with ``.dat`` or ``.mat``.

Nearly every 12-lead archive on PhysioNet is single-segment, format 16, one signal file. Those are read directly, some
forty times faster than through the ``wfdb`` package, with equal values. Everything else (packed formats, FLAC, several
files, skew) is left to ``wfdb_signals``, records of several segments to ``wfdb_segments``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache, partial
from io import FileIO
from typing import Any

import numpy as np

from deri.ecg.formats import matlab
from deri.ecg.formats.common import NO_OPTIONS, Format, Options, refuse_options, units_per_mv
from deri.ecg.formats.errata import find_erratum
from deri.ecg.formats.wfdb_header import Header, HeaderError, SignalLine, parse_header, parse_subject
from deri.ecg.formats.wfdb_segments import read_segments
from deri.ecg.formats.wfdb_signals import NO_SAMPLE, read_digital, signal_path
from deri.ecg.leads import LEADS, LeadPlan, complete, lead_plan
from deri.ecg.recording import ECG
from deri.errors import ReadError

_MAX_HEADER_BYTES = 16 * 2**20
_FULL_RANGE_16 = 65536.0
_SMALLEST_RANGE_MV = 0.2  # a 16-bit range below this cannot hold a surface ECG in any lead


@dataclass(frozen=True, eq=False)
class Counts:
    """Digital samples of a record as its files hold them, and how they become millivolts.

    Attributes:
        path: the header file.
        header: its content, gains corrected by the errata.
        plan: how its channels become the twelve leads.
        samples: (k, n), a row for each of ``plan.recorded``: integers, int16 in the usual format 16, or the doubles of
            a MATLAB file.
        gains: counts per mV of each of ``plan.recorded``.
        baselines: the count of 0 mV of each of ``plan.recorded``.
        no_sample: the count that marks a gap, one for all or (k, 1).
        fs: sampling rate in Hz.
        warnings: code -> sentence.
    """

    path: str
    header: Header
    plan: LeadPlan
    samples: np.ndarray
    gains: tuple[float, ...]
    baselines: tuple[int, ...]
    no_sample: int | np.ndarray
    fs: float
    warnings: dict[str, str]

    def to_ecg(self) -> ECG:
        """The recording in mV."""
        plan, warnings, gains = self.plan, dict(self.warnings), self.gains
        present = to_millivolt(self.samples, gains, self.baselines, self.no_sample)
        proven_wrong: dict[str, Any] = {}
        if plan.recorded[:3] == (0, 1, 2) and not _einthoven_holds(self.samples[:3], present[:3], gains[:3]):
            warnings["inconsistent_gains"] = (
                "the samples of I, II and III obey Einthoven's law (I + III = II) before the header's gains, not "
                "after: the gains scale each lead on its own, so amplitudes cannot be compared between leads"
            )
            proven_wrong = {"header_gains": {LEADS[row]: gain for row, gain in zip(plan.recorded, gains, strict=True)}}
        if len(plan.recorded) == len(LEADS):
            signal = present
        else:
            signal = np.empty((len(LEADS), present.shape[1]), dtype=np.float32)
            signal[list(plan.recorded)] = present
            complete(signal, plan)
        about = {
            "source_file": self.path,
            "format": "WFDB",
            "derived_leads": {LEADS[d.lead]: d.formula for d in plan.derivations},
            "dropped_leads": list(plan.dropped),
            "warnings": warnings,
        }
        return ECG(signal, self.fs, about | about_header(self.header) | proven_wrong)


def header_file(name: str) -> str:
    """The header of the record that ``name`` names: itself, its signal file, or its name without suffix."""
    return name if name.endswith(".hea") else (name[:-4] if name.endswith((".dat", ".mat")) else name) + ".hea"


def read_counts(path: str, options: Options = NO_OPTIONS) -> Counts | None:
    """Read the record with the header file ``path`` without converting its samples; None for one of several segments.

    Raises:
        ReadError: as :func:`read_wfdb`.
    """
    header = _header_with_signals(path)
    return None if header.n_segments is not None else _read_counts(path, header, options)


def read_wfdb(path: str, options: Options = NO_OPTIONS) -> ECG:
    """Read the record with the header file ``path`` (ends in ``.hea``).

    ``options.gain`` holds for signals whose header states none.

    Raises:
        ReadError: see ``docs/ecg.md`` for the reasons.
    """
    header = _header_with_signals(path)
    if header.n_segments is None:
        return _read_counts(path, header, options).to_ecg()
    signal, per_frame, about = read_segments(path, header, _load_header, partial(read_wfdb, options=options))
    return ECG(signal, header.fs * per_frame, {"source_file": path, "format": "WFDB", **about, **about_header(header)})


def _header_with_signals(path: str) -> Header:
    header = _load_header(path)
    if header.n_signals == 0:
        raise ReadError(f"{path}: the header describes no signals", "no_signals")
    return header


def _read_counts(path: str, header: Header, options: Options) -> Counts:
    folder = os.path.dirname(path)
    if options != NO_OPTIONS:
        header = _with_options(path, header, options)
    try:
        plan = lead_plan(tuple([signal.description for signal in header.signals]))
    except ReadError as error:
        raise ReadError(f"{path}: {error}", error.reason) from None
    warnings: dict[str, str] = {}
    header = _correct_gains(header, warnings)
    kept = [header.signals[i] for i in plan.channels]
    gains = _units_per_mv(path, kept, warnings)
    fs = header.fs
    no_sample: int | np.ndarray = NO_SAMPLE[16]
    if _is_one_file_of_16_bits(header):
        try:
            samples = np.ascontiguousarray(_read_frames(path, folder, header, warnings).T[list(plan.channels)])
        except ReadError as error:
            if "gain_corrected" in warnings:  # what else is wrong with the header is worth saying, too
                raise ReadError(f"{error}; besides, {warnings['gain_corrected']}", error.reason) from None
            raise
    else:
        digital = read_digital(path, folder, header, kept)
        samples, no_sample, fs = digital.samples, digital.no_sample, fs * digital.per_frame
        if digital.surplus:
            warnings["surplus_data"] = f"the signal files have {digital.surplus} samples more than the header describes"
    _verify_checksums(samples, kept, warnings)
    baselines = tuple([signal.baseline for signal in kept])
    return Counts(path, header, plan, samples, gains, baselines, no_sample, fs, warnings)


def _load_header(path: str) -> Header:
    try:
        with open(path, "rb", buffering=0) as handle:
            size = os.fstat(handle.fileno()).st_size
            data = _read_bytes(handle, size) if size <= _MAX_HEADER_BYTES else b""
    except FileNotFoundError:
        raise ReadError(f"{path}: no such header file", "missing_header") from None
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror})", "unreadable_file") from error
    if size > _MAX_HEADER_BYTES:
        raise ReadError(f"{path}: {size} bytes are too many for a header", "bad_header")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    try:
        return parse_header(text)
    except HeaderError as error:
        raise ReadError(f"{path}: {error}", "bad_header") from None


def _read_bytes(handle: FileIO, count: int) -> bytes:
    """The next ``count`` bytes of an unbuffered file (a buffer costs half of the time); fewer at its end."""
    data = handle.read(count)
    while len(data) < count and (more := handle.read(count - len(data))):
        data += more
    return data


def _correct_gains(header: Header, warnings: dict[str, str]) -> Header:
    erratum = find_erratum(header)
    if erratum is None:
        return header
    warnings["gain_corrected"] = (
        f"the header states {erratum.stated:g}/mV, a known error of early {erratum.source} headers of the "
        f"CinC Challenge 2020; read with the {erratum.true:g}/mV of the later ones"
    )
    return header._replace(signals=tuple(signal._replace(gain=erratum.true) for signal in header.signals))


def _units_per_mv(path: str, kept: list[SignalLine], warnings: dict[str, str]) -> tuple[float, ...]:
    """Counts per mV of the kept signals; refuses units and gains that no ECG has."""
    gains = []
    for signal in kept:
        per_mv = units_per_mv(signal.units)
        if per_mv is None:
            raise ReadError(
                f"{path}: lead {signal.description} has the unit {signal.units!r}; an ECG is in mV, uV, nV or V",
                "bad_units",
            )
        gains.append(signal.gain * per_mv)
        if not signal.calibrated:
            warnings["uncalibrated"] = "the header states no gain for some lead: 200 units/mV assumed, as WFDB does"
    smallest = min(gains, key=abs)
    if abs(smallest) < 1e-3:
        raise ReadError(f"{path}: a gain of {smallest:g} units/mV cannot be an ECG's", "bad_gain")
    widest = _FULL_RANGE_16 / abs(smallest)
    if widest < _SMALLEST_RANGE_MV and all(signal.format == 16 for signal in kept):
        raise ReadError(
            f"{path}: with a gain of {smallest:g} units/mV no lead could span more than "
            f"{1000 * widest:.3g} µV; the header's gain or unit is wrong",
            "bad_gain",
        )
    return tuple(gains)


@lru_cache(maxsize=512)
def _scaling_arrays(
    gains: tuple[float, ...], baselines: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray | None, type[np.floating]]:
    # Single precision gives the correctly rounded quotient as long as its operands are exact; that is most files.
    exact = all(float(np.float32(gain)) == gain for gain in gains) and all(abs(b) < 2**23 for b in baselines)
    kind: type[np.floating] = np.float32 if exact else np.float64
    column = np.array(gains, dtype=kind)[:, None]
    offset = np.array(baselines, dtype=kind)[:, None] if any(baselines) else None
    return column, offset, kind


def to_millivolt(
    samples: np.ndarray, gains: tuple[float, ...], baselines: tuple[int, ...], no_sample: int | np.ndarray
) -> np.ndarray:
    """Counts (k, n) to float32 (k, n) in mV; NaN for gaps."""
    gain, baseline, kind = _scaling_arrays(gains, baselines)
    if samples.dtype != np.int16:  # 24- and 32-bit samples, or the doubles of a MATLAB file
        kind = np.float64
    value = samples.astype(kind)
    gaps = samples.size > 0 and bool(samples.min() <= np.max(no_sample))
    mask = value == no_sample if gaps else None
    if baseline is not None:
        value -= baseline
    value /= gain
    physical = value.astype(np.float32, copy=False)
    if mask is not None:
        physical[mask] = np.nan
    return physical


def _is_one_file_of_16_bits(header: Header) -> bool:
    first = header.signals[0]
    layouts = {(s.file, s.format, s.samples_per_frame, s.skew, s.byte_offset) for s in header.signals}
    return layouts == {(first.file, 16, 1, 0, first.byte_offset)}


def _read_frames(path: str, folder: str, header: Header, warnings: dict[str, str]) -> np.ndarray:
    """Digital samples (n, signals) of a one-file record; int16 unless a MATLAB file holds another type."""
    count = header.n_signals
    offset = header.signals[0].byte_offset
    length = header.n_samples
    file = signal_path(path, folder, header.signals[0].file)
    try:
        with open(file, "rb", buffering=0) as handle:
            size = os.fstat(handle.fileno()).st_size
            data = _read_bytes(handle, size if length is None else min(size, offset + 2 * count * length))
    except FileNotFoundError:
        raise ReadError(f"{path}: its signal file {os.path.basename(file)} is missing", "missing_signal_file") from None
    except OSError as error:
        raise ReadError(f"{file}: cannot be opened ({error.strerror})", "unreadable_file") from error
    if file.endswith(".mat"):
        level4 = matlab.level4_header(data)
        if matlab.is_level5(data) or (level4 is not None and not matlab.is_raw_int16(level4)):
            values = matlab.load_val(file)
            _check_shape(path, file, header, *values.shape)
            return np.ascontiguousarray(values.T)
        if level4 is not None:
            _check_shape(path, file, header, level4.rows, level4.columns)
            offset, length = level4.data_offset, level4.columns
            if offset != header.signals[0].byte_offset:  # the file knows better than the header where its samples begin
                with open(file, "rb") as handle:
                    data = handle.read(min(size, offset + 2 * count * length))
    available = max(0, size - offset)
    if length is None:
        length, rest = divmod(available, 2 * count)
        if rest:
            raise ReadError(
                f"{file}: {available} bytes do not divide into {count} leads of 16-bit samples: the leads differ in "
                "length or the file is cut off",
                "unequal_lead_lengths",
            )
        if length == 0:
            raise ReadError(f"{file}: holds no samples", "truncated_signal")
    expected = 2 * count * length
    if available < expected:
        raise ReadError(
            f"{file}: cut off: {available // (2 * count)} of {length} samples per lead are there", "truncated_signal"
        )
    if available > expected:
        warnings["surplus_data"] = f"the signal file has {available - expected} bytes more than its header describes"
    return np.frombuffer(data, dtype="<i2", count=count * length, offset=offset).reshape(length, count)


def _check_shape(path: str, file: str, header: Header, rows: int, columns: int) -> None:
    """Refuse a MATLAB matrix that is not what the header describes: its samples would land in wrong leads."""
    length = header.n_samples if header.n_samples is not None else columns
    if rows == header.n_signals and columns == length:
        return
    shorter = rows == header.n_signals and columns < length
    raise ReadError(
        f"{path}: describes {header.n_signals} leads of {length} samples, but {os.path.basename(file)} "
        f"holds {rows} of {columns}",
        "truncated_signal" if shorter else "bad_header",
    )


def _verify_checksums(samples: np.ndarray, kept: list[SignalLine], warnings: dict[str, str]) -> None:
    """Compare the 16-bit sums. Headers written without computing them hold 0 throughout, which says nothing."""
    if samples.dtype.kind != "i" or not any(signal.checksum for signal in kept):
        return
    # int16 wraps around, as the checksum does.
    sums = np.add.reduce(samples, axis=1, dtype=np.int16 if samples.dtype == np.int16 else np.int64).tolist()
    wrong = [
        signal.description
        for signal, found in zip(kept, sums, strict=True)
        # A skewed signal's sum counts samples that lie beyond the record.
        if signal.checksum is not None and not signal.skew and (signal.checksum - found) & 0xFFFF
    ]
    if wrong:
        warnings["checksum_mismatch"] = f"the header's checksums do not fit the samples of {', '.join(wrong)}"


def _einthoven_holds(samples: np.ndarray, millivolt: np.ndarray, gains: tuple[float, ...]) -> bool:
    """False where gains that differ between I, II and III break I + III = II, which the samples themselves keep.

    Args:
        samples: counts (3, n).
        millivolt: the same in mV.
        gains: digital units per mV of the three leads.
    """
    if gains[0] == gains[1] == gains[2]:
        return True
    counts = samples.astype(np.float32)
    digital_residual = np.ptp(counts[0] + counts[2] - counts[1])
    return not (digital_residual <= 6 and np.ptp(millivolt[0] + millivolt[2] - millivolt[1]) > 0.05)


def about_header(header: Header) -> dict[str, Any]:
    """What a header says besides the signals: metadata of an ECG."""
    dated = {"date": header.date} if header.date else {}
    return {"comments": header.comments, **dated, **parse_subject(header.comments)}


def _with_options(path: str, header: Header, options: Options) -> Header:
    """The header with what the caller says about its signals."""
    if all(signal.calibrated for signal in header.signals):
        refuse_options(path, "its header states the gain of every signal", options, "gain")
    signals = []
    for signal in header.signals:
        name = options.lead(signal.description)
        if options.gain is not None and not signal.calibrated:
            signal = signal._replace(gain=options.gain, units="mV", calibrated=True)
        signals.append(signal._replace(description=name))
    return header._replace(signals=tuple(signals))


FORMAT = Format("WFDB (.hea with .dat or .mat)", lambda path, head: path.endswith(".hea"), read_wfdb, takes=("gain",))
