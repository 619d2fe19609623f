"""One length, one sampling rate, no gaps: what a data set and a model take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from deri.ecg.gains import with_common_gain
from deri.ecg.leads import LEADS
from deri.ecg.quality import lead_flags, runs
from deri.ecg.recording import ECG
from deri.errors import DeriError, ReadError

RepairRule = Literal["lead", "published"]

MAX_GAP_SECONDS = 1.0
MAX_GAP_FRACTION = 0.2
MIN_SECONDS = 2.0
MIN_LAST_SECONDS = 2.5
"""The shortest last stretch of a long recording that is a window of its own."""
MAX_MILLIVOLT = 32.767
"""The largest amplitude that the store's int16 at 1 µV per unit holds; far beyond any heart."""
FLAT_MILLIVOLT = 1e-3
NO_ECG_MILLIVOLT = 5e-3
LOW_MILLIVOLT = 0.1
MIN_FS, MAX_FS = 50.0, 100_000.0
PUBLISHED_NEIGHBOURS = 6
FILTER_REACH = 16
"""Half the resampling filter, in samples of the lower rate."""
_ONE_THREAD = 2**18
"""Multiplications of a matrix product up to which OpenBLAS starts no threads, which would wait for work and take it
from those that encode or prepare meanwhile."""
_LARGEST_STEP = 128
"""Ratios of larger numbers (500 to 257 Hz) have so large a matrix that SciPy's loop is as fast."""


@dataclass(frozen=True)
class Standardised:
    """A recording, or a window of one, of standard length and rate.

    Attributes:
        signal: float32 (12, samples) in mV, finite everywhere, rows in the order of ``LEADS``.
        valid_samples: how many samples were recorded; smaller than ``samples`` where zeros were appended.
        repaired_samples: number of non-finite samples that were filled in the part that was used, over all leads
            that are there.
        flags: what happened and what is suspicious: the codes of ``ecg.metadata["warnings"]``, ``derived_lead:X``,
            ``missing_lead:X``, ``partial_lead:X``, ``repaired``, ``resampled``, ``cropped``, ``padded``,
            ``flat_lead:X``, ``low_amplitude``, and those of :func:`deri.ecg.quality.lead_flags`.
        missing_leads: leads without any sample in the part used; their rows are zero.
        window: number of the window, 0-based: it begins ``window`` times ``samples / fs`` seconds into the recording.
        start_sample: its first sample, in samples of the recording.
    """

    signal: np.ndarray
    valid_samples: int
    repaired_samples: int
    flags: tuple[str, ...]
    missing_leads: tuple[str, ...] = ()
    window: int = 0
    start_sample: int = 0

    @property
    def lead_mask(self) -> np.ndarray:
        """Which leads are there, bool (12,)."""
        return np.array([lead not in self.missing_leads for lead in LEADS])


def standardise(
    ecg: ECG, fs: float = 500.0, samples: int = 5000, *, repair: str = "lead", min_leads: int = 1
) -> Standardised:
    """Repair gaps, resample, then crop or pad. Of a long recording this is the first window.

    Gains that the samples refute are replaced by one for all leads before anything else (``common_gain``, see
    :func:`deri.ecg.gains.with_common_gain`). The rules, in order:

    1. *Part used.* The first ``samples / fs`` seconds (plus the few samples the resampling filter looks ahead). What
       comes later is not looked at. A recording shorter than 2 s is refused (``too_short``), as is a sampling rate
       outside 50 Hz to 100 kHz (``bad_sampling_rate``).
    2. *Leads.* A lead without any finite sample in that part is missing: a row of zeros, listed in ``missing_leads``
       and flagged ``missing_lead:X``; the following rules pass over it. With fewer than ``min_leads`` others the
       recording is refused (``missing_leads``), and in any case without a single one.
    3. *Printed layouts.* Leads recorded one after the other (3 × 4 leads of 2.5 s, say): each lead is there in one
       stretch, of at least 2 s, and two of them at no common time. A lead is kept in its stretch and at its time,
       flagged ``partial_lead:X``; the rest of its row is the mean of the stretch, a flat line of which a model that
       centres its leads sees zeros. A stretch of less than 2 s counts as none (``missing_lead:X``).
    4. *Gaps* (NaN, inf) in that stretch, or in the whole part, ``repair="lead"``: each is filled from its own lead by
       linear interpolation between its neighbours, at the ends by the nearest value. A lead with more than 20 % of
       such samples, or one gap longer than 1 s, is refused (``gaps_too_long``). ``repair="published"``: see
       :func:`repair_published`; printed layouts are not looked for.
    5. *Amplitude.* A peak-to-peak below 5 µV in every lead is no ECG (``amplitude_out_of_range``), unless all leads
       are constant (``flat_record``); below 0.1 mV in every lead the flag ``low_amplitude`` is set. A lead below 1 µV
       is flagged ``flat_lead:X``.
    6. *Resampling* by a polyphase filter with the rational ratio of the rates (denominator ≤ 1000), the ends continued
       by reflection, so that an offset does not ring there.
    7. *Length.* The first ``samples`` samples are kept; a shorter recording gets zeros at its end.
    8. Any value beyond ±32.767 mV is refused (``amplitude_out_of_range``).

    Args:
        ecg: any recording.
        fs: wanted sampling rate in Hz.
        samples: wanted length in samples.
        repair: ``lead`` (default) or ``published``.
        min_leads: how many of the twelve leads, recorded or derived, must be there.

    Raises:
        ReadError: with the reasons above.
        DeriError: an unknown ``repair``.
    """
    return next(standardise_windows(ecg, fs, samples, windows=1, repair=repair, min_leads=min_leads))


