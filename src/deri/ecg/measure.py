"""Intervals, amplitudes and rhythm of an ECG, as an ECG machine measures them.

Not a diagnostic algorithm: beats are found by the energy of the QRS band over all leads, intervals and
amplitudes are measured in the median beat, rhythm in the RR intervals, fibrillation and flutter waves in the spectrum
of what is left when the median beat is taken out. What cannot be measured is NaN.
"""

from __future__ import annotations

import numpy as np

from deri.ecg.beats import Beat, at_beat_rate, find_beats, median_beat
from deri.ecg.intervals import Waves, find_waves, frontal_axis, p_limits, t_limits
from deri.ecg.leads import LEADS

VERSION = 3
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


def known_features(values: np.ndarray, lead_mask: np.ndarray, printed: bool) -> np.ndarray:
    """Features with NaN for those that need a lead which is not there (12,), and for all of a printed layout."""
    needs = np.array([[lead in NEEDS.get(name, ()) for name in FEATURE_NAMES] for lead in LEADS])
    # In a printed layout the edges of the strips would be measured.
    return np.where((~lead_mask @ needs) | printed, np.nan, values)


def ecg_features(signal: np.ndarray, fs: float) -> np.ndarray:
    """Features (len(FEATURE_NAMES),) float64 of one recording (12, n) in mV, canonical leads; see FEATURE_NAMES."""
    values: dict[str, float] = {}
    if signal.shape[1] > 1:
        values["steepest"] = float(np.abs(np.diff(signal, axis=1)).max() * fs / 1000)  # mV per ms; pacing spikes
    x, rate = at_beat_rate(signal, fs)
    beats = find_beats(x, rate)
    values |= _rhythm(np.diff(beats) / rate)
    residual = x - np.median(x, axis=1, keepdims=True) if x.shape[1] else x
    if beat := median_beat(x, rate, beats):
        values |= _beat(beat, find_waves(beat))
        values |= _alike(beat)
        residual = _without_beats(x, beats, beat)
    values |= _spectra(x, residual, rate)
    return np.array([values.get(name, np.nan) for name in FEATURE_NAMES])


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


def _beat(beat: Beat, waves: Waves) -> dict[str, float]:
    """Intervals, axes and amplitudes of the median beat."""
    fs, n = beat.fs, beat.signal.shape[1]
    on, off = waves.qrs
    level = beat.signal - waves.base
    qrs = level[:, on:off]
    t_first, t_last = t_limits(beat, off)
    t_first = min(t_first, n - 2)
    t_wave = level[:, t_first : max(t_last, t_first + 2)]
    p_first, p_last = p_limits(beat, on)
    p_last = max(p_last, 2)
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
        angle = frontal_axis(amplitude[wave])
        values |= {f"{name}_cos": float(np.cos(angle)), f"{name}_sin": float(np.sin(angle))}
        if name == "axis":
            values["axis_deg"] = float(np.degrees(angle))
    reach = qrs.max(axis=1) - qrs.min(axis=1)
    r, s = amplitude["r"], amplitude["s"]
    p_size = np.abs(p_wave - np.median(p_wave, axis=1, keepdims=True)).sum(axis=0)
    return (
        values
        | {name: np.nan if value is None else value for name, value in waves.lengths(beat).items()}
        | {
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


def _alike(beat: Beat) -> dict[str, float]:
    """How alike the beats are to their median, around the QRS complex."""
    near = slice(beat.at(-0.1), beat.at(0.14))
    cut, middle = beat.each[:, :, near], beat.signal[:, near]
    a = (cut - cut.mean(axis=2, keepdims=True)).reshape(len(cut), -1)
    b = (middle - middle.mean(axis=1, keepdims=True)).ravel()
    size = np.linalg.norm(a, axis=1) * np.linalg.norm(b)
    alike = np.divide(a @ b, size, out=np.zeros(len(a)), where=size > 0)
    return {
        "beat_corr_mean": float(alike.mean()),
        "beat_corr_min": float(alike.min()),
        "beat_odd_share": float((alike < 0.8).mean()),
    }


def _without_beats(x: np.ndarray, beats: np.ndarray, beat: Beat) -> np.ndarray:
    """The recording less the median beat at every beat; between beats it is taken about its own ends."""
    level = np.median(x, axis=1, keepdims=True)
    rest, template = x - level, beat.signal - level
    first, last = beat.centre, template.shape[1] - beat.centre
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
