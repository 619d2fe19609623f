"""How simulated ECGs differ from real ones, as distributions. Prints one JSON object.

    pip install neurokit2
    python benchmarks/simulation_realism.py --real FOLDER [--records 300] [--plot FILE.png]

FOLDER holds recordings of any supported format and an ``index.csv`` of columns ``file``, ``labels`` (``;`` between
them) and optionally ``source``. The judge is neurokit2: it finds the R peaks and, with wavelets, the P, QRS and T of
leads II and V5. All else is measured on the median beat of each lead and on what is left after taking that beat out.

For each measurement: the 10th, 25th, 50th, 75th and 90th percentile of both, and the Kolmogorov-Smirnov distance
between them (0: same distribution, 1: disjoint), largest first. Two groups: recordings in sinus rhythm whose labels
name no change of QRS or repolarisation, and all. ``tell_apart``: cross-validated AUROC of boosted trees that tell real
from simulated by these measurements, with all of them and without those of noise and filters; 0.5 would be a perfect
simulation. Recordings whose file states wrong gains (LUDB) get the common gain that `standardise` gives them.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import find_peaks, resample_poly, welch
from scipy.stats import ks_2samp

import deri
from deri.ecg.gains import with_common_gain
from deri.ecg.leads import LEADS
from deri.simulate.studies import draw_studies

FS, SECONDS = 500, 10
PRE, POST = 150, 225  # samples about the R peak
PLAIN = {"SR", "SBRAD", "STACH", "SARRH", "NORM", "PAC", "1AVB", "NST", "LVOLT"}
BANDS = {"wander": (0.2, 0.9), "low": (1, 8), "mid": (8, 20), "muscle": (20, 45), "mains": (47, 63), "high": (65, 140)}
NOISE = ("noise_", "qrs_above_", "beat_jitter")


def to_500hz(signal: np.ndarray, fs: float) -> np.ndarray:
    """(12, 5000), shorter recordings as long as they are; missing leads are 0."""
    ratio = Fraction(FS / fs).limit_denominator(200)
    signal = np.nan_to_num(signal.astype(np.float64))
    if ratio != 1:
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=1)
    return np.asarray(signal[:, : FS * SECONDS])


def r_peaks(signal: np.ndarray) -> np.ndarray:
    """R peaks by neurokit2 on the lead with the clearest ones of II, V5 and V2."""
    import neurokit2 as nk

    best: np.ndarray = np.zeros(0, dtype=int)
    score = np.inf
    for lead in ("II", "V5", "V2"):
        clean = nk.ecg_clean(signal[LEADS.index(lead)], sampling_rate=FS)
        peaks = np.asarray(nk.ecg_peaks(clean, sampling_rate=FS)[1]["ECG_R_Peaks"], dtype=int)
        if len(peaks) < 5:
            continue
        spread = float(np.std(np.diff(peaks)) / np.mean(np.diff(peaks))) + (0.0 if lead == "II" else 0.02)
        if spread < score:
            best, score = peaks, spread
    return best


def intervals(signal: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
    """Medians in ms over leads II and V5 of what neurokit2's wavelet delineation finds."""
    import neurokit2 as nk

    found: dict[str, list[float]] = {"pr": [], "qrs": [], "qt": [], "p_duration": []}
    for lead in ("II", "V5"):
        clean = nk.ecg_clean(signal[LEADS.index(lead)], sampling_rate=FS)
        try:
            w = nk.ecg_delineate(clean, peaks, sampling_rate=FS, method="dwt")[1]
        except (ValueError, IndexError, ZeroDivisionError, KeyError):
            continue
        on, off, t = (np.array(w[k], dtype=float) for k in ("ECG_R_Onsets", "ECG_R_Offsets", "ECG_T_Offsets"))
        p_on, p_off = np.array(w["ECG_P_Onsets"], dtype=float), np.array(w["ECG_P_Offsets"], dtype=float)
        for name, a, b in (("pr", p_on, on), ("qrs", on, off), ("qt", on, t), ("p_duration", p_on, p_off)):
            found[name].append(float(np.nanmedian(b - a)) * 1000 / FS)
    return {name: float(np.nanmedian(v)) if v else np.nan for name, v in found.items()}


