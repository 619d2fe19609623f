"""What a finding claims must be measurable in the noise-free signal, by means that know nothing of how it was made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import find_peaks
from yaml import YAMLError

from deri.errors import DeriError
from deri.simulate import FINDINGS, Patient, generate
from deri.simulate.findings import clash, complete, implied, read_catalogue
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
    speed,
)

# --- rhythm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PATIENTS)
@pytest.mark.parametrize(("code", "low", "high"), [("SR", 60, 100), ("SBRAD", 35, 60), ("STACH", 100, 166)])
def test_sinus_rates(code: str, low: float, high: float, seed: int) -> None:
    rr = rr_intervals(record(code, seed=seed))
    assert low < 60 / rr.mean() < high
    assert np.ptp(rr) < 0.12  # the usual limit of sinus arrhythmia


@pytest.mark.parametrize("seed", PATIENTS)
def test_sinus_arrhythmia_swings_smoothly(seed: int) -> None:
    rr = rr_intervals(record("SARRH", seed=seed))
    assert np.ptp(rr) > 0.16
    assert 60 < 60 / rr.mean() < 100


@pytest.mark.parametrize("seed", PATIENTS)
def test_fibrillation_has_no_order_and_f_waves(seed: int) -> None:
    signal, sinus = record("AFIB", seed=seed), record("SR", seed=seed)
    rr = rr_intervals(signal)
    assert rr.std() / rr.mean() > 0.10
    assert np.abs(np.diff(rr)).mean() > 0.06
    # In the last 60 ms before the PR segment of a sinus beat there is a P wave; of fibrillation, f waves everywhere.
    assert quiet(signal)[ROW["V1"]] > 2 * quiet(sinus)[ROW["V1"]]


def quiet(signal: np.ndarray) -> np.ndarray:
    """Standard deviation (12,) in mV of 80 ms before the P wave (or where it would be), in the longest pause."""
    beats = [first for first, _ in qrs_complexes(signal)]
    last = beats[int(np.argmax(np.diff(beats))) + 1]
    return signal[:, last - int(0.30 * FS) : last - int(0.22 * FS)].std(axis=1)


@pytest.mark.parametrize("seed", PATIENTS)
def test_flutter_is_a_sawtooth_at_a_fixed_rate(seed: int) -> None:
    signal = record("AFLT", seed=seed)
    # Without its QRS complexes lead II is periodic at 240-320/min.
    lead = signal[ROW["II"]].copy()
    for first, last in qrs_complexes(signal):
        lead[first - 10 : last + 10] = np.linspace(lead[first - 10], lead[last + 10], last - first + 20)
    lead -= lead.mean()
    power = np.abs(np.fft.rfft(lead * np.hanning(len(lead)), 1 << 15)) ** 2
    frequency = np.fft.rfftfreq(1 << 15, 1 / FS)
    band = (frequency > 3.5) & (frequency < 5.6)
    peak = frequency[band][np.argmax(power[band])] * 60
    assert 225 < peak < 335
    ratio = peak / (60 / rr_intervals(signal))
    whole = np.abs(ratio - np.round(ratio)) < 0.25
    assert whole.mean() > 0.9  # now and then a flutter wave blurs the onset
    assert set(np.round(ratio[whole])) <= {2, 3, 4, 5}


def test_flutter_waves_fall_slowly_and_rise_fast() -> None:
    falling = []
    for seed in PATIENTS:
        signal = record("AFLT", seed=seed)
        kept = np.ones(signal.shape[1], dtype=bool)
        for first, last in qrs_complexes(signal):
            kept[first - 10 : last + 10] = False
        falling.append(np.mean(np.gradient(signal[ROW["II"]])[kept] < 0))
    assert np.mean(falling) > 0.54


@pytest.mark.parametrize("seed", PATIENTS)
def test_premature_ventricular_complex(seed: int) -> None:
    beats = qrs_complexes(record("PVC", seed=seed), trigger=0.25)
    first = np.array([a for a, _ in beats])
    width = np.array([b - a for a, b in beats]) * 1000 / FS
    rr = np.diff(first) / FS
    normal = np.median(rr)
    early = np.flatnonzero(rr < 0.8 * normal) + 1  # beats that come early
    assert 1 <= len(early) <= 4
    assert np.all(width[early] >= 118)
    assert np.median(width) < 115
    for i in early:
        if i < len(rr):
            assert rr[i - 1] + rr[i] == pytest.approx(2 * normal, rel=0.08)  # full compensatory pause


@pytest.mark.parametrize("seed", PATIENTS)
def test_premature_atrial_complex_is_narrow_and_resets_the_sinus_node(seed: int) -> None:
    beats = qrs_complexes(record("PAC", seed=seed))
    first = np.array([a for a, _ in beats])
    width = np.array([b - a for a, b in beats]) * 1000 / FS
    rr = np.diff(first) / FS
    normal = np.median(rr)
    early = np.flatnonzero(rr < 0.85 * normal) + 1
    assert 1 <= len(early) <= 4
    assert width[early].max() < 118
    for i in early:
        if i < len(rr):
            assert rr[i - 1] + rr[i] < 1.92 * normal


@pytest.mark.parametrize("seed", PATIENTS)
def test_bigeminy_alternates(seed: int) -> None:
    beats = qrs_complexes(record("BIGU", seed=seed), trigger=0.2)
    width = np.array([b - a for a, b in beats]) * 1000 / FS
    rr = np.diff([a for a, _ in beats])
    wide = width >= 118
    assert np.all(wide[1:] != wide[:-1])
    assert np.all((np.diff(rr) > 0) == (rr[:-1] < rr[1:].mean()))


@pytest.mark.parametrize("seed", PATIENTS)
def test_pacing_spikes_precede_each_wide_beat(seed: int) -> None:
    signal = record("PACE", seed=seed)
    jump = np.abs(np.diff(signal, n=2, axis=1)).max(axis=0)
    spikes = np.flatnonzero(jump > 0.2)
    groups = np.split(spikes, np.flatnonzero(np.diff(spikes) > 50) + 1)
    assert len(groups) >= 9
    assert all(len(group) <= 6 for group in groups)  # sharp: a few ms
    intervals = np.diff([group[0] for group in groups]) / FS
    assert 48 < 60 / intervals.mean() < 101
    after = [signal[:, g[-1] : g[-1] + 60] for g in groups if g[-1] + 60 < signal.shape[1]]
    assert all(np.abs(piece).max() > 0.5 for piece in after)
    assert np.median([(b - a) * 1000 / FS for a, b in qrs_complexes(smooth(signal))]) > 125


# --- atrioventricular conduction --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PATIENTS)
def test_pr_interval(seed: int) -> None:
    assert 112 < pr_interval(record("SR", seed=seed)) <= 205
    assert 205 < pr_interval(record("1AVB", seed=seed)) < 350
    assert pr_interval(record("WPW", seed=seed)) < 120


@pytest.mark.parametrize("seed", PATIENTS)
def test_wenckebach_drops_beats_after_lengthening_pr(seed: int) -> None:
    signal = record("2AVB", seed=seed)
    rr = rr_intervals(signal)
    assert rr.max() > 1.35 * rr.min()
    pr = np.array([value for value, _, _ in p_waves(signal)])
    assert np.ptp(pr[pr < 330]) > 30 or len(set(np.round(rr, 1))) == 1  # 3:2 to 5:4; a 2:1 group shows one PR only


@pytest.mark.parametrize("seed", PATIENTS)
def test_complete_block_dissociates(seed: int) -> None:
    signal = record("3AVB", seed=seed)
    beats = qrs_complexes(signal)
    assert 60 / (np.diff([a for a, _ in beats]).mean() / FS) < 52
    # Were they coupled, each QRS would have a P wave where the others have one (T waves are over by then).
    before = [find_peaks(signal[ROW["II"], a - 310 : a - 8], height=0.03)[0] for a, _ in beats if a > 310]
    before = [peaks for peaks in before if len(peaks)]
    assert len(before) >= 2
    assert max(np.abs(other - own[-1]).min() for own in before for other in before) > 20


# --- conduction, axis, voltage ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", PATIENTS)
@pytest.mark.parametrize(
    ("code", "low", "high"),
    [("SR", 70, 112), ("IRBBB", 98, 126), ("CRBBB", 120, 168), ("CLBBB", 120, 200), ("WPW", 105, 156)],
)
def test_qrs_width(code: str, low: float, high: float, seed: int) -> None:
    floor = 0.2 if code == "CLBBB" else 0.12  # in a broad QRS nothing is steep, and ST and T come near it
    assert low < beat_values(record(code, seed=seed), floor)["width"] <= high


@pytest.mark.parametrize("seed", PATIENTS)
def test_right_bundle_branch_block(seed: int) -> None:
    values = beat_values(record("CRBBB", seed=seed))
    assert values["end"][ROW["V1"]] > 0.15  # R'
    assert values["high"][ROW["V1"]] > 0.3
    assert values["end"][ROW["I"]] < -0.08
    assert values["end"][ROW["V6"]] < -0.1
    assert values["t_low"][ROW["V1"]] < -0.1  # T against R'
    partial = beat_values(record("IRBBB", seed=seed))
    assert partial["high"][ROW["V1"]] > 0.1


@pytest.mark.parametrize("seed", PATIENTS)
def test_left_bundle_branch_block(seed: int) -> None:
    values = beat_values(record("CLBBB", seed=seed))
    assert values["low"][ROW["V1"]] < -0.6
    assert values["first_high"][ROW["V1"]] < 0.1  # QS, or an r of nothing
    for lead in ("I", "V6"):
        assert values["first_low"][ROW[lead]] > -0.05  # no q, no S
        assert values["high"][ROW[lead]] > 0.3
    assert values["t_low"][ROW["V6"]] < -0.1
    assert values["t_high"][ROW["V1"]] > 0.1


@pytest.mark.parametrize("seed", PATIENTS)
def test_pre_excitation_starts_slowly(seed: int) -> None:
    def start(signal: np.ndarray) -> float:
        """Time (ms) from the onset until the slope first reaches half of its maximum."""
        slope = speed(signal)
        return float(
            np.median(
                [np.argmax(slope[a : b + 1] > 0.5 * slope[a : b + 1].max()) * 2 for a, b in qrs_complexes(signal)]
            )
        )

    assert start(record("WPW", seed=seed)) > max(24, start(record("SR", seed=seed)) + 2)


@pytest.mark.parametrize("seed", PATIENTS)
def test_axis(seed: int) -> None:
    assert -30 < axis(beat_values(record("SR", seed=seed))["area"]) < 92
    assert -85 < axis(beat_values(record("LAFB", seed=seed))["area"]) < -40
    assert axis(beat_values(record("RVH", seed=seed))["area"]) > 98
    fascicle = beat_values(record("LAFB", seed=seed))
    assert fascicle["low"][ROW["aVL"]] < -0.03  # q
    assert fascicle["high"][ROW["III"]] > 0.03  # r


@pytest.mark.parametrize("seed", PATIENTS)
def test_voltage(seed: int) -> None:
    normal, large, small = (beat_values(record(code, seed=seed)) for code in ("SR", "LVH", "LVOLT"))
    assert sokolow(large) > 3.5 > sokolow(normal)
    swing = small["high"] - small["low"]
    assert swing[:6].max() < 0.5
    assert swing[6:].max() < 1.0
    assert (normal["high"] - normal["low"])[:6].max() > 0.5


@pytest.mark.parametrize("seed", PATIENTS)
def test_right_ventricular_hypertrophy(seed: int) -> None:
    values = beat_values(record("RVH", seed=seed))
    assert values["high"][ROW["V1"]] > -values["low"][ROW["V1"]]
    assert values["high"][ROW["V1"]] > 0.4
    assert -values["low"][ROW["V6"]] > 0.2


# --- infarction, repolarisation, atria --------------------------------------------------------------------


@pytest.mark.parametrize("seed", PATIENTS)
def test_inferior_infarct_has_q_waves(seed: int) -> None:
    signal, sound = record("IMI", seed=seed), record("SR", seed=seed)

    def q(piece: np.ndarray, lead: str) -> tuple[float, float]:
        """Median duration (ms) and depth (share of R) of an initial negative deflection."""
        waves = []
        for a, b in qrs_complexes(piece):
            qrs = piece[ROW[lead], a : b + 1] - piece[ROW[lead], a - 4]
            positive = np.flatnonzero(qrs > 0.03)
            end = positive[0] if len(positive) else len(qrs)
            depth = -qrs[:end].min() if end else 0.0
            waves.append((end * 1000 / FS if depth > 0.05 else 0.0, depth / max(qrs.max(), 0.01)))
        return tuple(np.median(np.array(waves), axis=0))

    for lead in ("III", "aVF"):
        duration, depth = q(signal, lead)
        assert duration >= 30
        assert depth > 0.25
    assert q(sound, "II")[0] < 36


@pytest.mark.parametrize("seed", PATIENTS)
def test_anteroseptal_infarct_has_no_anterior_r(seed: int) -> None:
    values, sound = beat_values(record("ASMI", seed=seed)), beat_values(record("SR", seed=seed))
    for lead in ("V1", "V2"):
        assert values["high"][ROW[lead]] < 0.2
        assert values["low"][ROW[lead]] < -0.5
    assert max(sound["high"][ROW["V2"]], sound["high"][ROW["V3"]]) > 0.18


@pytest.mark.parametrize("seed", PATIENTS)
def test_st_and_t(seed: int) -> None:
    normal, ischaemic, depressed, inverted = (
        beat_values(record(code, seed=seed)) for code in ("SR", "ISC_", "STD_", "INVT")
    )
    v5, v3 = ROW["V5"], ROW["V3"]
    assert abs(normal["st"][v5]) < 0.17
    assert normal["t_high"][v5] > 0.1
    assert ischaemic["st"][v5] < -0.09
    assert ischaemic["t_low"][v5] < -0.12
    assert ischaemic["t_high"][v5] < 0.08
    assert depressed["st"][v5] < -0.065
    assert depressed["t_high"][v5] > 0.08
    assert inverted["t_low"][v3] < -0.2
    assert abs(inverted["st"][v3]) < 0.08


@pytest.mark.parametrize("seed", PATIENTS)
def test_qt_interval(seed: int) -> None:
    def qtc(signal: np.ndarray) -> float:
        """Bazett's, with T ending where 12 % of its height in the root mean square of the leads is left."""
        size = np.sqrt((signal**2).mean(axis=0))
        values = []
        for first, last in qrs_complexes(signal):
            peak = last + 40 + int(np.argmax(size[last + 40 : last + 190]))
            end = peak + int(np.argmax(size[peak:] < 0.12 * size[peak]))
            values.append((end - first) * 1000 / FS)
        return float(np.median(values) / np.sqrt(rr_intervals(signal).mean()))

    assert 360 < qtc(record("SR", seed=seed)) < 455
    assert qtc(record("LNGQT", seed=seed)) > 475


