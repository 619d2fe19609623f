"""Every code of suspicion on recordings made to deserve it, and none on those that do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from deri.ecg import ECG, LEADS, read_ecg, standardise
from deri.ecg.gains import with_common_gain
from deri.ecg.quality import CLIP_SECONDS, lead_flags, quality_flags, wrong_unit
from deri.errors import ReadError
from deri.store.chunk import read_recording

FS = 500


def heart(per_minute: float = 72, seconds: float = 10, fs: float = FS, seed: int = 0) -> np.ndarray:
    """(12, n) in mV: P, QRS (half width 0.03 s) and T, on a slow wave with noise; the limb leads obey Einthoven."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * fs)) / fs
    period = 60 / per_minute
    phase = time % period - min(0.3, 0.4 * period)
    beat = np.exp(-((phase / 0.017) ** 2)) - 0.3 * np.exp(-(((phase - 0.035) / 0.015) ** 2))
    beat += 0.15 * np.exp(-(((phase + 0.16) / 0.03) ** 2)) + 0.25 * np.exp(-(((phase - 0.25) / 0.06) ** 2))
    sizes = rng.uniform(0.5, 1.6, (12, 1))
    signal = sizes * beat + 0.05 * np.sin(time) + rng.normal(0, 0.01, (12, len(time)))
    signal[2] = signal[1] - signal[0]
    signal[3:6] = [-(signal[0] + signal[1]) / 2, (signal[0] - signal[2]) / 2, (signal[1] + signal[2]) / 2]
    return signal


def test_a_good_recording_has_no_flag() -> None:
    for per_minute in (40, 60, 90, 150):
        for seed in range(3):
            assert quality_flags(heart(per_minute, seed=seed), FS) == ()


def test_flags_do_not_depend_on_the_kind_of_numbers() -> None:
    signal = np.clip(heart(), -0.5, 0.8)
    units = np.rint(signal * 1000).astype(np.int16)
    found = quality_flags(units, FS, mv_per_unit=1e-3)
    assert found
    assert found == quality_flags(units / 1000, FS) == quality_flags((units / 1000).astype(np.float32), FS)


def test_a_lead_cut_off_at_a_level_is_clipped() -> None:
    signal = heart()
    row = LEADS.index("V2")
    signal[row] = np.minimum(signal[row], 0.5 * signal[row].max())
    assert quality_flags(signal, FS) == ("clipped:V2",)
    signal = -signal  # at the lower end as well
    assert quality_flags(signal, FS) == ("clipped:V2",)
    two = heart()
    two[:, : 2 * 417] = np.minimum(two[:, : 2 * 417], 0.5 * two.max(axis=1, keepdims=True))
    assert quality_flags(two, FS) == ()  # two tops at most are no rule


def test_coarse_steps_and_a_baseline_at_rest_are_not_clipped() -> None:
    coarse = heart()
    coarse[7] = np.rint(np.sin(7.5 * np.arange(5000) / FS) * 70) / 70  # rounded tops of 0.03 s, all at one level
    assert np.count_nonzero(coarse[7] == coarse[7].max()) > 10 * 3 * CLIP_SECONDS * FS
    assert quality_flags(coarse, FS) == ()
    resting = heart()
    resting[1] = np.maximum(resting[1], np.median(resting[1]))  # from below the median on nothing happens
    assert quality_flags(resting, FS) == ()


def test_a_lead_at_the_rail_is_saturated() -> None:
    signal = heart()
    row = LEADS.index("V5")
    signal[row, 1000:1120] = 3.2  # 0.24 s
    assert quality_flags(signal, FS) == ("saturated:V5",)
    signal[row, 1000:1120] = -3.2
    assert quality_flags(signal, FS) == ("saturated:V5",)
    signal[row, 1050] = -1.0  # interrupted: 0.1 s and 0.14 s
    assert quality_flags(signal, FS) == ()
    signal = heart()
    signal[row, 1000:1120] = 1.9  # an electrode that drifts is no rail below 2 mV
    assert quality_flags(signal, FS) == ()