def median_beat(signal: np.ndarray, peaks: np.ndarray) -> np.ndarray | None:
    """(12, PRE + POST) the beat in mV, each beat against its own level just before the QRS; ectopic ones left out."""
    inside = peaks[(peaks >= PRE) & (peaks < signal.shape[1] - POST)]
    if len(inside) < 4:
        return None
    beats = np.stack([signal[:, r - PRE : r + POST] for r in inside])
    beats = beats - np.median(beats[:, :, PRE - 40 : PRE - 28], axis=2, keepdims=True)
    return np.asarray(np.median(beats, axis=0))


def _half_width(wave: np.ndarray, peak: int, step: int) -> float:
    i = peak
    while 0 < i < len(wave) - 1 and wave[i] > 0.5 * wave[peak]:
        i += step
    return abs(i - peak) * 1000 / FS


def beat_features(beat: np.ndarray) -> dict[str, float]:
    """Amplitudes in mV of each lead, and shapes."""
    out: dict[str, float] = {}
    qrs = beat[:, PRE - 30 : PRE + 45]
    t_part = beat[:, PRE + 70 : PRE + 210]
    p_part = beat[:, PRE - 110 : PRE - 32]
    notches = []
    for k, lead in enumerate(LEADS):
        if not beat[k].any():
            continue
        out[f"r_{lead}"], out[f"s_{lead}"] = float(max(qrs[k].max(), 0)), float(min(qrs[k].min(), 0))
        peak = int(np.argmax(np.abs(t_part[k])))
        out[f"t_{lead}"] = float(t_part[k, peak])
        out[f"st_{lead}"] = float(beat[k, PRE + 50 : PRE + 56].mean())
        out[f"p_{lead}"] = float(p_part[k, np.argmax(np.abs(p_part[k] - np.median(p_part[k, :8])))])
        swing = float(np.ptp(qrs[k]))
        if swing > 0.3:
            count = sum(len(find_peaks(s * qrs[k], prominence=0.05 * swing)[0]) for s in (1, -1))
            notches.append(count)
        if lead in ("II", "V3", "V5") and abs(out[f"t_{lead}"]) > 0.1:
            wave = np.sign(t_part[k, peak]) * beat[k]
            rise, fall = _half_width(wave, PRE + 70 + peak, -1), _half_width(wave, PRE + 70 + peak, 1)
            out[f"t_width_{lead}"], out[f"t_asymmetry_{lead}"] = rise + fall, rise / max(fall, 1.0)
    big = int(np.argmax(qrs[6:].max(axis=1))) + 6
    top = int(np.argmax(qrs[big]))
    out["r_half_width"] = _half_width(qrs[big], top, -1) + _half_width(qrs[big], top, 1)
    out["qrs_extrema"] = float(np.mean(notches)) if notches else np.nan
    spectrum = np.abs(np.fft.rfft(qrs * np.hanning(qrs.shape[1]), 512, axis=1)) ** 2
    f = np.fft.rfftfreq(512, 1 / FS)
    total = spectrum[:, (f > 2) & (f < 150)].sum()
    for edge in (25, 40, 80):
        out[f"qrs_above_{edge}"] = float(np.log10(spectrum[:, (f > edge) & (f < 150)].sum() / total + 1e-9))
    limb, area = qrs.sum(axis=1), float(np.hypot(qrs[0].sum(), qrs[5].sum()))
    out["axis"] = float(np.degrees(np.arctan2(2 / np.sqrt(3) * limb[5], limb[0]))) if area else np.nan
    ratio = [max(qrs[6 + k].max(), 0) / max(float(np.ptp(qrs[6 + k])), 0.05) for k in range(6)]
    out |= {f"r_share_V{k + 1}": float(v) for k, v in enumerate(ratio)}
    singular = np.linalg.svd(qrs[[0, 1, *range(6, 12)]], compute_uv=False) ** 2
    out["qrs_beyond_dipole"] = float(np.log10(singular[3:].sum() / singular.sum() + 1e-9))
    singular = np.linalg.svd(t_part[[0, 1, *range(6, 12)]], compute_uv=False) ** 2
    out["t_beyond_dipole"] = float(np.log10(singular[3:].sum() / singular.sum() + 1e-9))
    return out


