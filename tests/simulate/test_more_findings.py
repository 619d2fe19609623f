"""The signs of rhythms, blocks, infarcts and repolarisation, measured in the noise-free signal as in test_findings."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import median_filter
from scipy.signal import find_peaks, peak_widths

from deri.simulate import Patient, generate
from support.waves import (
    FS,
    PATIENTS,
    ROW,
    axis,
    beat_values,
    p_waves,
    pr_interval,
    qrs_complexes,
    record,
    rr_intervals,
    smooth,
    sokolow,
)

SEEDS = list(PATIENTS)[:8]


def leads(values: np.ndarray, names: str) -> np.ndarray:
    return values[[ROW[name] for name in names.split()]]


def j_and_st(signal: np.ndarray, after: float) -> np.ndarray:
    """(12,) mV against the PR segment, ``after`` s behind the end of the QRS; median of beats."""
    k = int(after * FS)
    return np.median([signal[:, last + k] - signal[:, first - 4] for first, last in qrs_complexes(signal)], axis=0)


def spikes(code: str, seed: int) -> np.ndarray:
    """Times (s) of the pacing stimuli: what a median over 4 ms takes away of the recording at 2 kHz."""
    rng = np.random.default_rng([77, seed])
    signal = generate([code], rng, 2000, patient=Patient.draw(rng), noise=False)
    hits = np.flatnonzero(np.abs(signal - median_filter(signal, size=(1, 9))).max(axis=0) > 0.15)
    return np.array([group[0] for group in np.split(hits, np.flatnonzero(np.diff(hits) > 80) + 1)]) / 2000


def q_wave(signal: np.ndarray, lead: str) -> tuple[float, float]:
    """Median duration (ms) and depth (share of R) of an initial negative deflection."""
    waves = []
    for a, b in qrs_complexes(signal):
        qrs = signal[ROW[lead], a : b + 1] - signal[ROW[lead], a - 4]
        positive = np.flatnonzero(qrs > 0.03)
        end = positive[0] if len(positive) else len(qrs)
        depth = -qrs[:end].min() if end else 0.0
        waves.append((end * 1000 / FS if depth > 0.05 else 0.0, depth / max(qrs.max(), 0.01)))
    width, depth = np.median(np.array(waves), axis=0)
    return float(width), float(depth)


# --- rhythm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("code", "low", "high"), [("SVTAC", 140, 220), ("AT", 100, 185), ("JR", 34, 62)])
def test_regular_rhythms_from_elsewhere(code: str, low: float, high: float, seed: int) -> None:
    rr = rr_intervals(record(code, seed=seed))
    assert low < 60 / rr.mean() < high
    assert rr.std() / rr.mean() < 0.04


@pytest.mark.parametrize("seed", SEEDS)
def test_tachycardia_and_junction_have_no_sinus_p(seed: int) -> None:
    """In the 60 ms that end 40 ms before the QRS, lead II of a sinus beat has its P; here it is down or nothing."""

    def before(code: str) -> float:
        signal = record(code, seed=seed)[ROW["II"]]
        at = [first for first, _ in qrs_complexes(record(code, seed=seed))]
        return float(np.median([signal[a - 60 : a - 10].max() - signal[a - 8] for a in at]))

    assert before("JR") < 0.03


@pytest.mark.parametrize("seed", SEEDS)
def test_atrial_tachycardia_has_another_p(seed: int) -> None:
    def p_vector(code: str) -> np.ndarray:
        signal = record(code, seed=seed)
        mean = np.median([w[:, w.shape[1] // 2] for _, _, w in p_waves(signal)], axis=0)
        return mean / np.linalg.norm(mean)

    assert p_vector("AT") @ p_vector("SR") < 0.975


@pytest.mark.parametrize("seed", SEEDS)
def test_atrial_and_dual_pacing(seed: int) -> None:
    for code, per_beat in (("APACE", 1), ("DPACE", 2)):
        signal = record(code, seed=seed)
        found = spikes(code, seed)
        starts = [first for first, _ in qrs_complexes(smooth(signal))]
        assert abs(len(found) / per_beat - len(starts)) <= 3
        gaps = np.diff(found)
        assert np.ptp(gaps[per_beat - 1 :: per_beat] if per_beat == 1 else gaps[::2]) < 0.02
    widths = [beat_values(smooth(record(code, seed=seed)))["width"] for code in ("APACE", "DPACE")]
    assert widths[0] < 120 < widths[1]


# --- ectopy, atrioventricular conduction ------------------------------------------------------------------


def early_and_wide(code: str, seed: int, trigger: float = 0.2) -> np.ndarray:
    beats = qrs_complexes(record(code, seed=seed), trigger=trigger)
    return np.array([(b - a) * 1000 / FS >= 118 for a, b in beats])


@pytest.mark.parametrize("seed", SEEDS)
def test_trigeminy_and_couplets(seed: int) -> None:
    wide = early_and_wide("TRIGU", seed)
    assert np.all(np.diff(np.flatnonzero(wide)) == 3)
    assert wide.sum() >= 2
    pair = np.flatnonzero(early_and_wide("COUP", seed, 0.2))
    assert 1 in np.diff(pair)


@pytest.mark.parametrize("seed", SEEDS)
def test_mobitz_two_keeps_its_pr(seed: int) -> None:
    signal = record("2AVB2", seed=seed)
    rr, pr = rr_intervals(signal), np.array([value for value, _, _ in p_waves(signal)])
    assert np.median(np.abs(pr - np.median(pr))) < 12
    ratio = rr / rr.min()
    dropped = ratio.max() > 1.8  # Mobitz II
    two_to_one = np.all(ratio < 1.2) and 60 / rr.mean() < 55
    assert dropped or two_to_one
    if two_to_one:  # a second P wave behind each T wave
        size = signal[ROW["II"]] if np.abs(signal[ROW["II"]]).max() > 0.3 else signal[ROW["V5"]]
        assert len(find_peaks(size, height=0.02, distance=60)[0]) > 2.4 * (len(rr) + 1)


# --- conduction, axis -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("code", "low", "high"), [("ILBBB", 104, 146), ("IVCD", 108, 160)])
def test_delayed_conduction(code: str, low: float, high: float, seed: int) -> None:
    values = beat_values(record(code, seed=seed))
    assert low <= values["width"] <= high
    if code == "ILBBB":
        assert leads(values["first_low"], "I V6").min() > -0.05
    else:
        assert values["end"][ROW["V1"]] < 0.12


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("code", "low", "high"), [("LAD", -64, -27), ("RAD", 88, 145), ("LPFB", 92, 140)])
def test_deviated_axis(code: str, low: float, high: float, seed: int) -> None:
    values = beat_values(record(code, seed=seed))
    assert low < axis(values["area"]) < high
    if code == "LPFB":
        assert values["high"][ROW["aVL"]] > 0.03  # r
        assert values["low"][ROW["III"]] < -0.03  # q


@pytest.mark.parametrize("seed", SEEDS)
def test_strain(seed: int) -> None:
    values = beat_values(record("LVHST", seed=seed))
    assert sokolow(values) > 3.5 or values["high"][ROW["aVL"]] > 1.1
    assert leads(values["st"], "V5 V6").max() < -0.04
    assert leads(values["t_low"], "V5 V6").max() < -0.1


# --- old infarction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_anterior_and_lateral_infarct_have_q_waves(seed: int) -> None:
    width, depth = q_wave(record("AMI", seed=seed), "V3")
    assert width >= 30
    assert depth > 0.25
    for lead in ("I", "aVL"):
        width, depth = q_wave(record("LMI", seed=seed), lead)
        assert width >= 30
        assert depth > 0.25
    assert q_wave(record("SR", seed=seed), "V3")[0] < 30
    assert q_wave(record("SR", seed=seed), "I")[0] < 36


@pytest.mark.parametrize("seed", SEEDS)
def test_posterior_infarct_is_the_mirror_image(seed: int) -> None:
    values = beat_values(record("PMI", seed=seed))
    assert np.any(leads(values["high"], "V1 V2") >= -leads(values["low"], "V1 V2"))
    assert values["t_high"][ROW["V2"]] > 0.12


# --- ST segment and T wave --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("code", "up", "by", "down"),
    [("ISTEMI", "II III aVF", 0.1, "aVL"), ("ASTEMI", "V2 V3", 0.2, ""), ("LSTEMI", "I aVL V5", 0.07, "III")],
)
def test_acute_infarct_lifts_st_in_its_territory(code: str, up: str, by: float, down: str, seed: int) -> None:
    st = j_and_st(record(code, seed=seed), 0.04)
    assert leads(st, up).min() > by
    assert not down or leads(st, down).max() < -0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_pericarditis_is_everywhere(seed: int) -> None:
    signal = record("PERIC", seed=seed)
    st = j_and_st(signal, 0.04)
    assert leads(st, "I II V4 V5 V6").min() > 0.02
    assert st[ROW["aVR"]] < -0.03
    # The PR segment, against the stretch before the P wave, goes the other way.
    segment = []
    for first, _ in qrs_complexes(signal):
        segment.append(
            signal[:, first - 6 : first - 2].mean(axis=1) - signal[:, first - 110 : first - 105].mean(axis=1)
        )
    assert np.median(segment, axis=0)[ROW["II"]] < np.median(segment, axis=0)[ROW["aVR"]]


@pytest.mark.parametrize("seed", SEEDS)
def test_early_repolarisation_lifts_the_j_point(seed: int) -> None:
    st = j_and_st(record("ERP", seed=seed), 0.03)
    assert np.sort(leads(st, "II V3 V4 V5"))[1:].min() > 0.07
    assert beat_values(record("ERP", seed=seed))["t_high"][ROW["V4"]] > 0.15


@pytest.mark.parametrize("seed", SEEDS)
def test_flat_t_waves(seed: int) -> None:
    values = beat_values(record("NST_", seed=seed))
    for lead in ("II", "V5", "V6"):
        t = max(values["t_high"][ROW[lead]], -values["t_low"][ROW[lead]])
        assert t < max(0.12 * values["high"][ROW[lead]], 0.07)


@pytest.mark.parametrize("seed", SEEDS)
def test_digitalis_scoops(seed: int) -> None:
    signal = record("DIG", seed=seed)
    v6 = [j_and_st(signal, after)[ROW["V6"]] for after in (0.01, 0.06)]
    assert v6[1] < -0.03
    assert v6[1] < v6[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_potassium(seed: int) -> None:
    high, low, normal = (record(code, seed=seed) for code in ("HYPERK", "HYPOK", "SR"))

    def t_waves(signal: np.ndarray) -> np.ndarray:
        """Widths (ms) at half height of the waves of V4 that are 25 ms wide at least: T, not R."""
        lead = signal[ROW["V4"]] - np.median(signal[ROW["V4"]])
        found, _ = find_peaks(lead, height=0.08)
        widths = peak_widths(lead, found, rel_height=0.5)[0] * 1000 / FS
        tall = lead[found] > (0.5 if signal is high else 0.0)
        return widths[(widths > 32) & tall]

    assert len(t_waves(high)) >= 7
    assert np.median(t_waves(high)) < 75
    assert np.median(t_waves(high)) < np.median(t_waves(normal))
    # The largest wave between QRS and the next P comes later than a T wave does: it is the U wave.
    rr = rr_intervals(low).mean()
    first, last = qrs_complexes(low)[1]
    stretch = low[ROW["V3"], last + 40 : first + int(0.8 * rr * FS)] - low[ROW["V3"], first - 4]
    assert (last + 40 + int(np.argmax(stretch)) - first) / FS > 0.43 * np.sqrt(rr)


@pytest.mark.parametrize("seed", SEEDS)
def test_short_qt(seed: int) -> None:
    """T peaks early: less than 250 ms after the QRS onset at 60/min (of a QTc below 355 ms, a T end 85 ms later)."""

    def peak(code: str) -> float:
        signal = record(code, seed=seed)
        size = np.sqrt((signal**2).mean(axis=0))
        values = [(last + 40 + int(np.argmax(size[last + 40 : last + 190])) - first) / FS for first, last in
                  qrs_complexes(signal)]  # fmt: skip
        return float(np.median(values) / np.sqrt(rr_intervals(signal).mean()))

    assert peak("SHQT") < 0.29
    assert peak("SHQT") < peak("SR") < peak("LNGQT")


# --- together ---------------------------------------------------------------------------------------------


def test_ectopic_beats_in_fibrillation() -> None:
    wide = [(b - a) * 1000 / FS >= 125 for a, b in qrs_complexes(record("AFIB", "PVC", seed=2), trigger=0.25)]
    assert 1 <= sum(wide) <= 4


def test_first_degree_block_with_bundle_branch_block() -> None:
    signal = record("1AVB", "CRBBB", seed=3)
    assert pr_interval(signal) > 205
    assert beat_values(signal)["width"] >= 120