@pytest.mark.parametrize("seed", PATIENTS)
def test_atria(seed: int) -> None:
    def atria(code: str) -> tuple[float, float, float]:
        """Median P duration (ms), height in II, depth of the last third in V1 (mV)."""
        waves = p_waves(record(code, seed=seed))
        return tuple(
            np.median([(d, w[ROW["II"]].max(), w[ROW["V1"], -w.shape[1] // 3 :].min()) for _, d, w in waves], axis=0)
        )

    normal, left, right = atria("SR"), atria("LAO/LAE"), atria("RAO/RAE")
    assert 75 < normal[0] < 118
    assert left[0] > 118
    assert left[2] < -0.1 < normal[2]
    assert right[1] > 0.25 > normal[1] > 0.03


# --- the set of findings ----------------------------------------------------------------------------------


def test_normal_beat_looks_like_one() -> None:
    """Medians over patients: R in II about 1 mV, R growing and S shrinking from V1 to V6, T upright but in aVR."""
    all_values = [beat_values(record("NORM", seed=seed)) for seed in range(30)]
    high, low, t = (np.median([v[name] for v in all_values], axis=0) for name in ("high", "low", "t_high"))
    assert 0.7 < high[ROW["II"]] < 1.3
    assert np.all(np.diff(high[[ROW[v] for v in ("V1", "V2", "V3", "V4")]]) > 0)
    assert np.all(np.diff(low[[ROW[v] for v in ("V3", "V4", "V5", "V6")]]) > 0)
    assert low[ROW["V1"]] < -0.5
    assert np.all(t[[ROW[v] for v in ("I", "II", "V2", "V3", "V4", "V5", "V6")]] > 0.08)
    assert t[ROW["aVR"]] < 0.05
    assert 80 <= np.median([v["width"] for v in all_values]) <= 100


def test_there_are_enough_findings_and_all_are_scp_statements() -> None:
    from deri.simulate.layouts.ptbxl import scp_statements

    known = {line.split(",")[0] for line in scp_statements().splitlines()[1:]}
    assert len(FINDINGS) >= 40
    assert {code: code in known for code in FINDINGS} == {code: finding.scp for code, finding in FINDINGS.items()}
    assert set(implied(list(FINDINGS))) <= known
    assert all(finding.source and finding.sign for finding in FINDINGS.values())
    assert all(extra in FINDINGS for finding in FINDINGS.values() for extra in finding.excludes)


def test_a_set_is_completed() -> None:
    assert complete([]) == ("NORM", "SR")
    assert complete(["SARRH"]) == ("NORM", "SARRH")
    assert complete(["LVH"]) == ("SR", "LVH")
    assert complete(["STACH"]) == ("STACH",)
    assert implied(["IMI", "1AVB", "SR"]) == ("LPR", "QWAVE")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (["FOO"], "Unknown finding FOO"),
        (["SR", "AFIB"], "SR and AFIB contradict"),
        (["CLBBB", "CRBBB"], "contradict"),
        (["AFIB", "1AVB"], "contradict"),
        (["NORM", "LVH"], "NORM contradicts LVH"),
    ],
)
def test_contradictions_are_refused(codes: list[str], message: str) -> None:
    with pytest.raises(DeriError, match=message):
        complete(codes)


@settings(max_examples=60)
@given(st.sets(st.sampled_from([c for c in FINDINGS if c != "NORM"]), max_size=4), st.integers(0, 10**6))
def test_any_consistent_set_gives_a_plausible_signal(codes: set[str], seed: int) -> None:
    if any(clash(a, b) for a in codes for b in codes):
        with pytest.raises(DeriError):
            complete(codes)
        return
    if any(clash("SR", code) for code in codes) and not any(FINDINGS[c].group == "rhythm" for c in codes):
        raise AssertionError("nothing but a rhythm may exclude SR")
    signal = generate(codes, np.random.default_rng(seed))
    assert signal.shape == (12, 5000)
    assert signal.dtype == np.float32
    assert np.isfinite(signal).all()
    assert 0.15 < np.abs(signal).max() < 8
    # Einthoven and Goldberger hold, noise and all.
    span = np.ptp(signal, axis=1)
    if not np.allclose(span[span > 0], 1, atol=1e-3):  # an archive that brings every lead to 1 mV
        np.testing.assert_allclose(signal[2], signal[1] - signal[0], atol=2e-5)
        np.testing.assert_allclose(signal[3], -(signal[0] + signal[1]) / 2, atol=2e-5)


def test_other_rates_and_lengths() -> None:
    rng = np.random.default_rng(3)
    patient = Patient.draw(rng)
    short = generate(["SR"], np.random.default_rng(1), fs=250, seconds=8, patient=patient, noise=False)
    assert short.shape == (12, 2000)
    with pytest.raises(DeriError, match="5 s"):
        generate(["SR"], rng, seconds=2)


# --- the catalogue ----------------------------------------------------------------------------------------

ONE = """
groups: {rhythm: Rhythm}
sets: {fast: [B, A]}
background: {}
transient: {A: 0.5}
findings:
  A: {name: a, group: rhythm, patients: 1, sign: s, source: t, excludes: [fast], implies: [X]}
  B: {name: b, group: rhythm, patients: 0, sign: s, source: t}
"""


def test_a_catalogue_is_read() -> None:
    catalogue = read_catalogue(ONE)
    first = catalogue.findings["A"]
    assert list(catalogue.findings) == ["A", "B"]
    assert first.excludes == {"B"}  # the set without itself
    assert (first.implies, first.persists, first.scp) == (("X",), 1, True)
    assert catalogue.transient == {"A": 0.5}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sign: s, source: t}", "sign: s}", "finding B: .*source"),
        ("group: rhythm, patients: 0", "group: rythm, patients: 0", "finding B: group rythm"),
        ("patients: 0", "patiens: 0", "finding B: .*patiens"),
        ("[fast]", "[fats]", "unknown findings fats"),
        ("{A: 0.5}", "{C: 0.5}", "unknown findings C"),
        ("  B:", "  A:", "key twice: A"),
    ],
)
def test_a_catalogue_with_a_mistake_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises((ValueError, YAMLError), match=message):
        read_catalogue(ONE.replace(old, new))