def noise_features(signal: np.ndarray, peaks: np.ndarray, beat: np.ndarray) -> dict[str, float]:
    """Log10 of the root mean square (mV) by band of what the median beat does not explain, median over leads."""
    rest = signal - np.median(signal, axis=1, keepdims=True)
    for r in peaks:
        a, b = max(r - PRE, 0), min(r + POST, signal.shape[1])
        part = beat[:, a - r + PRE : b - r + PRE]
        ends = np.minimum(1, np.minimum(np.arange(part.shape[1]), np.arange(part.shape[1])[::-1]) / 30)
        rest[:, a:b] -= part * ends
    f, density = welch(rest, FS, nperseg=2048, axis=1)
    out = {}
    used = signal.std(axis=1) > 0
    for name, (low, high) in BANDS.items():
        rms = np.sqrt(density[used][:, (f >= low) & (f < high)].sum(axis=1) * (f[1] - f[0]))
        out[f"noise_{name}"] = float(np.log10(np.median(rms) + 1e-6))
        out[f"noise_{name}_spread"] = float(np.ptp(np.log10(np.percentile(rms, [15, 85]) + 1e-6)))
    inside = peaks[(peaks >= PRE) & (peaks < signal.shape[1] - POST)]
    lead = int(np.argmax(np.ptp(beat, axis=1)))
    heights = np.array([np.ptp(signal[lead, r - 25 : r + 25]) for r in inside])
    out["beat_jitter"] = float(np.log10(heights.std() / heights.mean() + 1e-5))
    return out


def measure(signal: np.ndarray) -> dict[str, float] | None:
    """All measurements of one recording at 500 Hz, or None where no beats are found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peaks = r_peaks(signal)
        beat = median_beat(signal, peaks) if len(peaks) >= 5 else None
        if beat is None:
            return None
        rr = np.diff(peaks) / FS
        out = {
            "rate": 60 / float(np.median(rr)),
            "rr_cv": float(np.log10(np.std(rr) / np.mean(rr) + 1e-4)),
            "rr_steps": float(np.log10(np.median(np.abs(np.diff(rr))) / np.mean(rr) + 1e-4)),
        }
        out |= intervals(signal, peaks)
        out["qtc"] = out["qt"] / float(np.sqrt(np.median(rr)))
        return out | beat_features(beat) | noise_features(signal, peaks, beat)


def read_real(folder: Path, limit: int | None) -> Iterable[tuple[dict[str, float], bool]]:
    """(measurements, whether plain sinus) of the recordings of ``folder``."""
    with (folder / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["labels"]]
    for row in rows[:limit]:
        try:
            ecg = with_common_gain(deri.read_ecg(folder / row["file"]))
        except deri.DeriError:
            continue
        found = measure(to_500hz(ecg.signal, ecg.fs))
        if found is not None:
            yield found, _plain(row["labels"].split(";"))


def read_simulated(records: int, seed: int) -> Iterable[tuple[dict[str, float], bool]]:
    """The same of ``records`` simulated studies, one per patient."""
    for study in draw_studies(seed, 9, records, more=0.0, mains_hz=50.0):
        found = measure(study.tracing.signal.astype(np.float64))
        if found is not None:
            yield found, _plain(study.tracing.findings)


def _plain(labels: Iterable[str]) -> bool:
    kinds = set(labels)
    return kinds <= PLAIN and bool(kinds & {"SR", "SBRAD", "STACH", "SARRH", "NORM"})


def table(found: list[tuple[dict[str, float], bool]], plain: bool) -> tuple[list[str], np.ndarray]:
    """Names and values (n, k)."""
    rows = [values for values, is_plain in found if is_plain or not plain]
    names = sorted({name for values in rows for name in values})
    return names, np.array([[values.get(name, np.nan) for name in names] for values in rows])


def compare(names: list[str], real: np.ndarray, simulated: np.ndarray) -> dict[str, Any]:
    """Percentiles and distances."""
    out = []
    for k, name in enumerate(names):
        a, b = real[:, k][np.isfinite(real[:, k])], simulated[:, k][np.isfinite(simulated[:, k])]
        if len(a) < 8 or len(b) < 8:
            continue
        percent = [10, 25, 50, 75, 90]
        out.append(
            {
                "name": name,
                "ks": round(float(ks_2samp(a, b).statistic), 3),
                "real": [round(float(v), 3) for v in np.percentile(a, percent)],
                "simulated": [round(float(v), 3) for v in np.percentile(b, percent)],
            }
        )
    out.sort(key=lambda row: -float(row["ks"]))
    return {"n_real": len(real), "n_simulated": len(simulated), "measurements": out}


def tell_apart(names: list[str], real: np.ndarray, simulated: np.ndarray, keep: list[int]) -> dict[str, Any]:
    """AUROC of telling real from simulated, mean and standard deviation over three repeats of five folds."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    values = np.concatenate([real, simulated])[:, keep]
    # That much of a recording cannot be measured must not give it away as real.
    whole = np.isfinite(real[:, keep]).mean(axis=1) > 0.8
    mask = np.concatenate([whole, np.ones(len(simulated), dtype=bool)])
    target = np.concatenate([np.ones(len(real)), np.zeros(len(simulated))])
    scores = [
        cross_val_score(
            HistGradientBoostingClassifier(max_iter=80, max_depth=3, random_state=s),
            values[mask], target[mask], scoring="roc_auc", cv=StratifiedKFold(5, shuffle=True, random_state=s),
        ).mean()
        for s in range(3)
    ]  # fmt: skip
    return {
        "auroc": round(float(np.mean(scores)), 3),
        "sd": round(float(np.std(scores)), 3),
        "n_real": int(whole.sum()),
    }


