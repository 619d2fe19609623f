"""Reading WFDB records: ``.hea`` with ``.dat`` or ``.mat``.

Nearly every 12-lead archive on PhysioNet is single-segment, format 16, one signal file. Those are read directly, some
forty times faster than through the ``wfdb`` package, with equal values. Everything else (packed formats, FLAC, several
files, skewed or multi-segment records) goes through that package.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np

from deri.ecg.formats import matlab
from deri.ecg.formats.common import units_per_mv
from deri.ecg.formats.errata import find_erratum
from deri.ecg.formats.wfdb_header import Header, HeaderError, SignalLine, parse_header, parse_subject
from deri.ecg.leads import LEADS, LeadPlan, complete, lead_plan
from deri.ecg.recording import ECG
from deri.errors import ReadError

_MAX_HEADER_BYTES = 16 * 2**20
_MAX_VALUES = 2**28  # where a file's size does not bound what a header may claim
# Bytes per sample; the FLAC formats 508, 516 and 524 are compressed.
_SAMPLE_BYTES = {
    **{8: 1.0, 16: 2.0, 24: 3.0, 32: 4.0, 61: 2.0, 80: 1.0, 160: 2.0},
    **{212: 1.5, 310: 4 / 3, 311: 4 / 3, 508: 0.0, 516: 0.0, 524: 0.0},
}
# The digital value that means "no sample", per format.
_INVALID = {
    **{16: -(2**15), 24: -(2**23), 32: -(2**31), 61: -(2**15), 80: -(2**7), 160: -(2**15)},
    **{212: -(2**11), 310: -(2**9), 311: -(2**9), 508: -(2**7), 516: -(2**15), 524: -(2**23)},
}
_FULL_RANGE_16 = 65536.0
_SMALLEST_RANGE_MV = 0.2  # a 16-bit range below this cannot hold a surface ECG in any lead


def read_wfdb(path: str) -> ECG:
    """Read the record with the header file ``path`` (ends in ``.hea``).

    Raises:
        ReadError: see ``docs/ecg.md`` for the reasons.
    """
    header = _load_header(path)
    folder = os.path.dirname(path)
    if header.n_signals == 0:
        raise ReadError(f"{path}: the header describes no signals", "no_signals")
    if header.n_segments is not None:
        return _read_segments(path, header)
    try:
        plan = lead_plan(tuple([signal.description for signal in header.signals]))
    except ReadError as error:
        raise ReadError(f"{path}: {error}", error.reason) from None
    warnings: dict[str, str] = {}
    header = _correct_gains(header, warnings)
    kept = [header.signals[i] for i in plan.channels]
    scaling = _scaling(path, kept, warnings)
    fs, invalid, columns = header.fs, _INVALID[16], plan.channels
    if _is_direct(header):
        frames = _read_direct(path, folder, header, warnings)
    else:
        frames, fs = _read_through_wfdb(path, folder, header, plan)
        invalid, columns = _INVALID.get(kept[0].format, -(2**15)), tuple(range(len(kept)))
    _verify_checksums(frames, columns, kept, warnings)
    present = _to_millivolt(frames, columns, invalid, *scaling)
    if plan.recorded[:3] == (0, 1, 2):
        _check_einthoven(frames[:, columns[:3]], present[:3], kept, warnings)
    if len(plan.recorded) == len(LEADS):
        signal = present
    else:
        signal = np.empty((len(LEADS), present.shape[1]), dtype=np.float32)
        signal[list(plan.recorded)] = present
        complete(signal, plan)
    return ECG(signal, fs, _metadata(path, header, plan, warnings))


def _load_header(path: str) -> Header:
    try:
        with open(path, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            data = handle.read() if size <= _MAX_HEADER_BYTES else b""
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


def _correct_gains(header: Header, warnings: dict[str, str]) -> Header:
    erratum = find_erratum(header)
    if erratum is None:
        return header
    warnings["gain_corrected"] = (
        f"the header states {erratum.stated:g}/mV, a known error of early {erratum.source} headers of the "
        f"CinC Challenge 2020; read with the {erratum.true:g}/mV of the later ones"
    )
    return header._replace(signals=tuple(signal._replace(gain=erratum.true) for signal in header.signals))


def _scaling(
    path: str, kept: list[SignalLine], warnings: dict[str, str]
) -> tuple[np.ndarray, np.ndarray | None, type[np.floating]]:
    """Digital units per mV and baselines of the kept signals; refuses units and gains that no ECG has."""
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
    if min(map(abs, gains)) < 1e-3:
        raise ReadError(f"{path}: a gain of {min(gains, key=abs):g} units/mV cannot be an ECG's", "bad_gain")
    if all(signal.format == 16 for signal in kept):
        widest = _FULL_RANGE_16 / min(map(abs, gains))
        if widest < _SMALLEST_RANGE_MV:
            raise ReadError(
                f"{path}: with a gain of {min(gains, key=abs):g} units/mV no lead could span more than "
                f"{1000 * widest:.3g} µV; the header's gain or unit is wrong",
                "bad_gain",
            )
    return _scaling_arrays(tuple(gains), tuple([signal.baseline for signal in kept]))


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


def _to_millivolt(
    frames: np.ndarray,
    columns: tuple[int, ...],
    invalid: int,
    gain: np.ndarray,
    baseline: np.ndarray | None,
    kind: type[np.floating],
) -> np.ndarray:
    """Digital frames (n, channels) to float32 (k, n) in mV, for the given columns in their order."""
    if frames.dtype != np.int16:  # 24- and 32-bit samples, or the doubles of a MATLAB file
        kind = np.float64
    # One large allocation per record and no integer copy of the transposed samples: freed memory stays with the process
    # instead of going back to the system each time, which doubles the speed.
    value = np.empty((len(columns), len(frames)), dtype=kind)
    if columns == tuple(range(frames.shape[1])):
        value[...] = frames.T
    else:
        for row, column in enumerate(columns):
            value[row] = frames[:, column]
    gaps = frames.size > 0 and bool(frames.min() <= invalid)
    mask = value == invalid if gaps else None
    if baseline is not None:
        value -= baseline
    value /= gain
    physical = value.astype(np.float32, copy=False)
    if mask is not None:
        physical[mask] = np.nan
    return physical


def _is_direct(header: Header) -> bool:
    first = header.signals[0]
    return all(
        signal.format == 16
        and signal.samples_per_frame == 1
        and signal.skew == 0
        and signal.file == first.file
        and signal.byte_offset == first.byte_offset
        for signal in header.signals
    )


def _signal_path(path: str, folder: str, name: str) -> str:
    # A header from elsewhere must not make us open files outside its own folder.
    if name in ("~", "-", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ReadError(f"{path}: {name[:60]!r} is not the name of a signal file in the same folder", "bad_header")
    return os.path.join(folder, name)


def _read_direct(path: str, folder: str, header: Header, warnings: dict[str, str]) -> np.ndarray:
    """Digital samples (n, signals) of a one-file record; int16 unless a MATLAB file holds another type."""
    count = header.n_signals
    offset = header.signals[0].byte_offset
    length = header.n_samples
    file = _signal_path(path, folder, header.signals[0].file)
    try:
        with open(file, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            data = handle.read(size if length is None else min(size, offset + 2 * count * length))
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


def _verify_checksums(
    frames: np.ndarray, columns: tuple[int, ...], kept: list[SignalLine], warnings: dict[str, str]
) -> None:
    """Compare the 16-bit sums. Headers written without computing them hold 0 throughout, which says nothing."""
    if frames.dtype.kind != "i" or not any(signal.checksum for signal in kept):
        return
    sums = _column_sums(frames)
    wrong = [
        signal.description
        for signal, column in zip(kept, columns, strict=True)
        if signal.checksum is not None and (signal.checksum - sums[column]) & 0xFFFF
    ]
    if wrong:
        warnings["checksum_mismatch"] = f"the header's checksums do not fit the samples of {', '.join(wrong)}"


def _column_sums(frames: np.ndarray) -> list[int]:
    """Sum of each column modulo 2**16. Adding a hundred rows at a time is several times as fast as one by one."""
    length, count = frames.shape
    block = 100
    whole = length - length % block
    total = np.add.reduce(frames[whole:], axis=0, dtype=np.int64)
    if whole:
        wide = frames[:whole].reshape(-1, block * count)
        kind = np.int16 if frames.dtype == np.int16 else np.int64  # int16 wraps around, as the checksum does
        partial = np.add.reduce(wide, axis=0, dtype=kind).reshape(block, count)
        total = total + np.add.reduce(partial, axis=0, dtype=np.int64)
    return [int(value) for value in total]


def _check_einthoven(
    frames: np.ndarray, millivolt: np.ndarray, kept: list[SignalLine], warnings: dict[str, str]
) -> None:
    """Warn where gains that differ between I, II and III break I + III = II, which the samples themselves keep.

    Args:
        frames: digital samples (n, 3).
        millivolt: the same, (3, n) in mV.
    """
    if kept[0].gain == kept[1].gain == kept[2].gain:
        return
    counts = frames.T.astype(np.float32)
    digital_residual = np.ptp(counts[0] + counts[2] - counts[1])
    if digital_residual <= 6 and np.ptp(millivolt[0] + millivolt[2] - millivolt[1]) > 0.05:
        warnings["inconsistent_gains"] = (
            "the samples of I, II and III obey Einthoven's law (I + III = II) before the header's gains, not after: "
            "the gains scale each lead on its own, so amplitudes cannot be compared between leads"
        )


def _read_through_wfdb(path: str, folder: str, header: Header, plan: LeadPlan) -> tuple[np.ndarray, float]:
    """Digital samples (n, k) of the recorded leads and their rate, for a single-segment record in any format."""
    kept = [header.signals[i] for i in plan.channels]
    rates = {signal.samples_per_frame for signal in kept}
    if len(rates) > 1:
        listed = ", ".join(f"{signal.description}: {signal.samples_per_frame}" for signal in kept)
        raise ReadError(
            f"{path}: leads of different sampling rates (samples per frame {listed})", "unequal_lead_lengths"
        )
    if len({_INVALID.get(signal.format) for signal in kept}) > 1:
        raise ReadError(f"{path}: leads of different sample formats are not supported", "unsupported_format")
    _check_sizes(path, folder, header, kept)
    record = _rdrecord(path, channels=list(plan.channels), physical=False, smooth_frames=False)
    lengths = {len(channel) for channel in record.e_d_signal}
    if len(lengths) > 1:
        raise ReadError(f"{path}: the leads differ in length ({sorted(lengths)} samples)", "unequal_lead_lengths")
    return np.stack(record.e_d_signal, axis=1), header.fs * rates.pop()


def _check_sizes(path: str, folder: str, header: Header, kept: list[SignalLine]) -> None:
    """Compare what the header claims with the sizes of its files before anything is allocated."""
    lengths: dict[str, int] = {}
    for name in {signal.file for signal in kept}:
        group = [signal for signal in header.signals if signal.file == name]
        form = group[0].format
        if form not in _SAMPLE_BYTES:
            raise ReadError(f"{path}: signal format {form} is not one of WFDB's", "unsupported_format")
        file = _signal_path(path, folder, name)
        try:
            size = os.stat(file).st_size
        except OSError:
            raise ReadError(f"{path}: its signal file {name} is missing", "missing_signal_file") from None
        if _SAMPLE_BYTES[form]:
            frame = sum(signal.samples_per_frame for signal in group) * _SAMPLE_BYTES[form]
            # Packed formats end in the middle of a group of bytes, hence the tolerance of four.
            lengths[name] = int((size - group[0].byte_offset + 4) / frame)
    if header.n_samples is None:
        if len(set(lengths.values())) > 1:
            raise ReadError(f"{path}: its signal files differ in length ({lengths} samples)", "unequal_lead_lengths")
        return
    short = {name: length for name, length in lengths.items() if length < header.n_samples}
    if short:
        listed = ", ".join(f"{name} holds {length}" for name, length in sorted(short.items()))
        reason = "truncated_signal" if len(short) == len(lengths) else "unequal_lead_lengths"
        raise ReadError(f"{path}: the header says {header.n_samples} samples per lead, but {listed}", reason)
    if not lengths:
        _refuse_oversize(path, header)


def _refuse_oversize(path: str, header: Header) -> None:
    if (header.n_samples or 0) * header.n_signals > _MAX_VALUES:
        raise ReadError(
            f"{path}: {header.n_samples} samples of {header.n_signals} leads are too many to read", "too_long"
        )


def _read_segments(path: str, header: Header) -> ECG:
    _refuse_oversize(path, header)
    record = _rdrecord(path, physical=True, m2s=True)
    try:
        plan = lead_plan(tuple(record.sig_name))
    except ReadError as error:
        raise ReadError(f"{path}: {error}", error.reason) from None
    signal = np.empty((len(LEADS), record.p_signal.shape[0]), dtype=np.float32)
    for row, channel in zip(plan.recorded, plan.channels, strict=True):
        per_mv = units_per_mv(str(record.units[channel]))
        if per_mv is None:
            raise ReadError(f"{path}: lead {LEADS[row]} has the unit {record.units[channel]!r}", "bad_units")
        signal[row] = record.p_signal[:, channel] / per_mv
    complete(signal, plan)
    return ECG(signal, float(record.fs), _metadata(path, header, plan, {}))


def _rdrecord(path: str, **options: Any) -> Any:
    import wfdb

    try:
        return wfdb.rdrecord(path.removesuffix(".hea"), **options)
    except FileNotFoundError as error:
        name = os.path.basename(str(error.filename))
        raise ReadError(f"{path}: a file of the record is missing ({name})", "missing_signal_file") from error
    except Exception as error:  # wfdb raises what NumPy and re raise on damaged records
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ReadError(f"{path}: the wfdb package cannot read it ({detail})", "unreadable_signal") from error


def _metadata(path: str, header: Header, plan: LeadPlan, warnings: dict[str, str]) -> dict[str, Any]:
    return {
        "source_file": path,
        "format": "WFDB",
        "derived_leads": {LEADS[d.lead]: d.formula for d in plan.derivations},
        "dropped_leads": list(plan.dropped),
        "warnings": warnings,
        "comments": header.comments,
        **parse_subject(header.comments),
    }