def standardise_windows(
    ecg: ECG,
    fs: float = 500.0,
    samples: int = 5000,
    *,
    windows: int | None = None,
    repair: str = "lead",
    min_leads: int = 1,
) -> Iterator[Standardised]:
    """Yield windows of ``samples / fs`` seconds of a recording, without overlap, each by :func:`standardise`'s rules.

    A window may begin in the middle of the recording: its resampling sees the samples before it. A window that cannot
    be used is left out while another one can.

    Args:
        ecg: any recording; one of up to ``samples / fs`` seconds is one window.
        fs: wanted sampling rate in Hz.
        samples: length of a window in samples.
        windows: how many at most, see :func:`choose_windows`; None: all of :func:`window_count`.
        repair: ``lead`` or ``published``.
        min_leads: of each window.

    Raises:
        ReadError: no window can be used; the reason is the first one's.
        DeriError: an unknown ``repair``.
    """
    ecg = _checked(ecg, repair)
    seconds = samples / fs
    first: ReadError | None = None
    usable = False
    for number in choose_windows(window_count(ecg.n_samples, ecg.fs, seconds), windows):
        try:
            found = _window(ecg, number, round(number * seconds * ecg.fs), fs, samples, repair, min_leads)
        except ReadError as error:
            first = first or error
            continue
        usable = True
        yield found
    if not usable and first is not None:
        raise first


def window_count(n_samples: int, fs: float, seconds: float = 10.0) -> int:
    """Return how many windows of ``seconds`` a recording of ``n_samples`` at ``fs`` Hz has.

    They follow each other without overlap. What is left at the end is a window of its own from 2.5 s on. A recording
    has at least one.
    """
    rest = n_samples / fs - min(MIN_LAST_SECONDS, seconds)
    return 1 + max(0, math.floor(rest / seconds + 1e-9))


