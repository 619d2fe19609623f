"""What is suspicious about a recording that can be used: clipped or contradicting leads, a doubtful time scale or unit.

Every check begins with a test that costs microseconds and passes nearly every recording; only a suspect is looked at
closely. The checks see the samples as they were recorded, before resampling, which would round off every corner.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from deri.ecg.leads import LEADS
from deri.errors import ReadError

if TYPE_CHECKING:
    from deri.ecg.recording import ECG
    from deri.ecg.standardise import Standardised

CLIP_SECONDS = 0.008
"""Equal samples at the extreme of a lead for this long (at least three of them) are a flat top."""
CLIP_RUNS = 3
"""Flat tops from which on a lead is clipped: one may be chance, or a pulse of the device."""
CLIP_EDGE = 0.02
"""Beyond a flat top the lead falls by this share of its span within half the length of the top, or it is round."""
CLIP_MILLIVOLT = 0.1
"""A lead that spans less has too few levels to tell."""
CLIP_LEVEL = 0.25
"""A lead is clipped at a level this share of its span away from its median: a baseline at rest is no flat top."""

RAIL_MILLIVOLT = 2.0
RAIL_TOLERANCE = 0.001
RAIL_SECONDS = 0.2

# On 670 real recordings of good quality half the width of a QRS complex's slopes is 0.017 to 0.064 s (median 0.033),
# and the rate per minute divided by it 370 to 10,900 (median 2,000).
NARROW_SECONDS = 0.020
WIDE_SECONDS = 0.072
NARROW_RATIO = 13_000.0
WIDE_RATIO = 450.0
_BEAT_LEADS = [LEADS.index(lead) for lead in ("II", "V2", "V5")]
_BEAT_FS = 250.0
_MEANS_TO_TOP = 4.0  # the slopes of a QRS complex are about this many times the mean slope of a lead
_PERIODIC = 0.3

_LEAD_FS = 125.0
_CONTRADICTION = 0.25
"""Of 285 real recordings none breaks a law of the limb leads by more than 0.06 of the largest limb lead's slopes."""
_AGREEMENT = 0.12
_OPPOSITE = -0.5
"""Correlation of slopes below which leads are opposite; in 2 of 3,175 recordings of PTB-XL, I is that of V5 and V6."""
_DEAD = 0.01
# I + III = II, and Goldberger's augmented leads as sums of I, II and III.
_LAWS = np.array(
    [[1, -1, 1, 0, 0, 0], [0.5, 0.5, 0, 1, 0, 0], [-0.5, 0, 0.5, 0, 1, 0], [0, -0.5, -0.5, 0, 0, 1]], np.float32
)

_REVERSALS = ("arm_reversal", "arm_leg_reversal")
"""What it is where lead I, lead II is the opposite of V5 and V6."""

UNIT_RANGE = (0.45, 4.0)
"""Median over the leads of the span (0.5 % to 99.5 %) of 98 % of real recordings, mV, with a margin."""


def quality_flags(signal: np.ndarray, fs: float, *, mv_per_unit: float = 1.0) -> tuple[str, ...]:
    """Return what is suspicious about the samples of a recording.

    - ``clipped:LEAD``: at least three flat tops at the same extreme. A flat top is a run of equal samples of 8 ms or
      more with steep flanks. A rounded top of a coarsely quantised lead has no steep flank, and a baseline at rest is
      too near the median.
    - ``saturated:LEAD``: at least 0.2 s without interruption at an extreme beyond ±2 mV (within 0.1 % of it), as at the
      rail of an amplifier, a converter or a number format.
    - ``implausible_rate``: the time scale of the beats is not that of a heart, which points to a wrong sampling rate.
      Two signs must agree: the slopes of the QRS complexes are shorter (longer) than those of a heart, and beats are
      too frequent (rare) for slopes of that length. The rate alone says little: 70/min read at four times the
      sampling rate is 280/min, which exists.
    - those of :func:`lead_flags`.

    Args:
        signal: (12, n), integers or floats, at least 2 s; leads in the order of ``LEADS``; NaN where nothing was
            recorded.
        fs: sampling rate in Hz.
        mv_per_unit: mV per unit of ``signal``.

    Returns:
        The codes, in the order above, leads in the order of ``LEADS``.
    """
    if signal.dtype.kind == "f":
        high, low = np.fmax.reduce(signal, axis=1), np.fmin.reduce(signal, axis=1)
    else:
        high, low = signal.max(axis=1), signal.min(axis=1)
    flags = [f"clipped:{LEADS[row]}" for row in _clipped(signal, fs, high, low, mv_per_unit)]
    flags += [f"saturated:{LEADS[row]}" for row in _saturated(signal, fs, high, low, mv_per_unit)]
    if _implausible_rate(signal, fs):
        flags.append("implausible_rate")
    return (*flags, *lead_flags(signal, fs))