@pytest.mark.parametrize("factor", [0.2, 0.25, 4, 5])
@pytest.mark.parametrize("per_minute", [55, 72, 95])
def test_a_wrong_sampling_rate_makes_no_heart(factor: float, per_minute: float) -> None:
    assert quality_flags(heart(per_minute), FS * factor) == ("implausible_rate",)
    assert quality_flags(heart(per_minute, fs=1000), 1000) == ()


def test_fast_and_slow_hearts_are_plausible() -> None:
    assert quality_flags(heart(220), FS) == ()
    assert quality_flags(heart(30), FS) == ()
    rng = np.random.default_rng(3)
    # Noise has no rate at all; and of each lead its own, it obeys no law of the limb leads.
    assert quality_flags(rng.normal(0, 0.1, (12, 5000)), FS) == ("limb_leads_contradict",)
    assert quality_flags(np.zeros((12, 5000)), FS) == ()


def test_missing_leads_and_short_recordings() -> None:
    signal = heart(seconds=2.5)
    assert quality_flags(signal, FS) == ()
    signal[LEADS.index("II") + 1 :] = np.nan
    assert quality_flags(signal, FS) == ()
    signal[0] = np.clip(signal[0], None, 0.4 * signal[0].max())
    assert quality_flags(signal, FS) == ("clipped:I",)


def test_which_unit_the_values_are_in() -> None:
    assert wrong_unit(heart()) is None
    assert wrong_unit(heart() * 1000) == "µV"
    assert wrong_unit(heart() / 1000) == "V"
    assert wrong_unit(heart() * 100) is None  # a wrong gain is no wrong unit
    few = np.full((12, 5000), np.nan)
    assert wrong_unit(few) is None
    few[1] = heart()[1] * 1000
    assert wrong_unit(few) == "µV"


@pytest.mark.parametrize(("factor", "unit"), [(1000, "µV"), (1e-3, "V")])
def test_a_file_in_another_unit_is_refused_with_the_cause(tmp_path: Path, factor: float, unit: str) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, signal=(heart() * factor).astype(np.float32), fs=FS, units="mV", leads=LEADS)
    with pytest.raises(ReadError, match=rf"said to be mV are probably {unit}; correct the unit") as caught:
        list(read_recording(path, "lead"))
    assert caught.value.reason == "wrong_unit"
    np.savez(path, signal=(heart() * 80).astype(np.float32), fs=FS, units="mV", leads=LEADS)
    with pytest.raises(ReadError) as caught:
        list(read_recording(path, "lead"))
    assert caught.value.reason == "amplitude_out_of_range"


def test_flags_reach_the_stored_row(tmp_path: Path) -> None:
    signal = heart(fs=250)
    signal[3] = 0.2
    signal[8, 300:400] = 4.0
    signal[9] = np.minimum(signal[9], 0.5 * signal[9].max())
    np.savez(tmp_path / "x.npz", signal=signal.astype(np.float32), fs=250, units="mV", leads=LEADS)
    (stored,) = read_recording(tmp_path / "x.npz", "lead")
    assert stored.quality == ("flat_lead:aVR", "resampled", "clipped:V4", "saturated:V3")


def test_real_recordings_of_good_quality_are_not_suspected(ecg_real: Path) -> None:
    """Of the real recordings, which people chose and labelled, hardly one may be called suspicious."""
    flagged = n = slow = 0
    for path in sorted(ecg_real.rglob("*.hea")):
        try:
            ecg = read_ecg(path)
        except ReadError:
            continue
        used = with_common_gain(ecg).signal[:, : round(10 * ecg.fs)]
        n += 1
        flagged += quality_flags(used, ecg.fs) != ()
        slow += "implausible_rate" in quality_flags(used, ecg.fs / 4)
    assert n > 200
    assert flagged <= 0.02 * n
    assert slow > 0.8 * n  # read at a quarter of the true rate


