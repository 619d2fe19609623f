"""Intervals, amplitudes and rhythm of an ECG, as an ECG machine measures them.

Not a diagnostic algorithm: beats are found by the energy of the QRS band over all leads, intervals and
amplitudes are measured in the median beat, rhythm in the RR intervals, fibrillation and flutter waves in the spectrum
of what is left when the median beat is taken out. What cannot be measured is NaN.
"""

from __future__ import annotations

import numpy as np

from deri.ecg.leads import LEADS
from deri.ecg.recording import ECG
from deri.ecg.standardise import standardise

VERSION = 1
"""Of the features; part of the identity of results."""

_RHYTHM = (
    "rate", "rr_mean", "rr_sd", "rr_cv", "rmssd", "rr_shortest", "rr_longest", "rr_early_share", "rr_alternation",
)  # fmt: skip
_BEAT = (
    "qrs_ms", "pr_ms", "qt_ms", "qtc_ms", "axis_deg", "axis_cos", "axis_sin", "t_axis_cos", "t_axis_sin",
    "p_to_noise", "beat_corr_mean", "beat_corr_min", "beat_odd_share", "sokolow_lyon", "v1_r_share",
    "limb_low_voltage", "chest_low_voltage", "steepest",
)  # fmt: skip
_PER_LEAD = ("p", "q", "r", "s", "net", "st", "t")
_BANDS = ((0.5, 3.0), (3.0, 9.0), (9.0, 15.0), (15.0, 40.0))
_SPECTRUM = (*(f"power_{low:g}_{high:g}" for low, high in _BANDS), "residual_rms", "residual_peak_hz", "residual_peak")
_SPECTRUM_LEADS = ("II", "V1")

FEATURE_NAMES = (
    *_RHYTHM,
    *_BEAT,
    *(f"{name}_{lead}" for lead in LEADS for name in _PER_LEAD),
    *(f"{name}_{lead}" for lead in _SPECTRUM_LEADS for name in _SPECTRUM),
)
"""Names of the features, in order: seconds, mV, mV s (net), ms, Hz, degrees or shares."""

NEEDS = {
    **{f"{name}_{lead}": (lead,) for lead in LEADS for name in (*_PER_LEAD, *_SPECTRUM)},
    **dict.fromkeys(("axis_deg", "axis_cos", "axis_sin", "t_axis_cos", "t_axis_sin"), ("I", "aVF")),
    "sokolow_lyon": ("V1", "V5", "V6"),
    "v1_r_share": ("V1",),
    "limb_low_voltage": LEADS[:6],
    "chest_low_voltage": LEADS[6:],
}
"""Leads without which a feature cannot be measured; the others come from whatever leads there are."""

_RATE = 250.0  # Hz, at which all but the steepest slope is measured
BEFORE, AFTER = 0.35, 0.45
"""s of a beat before and after the middle of its QRS complex."""
APART, SHARE, WINDOW = 0.24, 0.35, 1.5
"""A beat: s to a higher one at least, share of the typical peak, and s in which the typical one is looked for."""
_FLAT = 0.003  # mV per sample at 250 Hz; a lead set without any steeper slope has no beats