def lead_flags(signal: np.ndarray, fs: float) -> tuple[str, ...]:
    """Return whether leads contradict each other, looked at by their slopes, which show QRS complexes and no wandering.

    - ``inverted_lead:X``: the limb leads obey Einthoven (I + III = II) and Goldberger with the opposite sign of X only;
      or the chest lead X is the opposite of both its neighbours (V6: of V4 and V5), which agree.
    - ``limb_leads_contradict``: they obey neither as they are nor with one sign changed: leads exchanged or mixed up.
    - ``arm_reversal``: the limb leads obey, but lead I is the opposite of V5 and V6, as with the arm electrodes
      exchanged (and in a mirrored heart).
    - ``arm_leg_reversal``: so is lead II, as with the electrodes of the right arm and the left leg exchanged. Where
      both leads are, the more opposite one decides.

    Args:
        signal: (12, n), integers or floats; NaN where nothing was recorded. Without all limb leads nothing is said.
        fs: sampling rate in Hz.
    """
    slopes = _lead_slopes(signal, fs)
    if slopes is None:
        return ()
    power = slopes @ slopes.T
    size = np.sqrt(np.diag(power))
    limit = float(size[:6].max())
    if not limit > 0:
        return ()
    flags = []
    # A dead lead breaks every law and is flagged as such.
    laws = _LAWS[(_LAWS[:, size[:6] < _DEAD * limit] == 0).all(axis=1)]
    if _broken(laws, power, limit) > _CONTRADICTION:
        turned = []
        for row in range(6):
            sign = np.ones(len(LEADS), np.float32)
            sign[row] = -1
            turned.append(_broken(laws, power * np.outer(sign, sign), limit))
        best = int(np.argmin(turned))
        flags.append(f"inverted_lead:{LEADS[best]}" if turned[best] < _AGREEMENT else "limb_leads_contradict")
    alike = power / np.maximum(np.outer(size, size), np.float32(1e-30))
    lateral = [row for row in (10, 11) if size[row] > 0]
    if not flags and lateral:
        code, most = min(zip(_REVERSALS, alike[:2, lateral].max(axis=1), strict=True), key=lambda one: one[1])
        flags += [code] if most < _OPPOSITE else []
    for row in range(7, 12):
        first, second = (row - 1, row + 1) if row < 11 else (9, 10)
        if max(alike[row, first], alike[row, second]) < _OPPOSITE and alike[first, second] > 0:
            flags.append(f"inverted_lead:{LEADS[row]}")
    return tuple(flags)


def _lead_slopes(signal: np.ndarray, fs: float) -> np.ndarray | None:
    """Slopes of the leads at about 125 Hz, float32 (12, m); None where a limb lead is missing."""
    part = signal[:, :: max(1, round(fs / _LEAD_FS))].astype(np.float32)
    slopes = part[:, 1:] - part[:, :-1]
    finite = np.isfinite(slopes)
    if not finite.all():
        there = finite.any(axis=1)
        if not there[:6].all():
            return None
        slopes = np.where(finite[there].all(axis=0), slopes, np.float32(0))
        slopes[~there] = 0
    return slopes if slopes.shape[1] else None


def _broken(laws: np.ndarray, power: np.ndarray, limit: float) -> float:
    """By how much the leads break a law of the limb leads, as a share of the largest limb lead's slopes."""
    left = float(((laws @ power[:6, :6]) * laws).sum(axis=1).max(initial=0.0))
    return math.sqrt(max(left, 0.0)) / limit