def plot(names: list[str], real: np.ndarray, simulated: np.ndarray, path: Path) -> None:
    """Amplitudes by lead, 10th to 90th percentile and median, of both."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9, 5.5), layout="constrained")
    titles = {"r": "R", "s": "S", "t": "T", "p": "P"}
    for axis, (kind, title) in zip(axes.ravel(), titles.items(), strict=True):
        columns = [names.index(f"{kind}_{lead}") for lead in LEADS]
        for values, label, shift in ((real, "real", -0.12), (simulated, "simulated", 0.12)):
            low, quarter, middle, three, high = np.nanpercentile(values[:, columns], [10, 25, 50, 75, 90], axis=0)
            at = np.arange(12) + shift
            line = axis.vlines(at, low, high, lw=1.2, color="C0" if label == "real" else "C3", label=label)
            axis.vlines(at, quarter, three, lw=4, color=line.get_color())
            axis.plot(at, middle, "o", ms=3, mfc="w", mec=line.get_color())
        axis.set_xticks(range(12), LEADS, fontsize=7)
        axis.set_title(f"{title} (mV)", fontsize=9)
        axis.axhline(0, color="0.8", lw=0.6)
        axis.tick_params(labelsize=7)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", required=True, type=Path)
    parser.add_argument("--records", type=int, default=300)
    parser.add_argument("--limit", type=int, help="of real recordings")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--cache", type=Path, help="keep the measurements of the real recordings here")
    parser.add_argument("--plot", type=Path, help="write a PNG of the amplitudes of plain recordings by lead here")
    options = parser.parse_args()
    if options.cache and options.cache.exists():
        real = [(values, bool(plain)) for values, plain in json.loads(options.cache.read_text())]
    else:
        real = list(read_real(options.real, options.limit))
        if options.cache:
            options.cache.write_text(json.dumps(real))
    simulated = list(read_simulated(options.records, options.seed))
    result: dict[str, Any] = {}
    for group in ("plain", "all"):
        names, a = table(real, group == "plain")
        other, b = table(simulated, group == "plain")
        shared = [name for name in names if name in other]
        a, b = a[:, [names.index(n) for n in shared]], b[:, [other.index(n) for n in shared]]
        result[group] = compare(shared, a, b)
        if options.plot and group == "plain":
            plot(shared, a, b, options.plot)
        result[group]["tell_apart"] = {
            "all": tell_apart(shared, a, b, list(range(len(shared)))),
            "without_noise_and_filters": tell_apart(
                shared, a, b, [k for k, n in enumerate(shared) if not n.startswith(NOISE)]
            ),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