def test_an_ecg_object_is_left_as_it_was() -> None:
    ecg = ECG(heart().astype(np.float32), FS)
    before = ecg.signal.copy()
    quality_flags(ecg.signal, FS)
    np.testing.assert_array_equal(ecg.signal, before)


@pytest.mark.parametrize("lead", LEADS[:6])
def test_an_inverted_limb_lead_is_named(lead: str) -> None:
    signal = heart(seed=4)
    signal[LEADS.index(lead)] *= -1
    assert lead_flags(signal, FS) == (f"inverted_lead:{lead}",)
    assert f"inverted_lead:{lead}" in quality_flags(np.rint(signal * 1000).astype(np.int16), FS, mv_per_unit=1e-3)


@pytest.mark.parametrize("lead", LEADS[7:])
def test_an_inverted_chest_lead_is_named(lead: str) -> None:
    signal = heart(seed=4)
    signal[LEADS.index(lead)] *= -1
    assert lead_flags(signal, FS) == (f"inverted_lead:{lead}",)


def test_leads_that_were_mixed_up_contradict() -> None:
    signal = heart(seed=4)
    for order in ([1, 0, 2, 3, 4, 5], [0, 1, 2, 3, 5, 4], [3, 1, 2, 0, 4, 5]):
        mixed = signal.copy()
        mixed[:6] = signal[order]
        assert lead_flags(mixed, FS) == ("limb_leads_contradict",)


def test_exchanged_arm_electrodes() -> None:
    """I is inverted, II and III change places, and so do aVR and aVL: every law still holds."""
    one, two, three, right, left, foot = heart(seed=4)[:6]
    signal = heart(seed=4)
    signal[:6] = [-one, three, two, left, right, foot]
    assert lead_flags(signal, FS) == ("arm_reversal",)
    assert "arm_reversal" in standardise(ECG(signal.astype(np.float32), FS)).flags
    signal[10] = np.nan  # V6 alone tells as well
    assert lead_flags(signal, FS) == ("arm_reversal",)
    signal[11] = np.nan
    assert lead_flags(signal, FS) == ()
    assert lead_flags(heart(seed=4), FS) == ()


def test_right_arm_and_left_leg_exchanged() -> None:
    """II is inverted, I and III change places with opposite signs, aVR and aVF change places."""
    one, two, three, right, left, foot = heart(seed=4)[:6]
    signal = heart(seed=4)
    signal[:6] = [-three, -two, -one, foot, left, right]
    assert lead_flags(signal, FS) == ("arm_leg_reversal",)


def test_how_often_exchanged_electrodes_are_found(ptbxl_part: Path) -> None:
    """Of real recordings hardly one is flagged as it is, most are where electrodes were exchanged."""
    found: Counter[str] = Counter()
    files = sorted(ptbxl_part.rglob("*.hea"))[::10]
    for path in files:
        ecg = read_ecg(path)
        one, two, three, right, left, foot = ecg.signal[:6]
        arms, leg, chest = (ecg.signal.copy() for _ in range(3))
        arms[:6] = [-one, three, two, left, right, foot]
        leg[:6] = [-three, -two, -one, foot, left, right]
        chest[10] *= -1
        named = {"none": ecg.signal, "arm_reversal": arms, "arm_leg_reversal": leg, "inverted_lead:V5": chest}
        for flag, signal in named.items():
            flags = lead_flags(signal, ecg.fs)
            found[flag] += flag in flags if flag != "none" else flags != ()
    assert len(files) > 300
    assert found["none"] <= 0.01 * len(files)
    assert min(found["arm_reversal"], found["arm_leg_reversal"], found["inverted_lead:V5"]) > 0.85 * len(files)


def test_gaps_and_missing_leads_are_no_contradiction() -> None:
    signal = heart(seed=4)
    signal[0, 500:900] = np.nan
    signal[9] = np.nan
    assert lead_flags(signal, FS) == ()
    signal[1] = np.nan
    assert lead_flags(signal, FS) == ()
    assert lead_flags(np.zeros((12, 1000)), FS) == ()