def find_beats(signal: np.ndarray, fs: float) -> np.ndarray:
    """Samples at which QRS complexes lie: (beats,) int64, ascending.

    The root of the summed squared slopes of all leads in the band 5–20 Hz, averaged over 80 ms; a beat is a peak of at
    least 0.35 of the typical one (median over windows of 1.5 s of their maxima), 240 ms or more from a higher one.

    Args:
        signal: (leads, n) mV.
        fs: Hz.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, find_peaks, sosfiltfilt

    n = signal.shape[1]
    if n < fs:
        return np.zeros(0, np.int64)
    band = sosfiltfilt(butter(2, (5, 20), "bandpass", fs=fs, output="sos"), signal, axis=1)
    slope = np.sqrt((np.diff(band, axis=1, append=band[:, -1:]) ** 2).sum(axis=0))
    energy = uniform_filter1d(slope, max(1, round(0.08 * fs)), mode="constant")
    window = round(WINDOW * fs)
    tops = [energy[i : i + window].max() for i in range(0, max(1, n - window // 2), window)]
    typical = float(np.median(tops))
    if typical < _FLAT * _RATE / fs:
        return np.zeros(0, np.int64)
    found, _ = find_peaks(energy, height=SHARE * typical, distance=max(1, round(APART * fs)))
    return found.astype(np.int64)


INTERVALS = {"rate_bpm": "rate", "pr_ms": "pr_onset_ms"} | {k: k for k in ("qrs_ms", "qt_ms", "qtc_ms", "axis_deg")}
"""What people read of a recording, by the value that it is; PR begins where P does, unlike the feature ``pr_ms``."""


def intervals(ecg: ECG) -> dict[str, float | None]:
    """Rate (1/min), PR, QRS, QT and QTc (ms) and axis (degrees) of a recording; None where one cannot be measured.

    Of a recording longer than a minute the first one is measured.

    Raises:
        ReadError: the recording cannot be used, see :func:`deri.ecg.standardise`.
    """
    used = standardise(ecg, _RATE, round(min(ecg.duration, 60) * _RATE))
    printed = any(flag.startswith("partial_lead") for flag in used.flags)
    return signal_intervals(used.signal[:, : used.valid_samples], _RATE, used.lead_mask, printed)


def signal_intervals(signal: np.ndarray, fs: float, lead_mask: np.ndarray, printed: bool) -> dict[str, float | None]:
    """:func:`intervals` of a standardised signal (12, n) in mV; arguments as for :func:`known_features`."""
    values = {} if printed else _measure(signal, fs)
    there = {LEADS[i] for i in np.flatnonzero(lead_mask)}
    known = {name: values.get(of, np.nan) for name, of in INTERVALS.items() if there.issuperset(NEEDS.get(of, ()))}
    return {name: known[name] if np.isfinite(known.get(name, np.nan)) else None for name in INTERVALS}


def known_features(values: np.ndarray, lead_mask: np.ndarray, printed: bool) -> np.ndarray:
    """Features with NaN for those that need a lead which is not there (12,), and for all of a printed layout."""
    needs = np.array([[lead in NEEDS.get(name, ()) for name in FEATURE_NAMES] for lead in LEADS])
    # In a printed layout the edges of the strips would be measured.
    return np.where((~lead_mask @ needs) | printed, np.nan, values)


def ecg_features(signal: np.ndarray, fs: float) -> np.ndarray:
    """Features (len(FEATURE_NAMES),) float64 of one recording (12, n) in mV, canonical leads; see FEATURE_NAMES."""
    values = _measure(signal, fs)
    return np.array([values.get(name, np.nan) for name in FEATURE_NAMES])


def _measure(signal: np.ndarray, fs: float) -> dict[str, float]:
    values: dict[str, float] = {}
    if signal.shape[1] > 1:
        values["steepest"] = float(np.abs(np.diff(signal, axis=1)).max() * fs / 1000)  # mV per ms; pacing spikes
    step = max(1, round(fs / _RATE))
    n = signal.shape[1] // step
    x = signal[:, : n * step].reshape(len(signal), n, step).mean(axis=2, dtype=np.float64)
    rate = fs / step
    beats = find_beats(x, rate)
    values |= _rhythm(np.diff(beats) / rate)
    first, last = round(BEFORE * rate), round(AFTER * rate)
    whole = beats[(beats >= first) & (beats + last <= n)]
    residual = x - np.median(x, axis=1, keepdims=True) if n else x
    if len(whole):
        cut = np.stack([x[:, b - first : b + last] for b in whole])
        beat = np.median(cut, axis=0)
        rr = float(np.median(np.diff(beats))) / rate if len(beats) > 1 else 1.0
        values |= _beat(beat, first, rate, rr)
        values |= _alike(cut, beat, first, rate)
        residual = _without_beats(x, beats, beat, first, last)
    values |= _spectra(x, residual, rate)
    return values


def _rhythm(rr: np.ndarray) -> dict[str, float]:
    if not len(rr):
        return {}
    middle = float(np.median(rr))
    values = {
        "rate": 60 / middle,
        "rr_mean": float(rr.mean()),
        "rr_shortest": float(rr.min() / middle),
        "rr_longest": float(rr.max() / middle),
        "rr_early_share": float((rr < 0.85 * middle).mean()),
    }
    if len(rr) > 2:
        change = np.diff(rr)
        values |= {
            "rr_sd": float(rr.std(ddof=1)),
            "rr_cv": float(rr.std(ddof=1) / rr.mean()),
            "rmssd": float(np.sqrt((change**2).mean())),
            "rr_alternation": float(np.corrcoef(rr[:-1], rr[1:])[0, 1]) if rr[:-1].std() * rr[1:].std() > 0 else 0.0,
        }
    return values


def _beat(beat: np.ndarray, centre: int, fs: float, rr: float) -> dict[str, float]:
    """Intervals, axes and amplitudes of the median beat (12, samples) with its QRS complex at ``centre``."""
    n = beat.shape[1]

    def at(seconds: float) -> int:
        return int(np.clip(centre + round(seconds * fs), 0, n - 1))

    speed = np.abs(np.gradient(beat, axis=1)).sum(axis=0)
    near = slice(at(-0.12), at(0.14))
    steep = np.flatnonzero(speed[near] > 0.15 * speed[near].max()) + near.start
    on, off = int(steep[0]), int(steep[-1]) + 1
    base = beat[:, max(0, on - round(0.03 * fs)) : max(1, on - round(0.01 * fs))].mean(axis=1)
    level = beat - base[:, None]
    qrs = level[:, on : max(off, on + 1)]
    t_first, t_last = min(off + round(0.06 * fs), n - 2), max(at(min(AFTER, 0.65 * rr)), off + round(0.06 * fs) + 2)
    t_wave = level[:, t_first : min(t_last, n)]
    p_first, p_last = at(-min(0.32, 0.45 * rr)), max(on - round(0.02 * fs), at(-0.3) + 2)
    p_wave = level[:, min(p_first, p_last - 2) : p_last]
    top = qrs.argmax(axis=1)
    amplitude = {
        "r": qrs.max(axis=1),
        "s": np.array([lead[k:].min() for lead, k in zip(qrs, top, strict=True)]),
        "q": np.array([lead[: k + 1].min() for lead, k in zip(qrs, top, strict=True)]),
        "net": qrs.sum(axis=1) / fs,
        "st": level[:, min(off + round(0.03 * fs), n - 1) : min(off + round(0.05 * fs), n - 1) + 1].mean(axis=1),
        "t": _extreme(t_wave),
        "p": _extreme(p_wave),
    }
    values = {f"{name}_{lead}": float(amplitude[name][i]) for name in _PER_LEAD for i, lead in enumerate(LEADS)}
    row = {lead: i for i, lead in enumerate(LEADS)}
    for name, wave in (("axis", "net"), ("t_axis", "t")):
        # aVF is 2/√3 of a lead of unit length at 90 degrees.
        angle = np.arctan2(amplitude[wave][row["aVF"]] * 2 / np.sqrt(3), amplitude[wave][row["I"]])
        values |= {f"{name}_cos": float(np.cos(angle)), f"{name}_sin": float(np.sin(angle))}
        if name == "axis":
            values["axis_deg"] = float(np.degrees(angle))
    reach = qrs.max(axis=1) - qrs.min(axis=1)
    r, s = amplitude["r"], amplitude["s"]
    t_speed = np.abs(t_wave).sum(axis=0)
    peak = int(t_speed.argmax())
    low = np.flatnonzero(t_speed[peak:] < 0.25 * t_speed[peak])
    qt = (t_first + peak + (int(low[0]) if len(low) else len(t_speed) - peak) - on) / fs
    p_size = np.abs(p_wave - np.median(p_wave, axis=1, keepdims=True)).sum(axis=0)
    p_top = int(p_size.argmax())
    before_p = np.flatnonzero(p_size[: p_top + 1] < 0.25 * p_size[p_top])
    # A top at an end of where P is looked for is the foot of the QRS complex, or of the T wave before.
    p_found = len(before_p) > 0 and p_top < len(p_size) - round(0.02 * fs)
    p_on = min(p_first, p_last - 2) + (int(before_p[-1]) + 1 if p_found else 0)
    return (
        values
        | {
            "qrs_ms": 1000 * (off - on) / fs,
            "pr_ms": 1000 * (on - (min(p_first, p_last - 2) + p_top)) / fs,  # from the peak of P
            "pr_onset_ms": 1000 * (on - p_on) / fs if p_found else np.nan,
            "qt_ms": 1000 * qt,
            "qtc_ms": 1000 * qt / np.sqrt(rr),
            "p_to_noise": float(p_size.max() / (np.median(p_size) + 1e-3)),
            "sokolow_lyon": float(max(r[row["V5"]], r[row["V6"]]) - s[row["V1"]]),
            "v1_r_share": float(r[row["V1"]] / (r[row["V1"]] - s[row["V1"]] + 1e-3)),
            "limb_low_voltage": float(reach[:6].max()),
            "chest_low_voltage": float(reach[6:].max()),
        }
    )


def _extreme(wave: np.ndarray) -> np.ndarray:
    """The value farthest from zero in each lead, with its sign."""
    return wave[np.arange(len(wave)), np.abs(wave).argmax(axis=1)]


def _alike(cut: np.ndarray, beat: np.ndarray, centre: int, fs: float) -> dict[str, float]:
    """How alike the beats (beats, 12, samples) are to their median, around the QRS complex."""
    near = slice(max(0, centre - round(0.1 * fs)), centre + round(0.14 * fs))
    a = (cut[:, :, near] - cut[:, :, near].mean(axis=2, keepdims=True)).reshape(len(cut), -1)
    b = (beat[:, near] - beat[:, near].mean(axis=1, keepdims=True)).ravel()
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
    alike = np.divide(a @ b, size, out=np.zeros(len(a)), where=size > 0)
    return {
        "beat_corr_mean": float(alike.mean()),
        "beat_corr_min": float(alike.min()),
        "beat_odd_share": float((alike < 0.8).mean()),
    }


def _without_beats(x: np.ndarray, beats: np.ndarray, beat: np.ndarray, first: int, last: int) -> np.ndarray:
    """The recording less the median beat at every beat; between beats it is taken about its own ends."""
    rest = x - np.median(x, axis=1, keepdims=True)
    template = beat - np.median(x, axis=1, keepdims=True)
    end = 0
    for i, b in enumerate(beats):
        begin = max(0, b - first, end)
        end = min(x.shape[1], b + last, int(beats[i + 1]) - first if i + 1 < len(beats) else x.shape[1])
        if end > begin:
            rest[:, begin:end] -= template[:, begin - b + first : end - b + first]
    return rest


def _spectra(x: np.ndarray, residual: np.ndarray, fs: float) -> dict[str, float]:
    n = x.shape[1]
    if n < fs:
        return {}
    hz = np.fft.rfftfreq(n, 1 / fs)
    window = np.hanning(n)
    values = {}
    for lead in _SPECTRUM_LEADS:
        row = LEADS.index(lead)
        power = np.abs(np.fft.rfft((x[row] - x[row].mean()) * window)) ** 2
        total = power[(hz >= _BANDS[0][0]) & (hz < _BANDS[-1][1])].sum()
        if total <= 0:
            continue
        for low, high in _BANDS:
            values[f"power_{low:g}_{high:g}_{lead}"] = float(power[(hz >= low) & (hz < high)].sum() / total)
        rest = np.abs(np.fft.rfft((residual[row] - residual[row].mean()) * window)) ** 2
        flutter = np.flatnonzero((hz >= 3) & (hz < 12))
        peak = int(flutter[rest[flutter].argmax()])
        inside = rest[flutter].sum()
        values |= {
            f"residual_rms_{lead}": float(np.sqrt(inside) / n),
            f"residual_peak_hz_{lead}": float(hz[peak]),
            f"residual_peak_{lead}": float(rest[max(0, peak - 2) : peak + 3].sum() / inside) if inside > 0 else 0.0,
        }
    return values