def choose_windows(count: int, wanted: int | None) -> Sequence[int]:
    """Return the numbers of ``wanted`` of ``count`` windows, spread evenly: window ``floor(i · count / wanted)``.

    The first is window 0. None, and any number from ``count`` on, mean all of them.
    """
    if wanted is None or wanted >= count:
        return range(count)
    return [i * count // wanted for i in range(wanted)]


def _checked(ecg: ECG, repair: str) -> ECG:
    if repair not in ("lead", "published"):
        raise DeriError(f"unknown repair rule {repair!r}; choose lead or published")
    if not MIN_FS <= ecg.fs <= MAX_FS:
        raise ReadError(f"{_name(ecg)}: a sampling rate of {ecg.fs:g} Hz is not that of an ECG", "bad_sampling_rate")
    if ecg.duration < MIN_SECONDS:
        raise ReadError(
            f"{_name(ecg)}: {ecg.duration:.2f} s are too short; at least {MIN_SECONDS:g} s are needed", "too_short"
        )
    return with_common_gain(ecg)


def _window(ecg: ECG, number: int, start: int, fs: float, samples: int, repair: str, min_leads: int) -> Standardised:
    ratio = Fraction(fs / ecg.fs).limit_denominator(1000)
    total = round((ecg.n_samples - start) * ratio)
    # What the resampling filter sees of the time before, in whole steps of its grid.
    steps = min(start // ratio.denominator, -(-_filter_reach(ratio) // ratio.denominator))
    before = steps * ratio.denominator
    used = ecg.signal[:, start - before : start + _samples_needed(samples, ratio)]
    bad = ~np.isfinite(used)
    stop = before + math.ceil(samples / ratio)
    strips = _strips(bad[:, before:stop], ecg.fs) if repair == "lead" else {}
    for row in [row for row, (first, last) in strips.items() if last - first < MIN_SECONDS * ecg.fs]:
        del strips[row]
        bad[row] = True
    there = _leads_there(ecg, bad[:, before:stop], min_leads)
    names: Sequence[str] = LEADS
    if there is not None:
        used, bad, names = used[there], bad[there], [LEADS[row] for row in there]
    partial = {names.index(LEADS[row]): (before + first, before + last) for row, (first, last) in strips.items()}
    used, repaired = _repair(ecg, used, bad, repair, names, partial)
    missing = tuple(lead for lead in LEADS if lead not in names)
    flags = _provenance_flags(ecg, missing)
    flags += [f"partial_lead:{names[row]}" for row in partial]
    if repaired:
        flags.append("repaired")
    flags += _amplitude_flags(ecg, used, names)
    flags += lead_flags(ecg.signal[:, start : start + math.ceil(samples / ratio)], ecg.fs)
    if ratio != 1:
        used = resample(used, ratio)[:, steps * ratio.numerator :]
        flags.append("resampled")
    for row, (first, last) in partial.items():
        begin, end = math.ceil((first - before) * ratio), math.floor((last - before) * ratio)
        used[row, :begin] = used[row, end:] = used[row, begin:end].mean(dtype=np.float64)
    valid = min(total, samples)
    if number or total > samples:
        flags.append("cropped")
    if total < samples:
        flags.append("padded")
    signal = np.zeros((len(LEADS), samples), dtype=np.float32)
    signal[slice(None) if there is None else there, :valid] = used[:, :valid]
    largest = float(np.abs(signal).max())
    if largest > MAX_MILLIVOLT:
        raise ReadError(
            f"{_name(ecg)}: reaches {largest:.4g} mV, more than {MAX_MILLIVOLT} mV; "
            "is the unit or the gain in its header right?",
            "amplitude_out_of_range",
        )
    return Standardised(signal, valid, repaired, tuple(flags), missing, number, start)


def _strips(bad: np.ndarray, fs: float) -> dict[int, tuple[int, int]]:
    """Of a printed layout, the first sample, and the one after the last, of leads that lack over 1 s at their ends.

    Empty where no two of these leads are there one after the other.
    """
    if not bad[:, [0, -1]].any():
        return {}
    good = ~bad
    first, last = good.argmax(axis=1), bad.shape[1] - good[:, ::-1].argmax(axis=1)
    partial = good.any(axis=1) & (last - first < bad.shape[1] - MAX_GAP_SECONDS * fs)
    rows = np.flatnonzero(partial).tolist()
    long = [row for row in rows if last[row] - first[row] >= MIN_SECONDS * fs]
    if not long or last[long].min() > first[long].max():
        return {}
    return {row: (int(first[row]), int(last[row])) for row in rows}


def _leads_there(ecg: ECG, bad: np.ndarray, min_leads: int) -> np.ndarray | None:
    """Rows with a finite sample in the part used, of which ``bad`` (12, n) marks the others; None: all twelve."""
    if not bad[:, 0].any() and min_leads <= len(LEADS):
        return None
    gone = np.asarray(bad.all(axis=1))
    there = np.flatnonzero(~gone)
    if len(there) < max(min_leads, 1):
        listed = ", ".join(lead for lead, missing in zip(LEADS, gone, strict=True) if missing)
        wanted = f"; {len(there)} are there, at least {max(min_leads, 1)} are wanted"
        if not len(there) and len(ecg.missing_leads) < len(LEADS):
            raise ReadError(f"{_name(ecg)}: no lead has a sample in the part used", "gaps_too_long")
        raise ReadError(f"{_name(ecg)}: leads missing: {listed}{wanted}", "missing_leads")
    return there if gone.any() else None


def _name(ecg: ECG) -> str:
    return str(ecg.metadata.get("source_file", "recording"))


def _filter_reach(ratio: Fraction) -> int:
    """Input samples that one output sample looks ahead."""
    return 0 if ratio == 1 else -(-FILTER_REACH * max(ratio.numerator, ratio.denominator) // ratio.numerator) + 1


def _samples_needed(samples: int, ratio: Fraction) -> int:
    return -(-samples * ratio.denominator // ratio.numerator) + 2 * _filter_reach(ratio)


@lru_cache(maxsize=64)
def low_pass(ratio: Fraction) -> np.ndarray:
    """Linear-phase low-pass at the lower of the two Nyquist frequencies, 80 dB; SciPy's default reaches 55 dB."""
    from scipy.signal import firwin

    longest = max(ratio.numerator, ratio.denominator)
    return np.asarray(firwin(2 * FILTER_REACH * longest + 1, 1 / longest, window=("kaiser", 8.0)))


class _Band(NamedTuple):
    """The resampling filter as matrices: what a block of input samples, and the next one, give to a block of output.

    Attributes:
        own: float64 (size, block), of the block's ``size`` samples.
        following: float64 (at most size, block), of the first samples of the next block.
        reach: input samples before the first output sample that the first block begins with.
    """

    own: np.ndarray
    following: np.ndarray
    reach: int


@lru_cache(maxsize=16)
def _band(ratio: Fraction) -> _Band:
    up, down = ratio.numerator, ratio.denominator
    taps = up * low_pass(ratio)
    reach = (len(taps) // 2) // up + 1
    periods = -(-(2 * reach + 1) // down)  # a block is so long that an output sample sees two of them at most
    size = periods * down
    at = len(taps) // 2 + down * np.arange(periods * up) - up * (np.arange(2 * size)[:, None] - reach)
    band = np.where((at >= 0) & (at < len(taps)), taps[np.clip(at, 0, len(taps) - 1)], 0.0)
    last = int(np.flatnonzero(band.any(axis=1))[-1])
    return _Band(band[:size].copy(), band[size : last + 1].copy(), reach)


def resample(signal: np.ndarray, ratio: Fraction) -> np.ndarray:
    """Resample (..., n) by ``ratio`` (new / old rate) with a polyphase filter; float32, ceil(n * ratio) samples.

    Beyond its ends the recording is continued by its point reflection, which keeps level and slope, so that an offset
    does not ring there; the mean is set aside meanwhile, because a filter turns an offset into a (small) ripple.

    For usual ratios it is a matrix product in float64: four times as fast as SciPy's loop, and equal but for the
    rounding of float64.
    """
    mean = signal.mean(axis=-1, keepdims=True, dtype=np.float64)
    n = signal.shape[-1]
    if max(ratio.as_integer_ratio()) > _LARGEST_STEP or n <= _filter_reach(ratio):
        from scipy.signal import resample_poly

        step, window = ratio.as_integer_ratio(), low_pass(ratio)
        return np.asarray(
            resample_poly(signal - mean, *step, axis=-1, window=window, padtype="antireflect") + mean, np.float32
        )
    moved = _filtered(signal.reshape(-1, n), mean.reshape(-1, 1), ratio)
    return moved.astype(np.float32).reshape(*signal.shape[:-1], moved.shape[-1])


def _filtered(signal: np.ndarray, mean: np.ndarray, ratio: Fraction) -> np.ndarray:
    """Float64 (rows, n) at the new rate, in blocks."""
    own, following, reach = _band(ratio)
    size, block = own.shape
    rows, n = signal.shape
    out = -(-n * ratio.numerator // ratio.denominator)
    end = reach + n
    x = np.empty((rows, (-(-out // block) + 1) * size))
    np.subtract(signal, mean, out=x[:, reach:end])
    x[:, :reach] = 2 * x[:, reach : reach + 1] - x[:, 2 * reach : reach : -1]
    x[:, end : end + reach] = 2 * x[:, end - 1 : end] - x[:, end - 2 : end - 2 - reach : -1]
    x[:, end + reach :] = 0
    x = x.reshape(-1, size)
    y = np.empty((len(x), block))
    step = max(4, _ONE_THREAD // own.size)
    for begin in range(0, len(x), step):
        np.matmul(x[begin : begin + step], own, out=y[begin : begin + step])
        after = x[begin + 1 : begin + 1 + step, : len(following)] @ following
        y[begin : begin + len(after)] += after
    moved = y.reshape(rows, -1)[:, :out]
    moved += mean
    return moved


def _repair(
    ecg: ECG,
    signal: np.ndarray,
    bad: np.ndarray,
    rule: str,
    names: Sequence[str],
    partial: Mapping[int, tuple[int, int]],
) -> tuple[np.ndarray, int]:
    """The signal without gaps, and how many samples were filled; of the rows ``partial`` only those in the stretch."""
    if not bad.any():
        return signal, 0
    if rule == "published":
        repaired = repair_published(signal)
        left = ~np.isfinite(repaired)
        if left.any():
            raise ReadError(
                f"{_name(ecg)}: {int(left.any(axis=0).sum())} samples have no finite neighbour within "
                f"{PUBLISHED_NEIGHBOURS} samples in any lead",
                "gaps_too_long",
            )
        return repaired, int(bad.sum())
    n = signal.shape[1]
    filled = 0
    for row in np.flatnonzero(bad.any(axis=1)).tolist():
        gaps = bad[row, slice(*partial.get(row, (0, n)))]
        if not gaps.any():
            continue
        begins, ends = runs(gaps)
        longest = int((ends - begins).max())
        share = float(gaps.mean())
        filled += int(gaps.sum())
        if longest > MAX_GAP_SECONDS * ecg.fs or share > MAX_GAP_FRACTION:
            raise ReadError(
                f"{_name(ecg)}: lead {names[row]} lacks {100 * share:.0f} % of its samples, "
                f"{longest / ecg.fs:.2f} s at a stretch; up to {100 * MAX_GAP_FRACTION:.0f} % and "
                f"{MAX_GAP_SECONDS:g} s are filled",
                "gaps_too_long",
            )
    repaired = signal.copy()
    time = np.arange(n)
    for row in np.flatnonzero(bad.any(axis=1)):
        good = ~bad[row]
        repaired[row, bad[row]] = np.interp(time[bad[row]], time[good], signal[row, good])
    return repaired, filled


def repair_published(signal: np.ndarray) -> np.ndarray:
    """The repair of the published pipeline, as we read SPEC §2 and §6: neighbours over all leads.

    Each non-finite sample becomes the mean of the finite samples at most six samples away in *all* leads. It mixes
    leads (a gap in V1 is filled with limb leads too), which is why it is not the default. A sample without any finite
    neighbour stays as it is.

    Args:
        signal: float32 (leads, n).

    Returns:
        A repaired copy, float32 (leads, n).
    """
    bad = ~np.isfinite(signal)
    finite = np.where(bad, 0.0, signal.astype(np.float64)).sum(axis=0)
    count = (~bad).sum(axis=0)
    n = signal.shape[1]
    first = np.maximum(np.arange(n) - PUBLISHED_NEIGHBOURS, 0)
    last = np.minimum(np.arange(n) + PUBLISHED_NEIGHBOURS + 1, n)
    sums, counts = np.concatenate(([0.0], np.cumsum(finite))), np.concatenate(([0], np.cumsum(count)))
    around = counts[last] - counts[first]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (sums[last] - sums[first]) / around
    return np.where(bad & (around > 0), mean, signal).astype(np.float32)


def _provenance_flags(ecg: ECG, missing: Sequence[str]) -> list[str]:
    flags = list(ecg.metadata.get("warnings", {}))
    flags += [f"derived_lead:{lead}" for lead in ecg.metadata.get("derived_leads", {}) if lead not in missing]
    return flags + [f"missing_lead:{lead}" for lead in missing]


def _amplitude_flags(ecg: ECG, signal: np.ndarray, names: Sequence[str]) -> list[str]:
    span = np.ptp(signal, axis=1)
    if not span.any():
        raise ReadError(f"{_name(ecg)}: every lead is flat", "flat_record")
    if span.max() < NO_ECG_MILLIVOLT:
        raise ReadError(
            f"{_name(ecg)}: no lead spans more than {1000 * float(span.max()):.3g} µV; "
            "is the unit or the gain in its header right?",
            "amplitude_out_of_range",
        )
    flags = [f"flat_lead:{lead}" for lead, value in zip(names, span, strict=True) if value < FLAT_MILLIVOLT]
    return flags + (["low_amplitude"] if span.max() < LOW_MILLIVOLT else [])