def _clipped(signal: np.ndarray, fs: float, high: np.ndarray, low: np.ndarray, mv_per_unit: float) -> list[int]:
    length = max(3, round(CLIP_SECONDS * fs))
    # A run of ``length`` samples has one at a multiple of ``length``; a lead is looked at where there are enough.
    few = np.ascontiguousarray(signal[:, ::length])
    rows: set[int] = set()
    for extreme in (high, low):
        at = np.flatnonzero(few == extreme[:, None])
        if len(at) < CLIP_RUNS:
            continue
        counts = np.bincount(at // few.shape[1], minlength=len(LEADS))
        for row in np.flatnonzero(counts >= CLIP_RUNS).tolist():
            span = (float(high[row]) - float(low[row])) * mv_per_unit
            if span >= CLIP_MILLIVOLT and _flat_tops(signal[row], float(extreme[row]), length):
                rows.add(row)
    return sorted(rows)


def runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first positions, and the ones after the last, of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return edges[::2], edges[1::2]


def _flat_tops(lead: np.ndarray, extreme: float, length: int) -> bool:
    at = np.flatnonzero(lead == extreme)
    if len(at) < CLIP_RUNS * length:
        return False
    ends = np.flatnonzero(at[1:] - at[:-1] > 1)
    begin, end = at[np.concatenate(([0], ends + 1))], at[np.concatenate((ends, [-1]))] + 1
    long = end - begin >= length
    begin, end = begin[long], end[long]
    if len(begin) < CLIP_RUNS:
        return False
    depth = np.abs(lead.astype(np.float64) - extreme)
    span = np.nanmax(depth)
    if np.nanmedian(depth) < CLIP_LEVEL * span:
        return False
    # A parabola quantised to steps q is flat for as long as it is within q of its top; as far again to either side
    # it is down by a few q only.
    reach = np.maximum((end - begin) // 2, 2)
    inside = (begin >= reach) & (end - 1 + reach < len(lead))
    before, after = depth[(begin - reach)[inside]], depth[(end - 1 + reach)[inside]]
    steep = np.fmin(before, after) >= CLIP_EDGE * span
    return int(steep.sum()) >= CLIP_RUNS


def _saturated(signal: np.ndarray, fs: float, high: np.ndarray, low: np.ndarray, mv_per_unit: float) -> list[int]:
    stride = max(1, int(RAIL_SECONDS * fs / 4))
    rows: set[int] = set()
    for extremes, sign in ((high, 1), (low, -1)):
        for row, extreme in enumerate(extremes.tolist()):
            if not RAIL_MILLIVOLT <= abs(extreme) * mv_per_unit < np.inf:
                continue
            inner = extreme - sign * RAIL_TOLERANCE * abs(extreme)
            if signal.dtype.kind != "f":  # to compare integers with a float would copy them
                inner = math.ceil(inner) if sign > 0 else math.floor(inner)
            at_rail = np.greater_equal if sign > 0 else np.less_equal
            if np.count_nonzero(at_rail(signal[row, ::stride], inner)) < 3:
                continue
            begin, end = runs(at_rail(signal[row], inner))
            if (end - begin).max(initial=0) >= RAIL_SECONDS * fs:
                rows.add(row)
    return sorted(rows)


def _implausible_rate(signal: np.ndarray, fs: float) -> bool:
    slope, rate = beat_slopes(signal, fs)
    n = len(slope)
    narrow, wide = (max(1, round(seconds * rate)) for seconds in (NARROW_SECONDS, WIDE_SECONDS))
    if n < 4 * wide:
        return False
    centred = slope - np.float32(np.add.reduce(slope) / n)
    power = float(centred @ centred)
    if not power > 0:
        return False
    is_narrow = float(centred[:-narrow] @ centred[narrow:]) < 0.5 * power
    is_wide = float(centred[:-wide] @ centred[wide:]) > 0.5 * power
    if not (is_narrow or is_wide):
        return False
    found = beats(centred, rate)
    if found is None:
        return False
    per_minute, width = found
    return per_minute / width > NARROW_RATIO if is_narrow else per_minute / width < WIDE_RATIO


def beat_slopes(signal: np.ndarray, fs: float) -> tuple[np.ndarray, float]:
    """Return the steepness of II, V2 and V5 together over time, and its sampling rate (about 250 Hz).

    Float32 (m,). Each lead counts relative to its own mean slope and within bounds, so that units, gains and single
    spikes do not matter.
    """
    step = max(1, round(fs / _BEAT_FS))
    part = signal[_BEAT_LEADS, ::step].astype(np.float32)
    slope = part[:, 2:] - part[:, :-2]
    np.abs(slope, out=slope)
    means = _means(slope)
    if not all(map(math.isfinite, means)):
        np.nan_to_num(slope, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        means = _means(slope)
    # All leads at once: for so few samples NumPy takes longer to begin than to compute.
    np.minimum(slope, np.array([[2 * _MEANS_TO_TOP * mean] for mean in means], np.float32), out=slope)
    slope *= np.array([[1 / mean if mean > 0 else 0.0] for mean in means], np.float32)
    total = slope[0] + slope[1]
    total += slope[2]
    smooth = total[:-4] + total[1:-3]
    smooth += total[2:-2]
    smooth += total[3:-1]
    smooth += total[4:]
    return smooth, fs / step


def _means(rows: np.ndarray) -> list[float]:
    # np.mean takes several times as long for its Python code as for its sums.
    sums: list[float] = np.add.reduce(rows, axis=-1).tolist()
    return [total / rows.shape[-1] for total in sums]


def beats(centred: np.ndarray, fs: float) -> tuple[float, float] | None:
    """Return how often per minute the slopes repeat, and half the width (s) of a complex, by their autocorrelation.

    The width is the lag at which it falls to a half, the rate that of its first high peak. None where nothing repeats:
    noise, asystole, a single beat.
    """
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    correlation = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)[: int(0.9 * n)]
    correlation /= correlation[0]
    half, low = (np.flatnonzero(correlation < level)[:1] for level in (0.5, 0.2))
    if not low.size:
        return None
    k = int(half[0])
    before, after = float(correlation[k - 1]), float(correlation[k])
    width = (k - 1 + (before - 0.5) / (before - after)) / fs
    # The two flanks of one complex follow each other at about three times this: peaks count from four times on.
    start = max(int(low[0]), 4 * k)
    beyond = correlation[start:]
    highest = float(beyond.max(initial=0.0))
    if highest < _PERIODIC:
        return None
    # The second period may come out higher than the first: the earliest peak that is nearly as high counts.
    peaks = np.flatnonzero((beyond[1:-1] >= beyond[:-2]) & (beyond[1:-1] > beyond[2:]) & (beyond[1:-1] > 0.7 * highest))
    lag = start + (1 + int(peaks[0]) if peaks.size else int(beyond.argmax()))
    return 60.0 * fs / lag, width


def wrong_unit(signal: np.ndarray) -> str | None:
    """Return which unit the values of a recording were probably written in, where it is not mV.

    For recordings whose amplitude is no heart's. µV taken for mV are a thousand times too large, V taken for mV a
    thousand times too small; other factors are no wrong unit but a wrong gain.

    Args:
        signal: (12, n), said to be mV; NaN where nothing was recorded.

    Returns:
        ``"µV"``, ``"V"`` or None: the values would not be those of a usual ECG in either unit.
    """
    there = signal[np.isfinite(signal).any(axis=1)].astype(np.float64)
    if not len(there):
        return None
    low, high = np.nanpercentile(there, (0.5, 99.5), axis=1)
    span = float(np.median(high - low))
    least, most = UNIT_RANGE
    for unit, factor in (("µV", 1e-3), ("V", 1e3)):
        if least <= span * factor <= most:
            return unit
    return None


def refuse_wrong_unit(ecg: ECG, windows: Iterable[Standardised]) -> Iterator[Standardised]:
    """Pass on the windows of a recording, unless its amplitudes are those of another unit.

    Recordings of a possible amplitude are passed on without a look: the refusals of amplitude and the flag
    ``low_amplitude`` point to the suspects.

    Raises:
        ReadError: ``wrong_unit``; and whatever the windows raise.
    """
    try:
        for number, window in enumerate(windows):
            if not number and "low_amplitude" in window.flags:
                _check_unit(ecg)
            yield window
    except ReadError as error:
        if error.reason == "amplitude_out_of_range":
            _check_unit(ecg)
        raise


def _check_unit(ecg: ECG) -> None:
    unit = wrong_unit(ecg.signal[:, : round(10 * ecg.fs)])
    if unit is not None:
        large = "large" if unit == "µV" else "small"
        raise ReadError(
            f"{ecg.metadata.get('source_file', 'recording')}: amplitudes are a thousand times too {large}: values that "
            f"are said to be mV are probably {unit}; correct the unit or the gain in the file",
            "wrong_unit",
        )
