from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from deri.ecg import ECG, LEADS, normalise, standardise, standardise_windows
from deri.ecg.standardise import choose_windows, low_pass, repair_published, resample, window_count
from deri.errors import DeriError, ReadError


def noise(n: int = 5000, fs: float = 500, scale: float = 0.5, seed: int = 0) -> ECG:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(12, n)) * scale
    one, two = signal[:2]
    signal[2:6] = [two - one, -(one + two) / 2, one - two / 2, two - one / 2]  # as Einthoven and Goldberger have it
    return ECG(signal.astype(np.float32), fs, {"source_file": "x.hea"})


def sines(fs: float, n: int, hertz: float = 7.0, offset: float = 0.0) -> ECG:
    t = np.arange(n) / fs
    rows = [np.sin(2 * np.pi * hertz * t + i / 3) + offset for i in range(12)]
    return ECG(np.array(rows, dtype=np.float32), fs)


def reason_of(ecg: ECG, **options) -> str:
    with pytest.raises(ReadError) as caught:
        standardise(ecg, **options)
    return caught.value.reason


def test_what_fits_already_is_unchanged() -> None:
    ecg = noise()
    done = standardise(ecg)
    assert np.array_equal(done.signal, ecg.signal)
    assert (done.valid_samples, done.repaired_samples, done.flags) == (5000, 0, ())
    assert done.signal.dtype == np.float32


def test_longer_is_cropped_to_its_beginning_and_shorter_gets_zeros() -> None:
    long = noise(7000)
    done = standardise(long)
    assert np.array_equal(done.signal, long.signal[:, :5000])
    assert (done.valid_samples, done.flags) == (5000, ("cropped",))
    short = noise(3000)
    done = standardise(short)
    assert np.array_equal(done.signal[:, :3000], short.signal)
    assert not done.signal[:, 3000:].any()
    assert (done.valid_samples, done.flags) == (3000, ("padded",))


@settings(max_examples=25)
@given(
    fs=st.sampled_from([100, 128, 240, 250, 257, 360, 400, 499.5, 512, 977, 1000, 2000]),
    seconds=st.floats(2.5, 14),
    hertz=st.floats(0.8, 30),
    offset=st.sampled_from([0.0, 5.0, -20.0]),
)
def test_a_sine_stays_a_sine(fs: float, seconds: float, hertz: float, offset: float) -> None:
    n = round(fs * seconds)
    done = standardise(sines(fs, n, hertz, offset))
    assert done.valid_samples == min(5000, round(n * 500 / fs))
    assert ("resampled" in done.flags) == (fs != 500)
    t = np.arange(done.valid_samples) / 500
    for lead in (0, 7):
        expected = np.sin(2 * np.pi * hertz * t + lead / 3) + offset
        inner = slice(60, done.valid_samples - 60)
        assert np.abs(done.signal[lead, inner] - expected[inner]).max() < 0.002
        # At the ends the filter has to guess how the wave goes on: by point reflection, which stays within ±3.
        assert np.abs(done.signal[lead, : done.valid_samples] - offset).max() < 3
        # An offset must not ring there: without it every sample is the same, ends included.
        plain = standardise(sines(fs, n, hertz, 0.0)).signal[lead, : done.valid_samples]
        np.testing.assert_allclose(done.signal[lead, : done.valid_samples] - offset, plain, atol=1e-4)
    assert not done.signal[:, done.valid_samples :].any()


def test_an_offset_alone_does_not_ring() -> None:
    ecg = sines(1000, 10000, offset=0)
    shifted = ECG(ecg.signal + 8, 1000)
    np.testing.assert_allclose(standardise(shifted).signal - 8, standardise(ecg).signal, atol=1e-5)


@pytest.mark.parametrize("ratio", ["1/2", "2", "1/4", "25/18", "125/128", "500/257"])
@pytest.mark.parametrize("n", [20, 301, 5000])
def test_resampling_is_a_polyphase_filter_over_a_point_reflection(ratio: str, n: int) -> None:
    step = Fraction(ratio)
    signal = np.random.default_rng(n).normal(1, 1, (2, 3, n)).astype(np.float32)
    mean = signal.mean(axis=-1, keepdims=True, dtype=np.float64)
    expected = resample_poly(
        signal - mean, step.numerator, step.denominator, axis=-1, window=low_pass(step), padtype="antireflect"
    )
    found = resample(signal, step)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected + mean, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("fs", [1000, 400, 257])
def test_only_the_part_used_is_resampled_and_it_makes_no_difference(fs: int) -> None:
    ecg = noise(fs * 25, fs)
    whole = resample(ecg.signal, Fraction(500, fs))
    np.testing.assert_allclose(standardise(ecg).signal, whole[:, :5000], atol=2e-3)
    np.testing.assert_allclose(standardise(ecg).signal[:, 100:], whole[:, 100:5000], atol=1e-4)


def test_gaps_are_filled_within_their_own_lead() -> None:
    ecg = noise()
    signal = ecg.signal.copy()
    signal[4, :3] = np.nan
    signal[4, 100:103] = [np.nan, np.inf, -np.inf]
    signal[9, -2:] = np.nan
    done = standardise(ECG(signal, 500))
    expected = ecg.signal.copy()
    expected[4, :3] = signal[4, 3]
    a, b = signal[4, 99], signal[4, 103]
    expected[4, 100:103] = [a + (b - a) * k / 4 for k in (1, 2, 3)]
    expected[9, -2:] = signal[9, -3]
    np.testing.assert_allclose(done.signal, expected, atol=1e-6)
    assert (done.repaired_samples, done.flags) == (8, ("repaired",))
    assert np.isnan(signal[4, 0])  # the recording itself is untouched


def test_gap_limits() -> None:
    signal = noise().signal.copy()
    signal[2, 1000:1500] = np.nan  # exactly one second
    assert standardise(ECG(signal, 500)).repaired_samples == 500
    signal[2, 1500] = np.nan
    assert reason_of(ECG(signal, 500)) == "gaps_too_long"
    signal = noise().signal.copy()
    signal[5, ::5] = np.nan  # exactly a fifth
    assert standardise(ECG(signal, 500)).repaired_samples == 1000
    signal[5, 1] = np.nan
    with pytest.raises(ReadError, match=r"x\.hea: lead aVF lacks 20 %"):
        standardise(ECG(signal, 500, {"source_file": "x.hea"}))


def test_what_comes_after_the_part_used_does_not_matter() -> None:
    signal = noise(12000).signal.copy()
    signal[3, 6000:] = np.nan
    signal[7, 7000] = 1e6
    assert standardise(ECG(signal, 500)).repaired_samples == 0


def test_published_repair_takes_the_mean_over_neighbours_of_all_leads() -> None:
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(12, 60)).astype(np.float32)
    signal[3, [0, 20, 21]] = np.nan
    signal[:, 40:45] = np.inf
    expected = signal.astype(float)
    for lead, t in np.argwhere(~np.isfinite(signal)):
        values = [x for x in signal[:, max(0, t - 6) : t + 7].ravel() if np.isfinite(x)]
        expected[lead, t] = sum(map(float, values)) / len(values)
    np.testing.assert_allclose(repair_published(signal), expected, atol=1e-6)


def test_published_repair_by_option() -> None:
    signal = noise().signal.copy()
    signal[2, 1000:2000] = np.nan  # too long for one lead; the other leads fill it
    done = standardise(ECG(signal, 500), repair="published")
    assert done.repaired_samples == 1000
    assert np.array_equal(done.signal, repair_published(signal))
    signal[:, 3000:3013] = np.nan  # the middle one has no neighbour within six
    assert reason_of(ECG(signal, 500), repair="published") == "gaps_too_long"
    with pytest.raises(DeriError, match="median"):
        standardise(noise(), repair="median")


def test_recordings_that_are_refused() -> None:
    assert reason_of(noise(999)) == "too_short"
    assert standardise(noise(1000)).valid_samples == 1000
    assert reason_of(noise(5000, fs=49)) == "bad_sampling_rate"
    assert reason_of(noise(5000, fs=1e6)) == "bad_sampling_rate"
    assert reason_of(ECG(np.full((12, 5000), 0.3, dtype=np.float32), 500)) == "flat_record"
    assert reason_of(noise(scale=5e-7)) == "amplitude_out_of_range"  # nanovolts
    assert reason_of(noise(scale=500)) == "amplitude_out_of_range"  # microvolts taken for millivolts
    signal = noise().signal.copy()
    signal[[1, 7]] = np.nan
    with pytest.raises(ReadError, match=r"x\.hea: leads missing: II, V2; 10 are there, at least 11 are") as caught:
        standardise(ECG(signal, 500, {"source_file": "x.hea"}), min_leads=11)
    assert caught.value.reason == "missing_leads"
    assert reason_of(ECG(np.full((12, 5000), np.nan, np.float32), 500)) == "missing_leads"
    assert standardise(noise(), min_leads=12).missing_leads == ()


def test_amplitude_limit_is_that_of_the_store() -> None:
    signal = noise().signal.copy()
    signal[0, 9] = 32.767
    assert standardise(ECG(signal, 500)).signal.max() == np.float32(32.767)
    signal[0, 9] = -32.769
    with pytest.raises(ReadError, match="unit or the gain"):
        standardise(ECG(signal, 500))


def test_quality_flags() -> None:
    signal = noise(6000, 1000).signal.copy()
    signal[6] = 0.25
    metadata = {"warnings": {"checksum_mismatch": "…"}, "derived_leads": {"III": "II - I"}}
    done = standardise(ECG(signal, 1000, metadata))
    assert set(done.flags) == {"checksum_mismatch", "derived_lead:III", "resampled", "padded", "flat_lead:V1"}
    assert standardise(noise(scale=0.01)).flags == ("low_amplitude",)


def test_other_lengths_and_rates() -> None:
    done = standardise(noise(), fs=100, samples=400)
    assert done.signal.shape == (12, 400)
    assert done.flags == ("resampled", "cropped")


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), fs=st.sampled_from([100, 360, 500, 1000]), share=st.floats(0, 0.1))
def test_the_result_is_always_finite_and_of_standard_shape(seed: int, fs: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(12, int(fs * rng.uniform(2, 13)))).astype(np.float32)
    signal[rng.random(signal.shape) < share] = np.nan
    done = standardise(ECG(signal, fs))
    assert done.signal.shape == (12, 5000)
    assert np.isfinite(done.signal).all()
    assert ("repaired" in done.flags) == (done.repaired_samples > 0)
    assert len(LEADS) == len(done.signal)


def without(ecg: ECG, *leads: str, at: slice = slice(None)) -> ECG:
    signal = ecg.signal.copy()
    for lead in leads:
        signal[LEADS.index(lead), at] = np.nan
    return ECG(signal, ecg.fs, ecg.metadata)


@pytest.mark.parametrize("fs", [500, 257, 1000])
@pytest.mark.parametrize("repair", ["lead", "published"])
def test_missing_leads_are_zero_and_leave_the_others_alone(fs: int, repair: str) -> None:
    whole = noise(fs * 9, fs)
    whole.signal[3, 100] = np.nan  # a gap, so that the published repair has something to mix
    gone = ("II", "V1", "V6")
    done = standardise(without(whole, *gone), repair=repair)
    assert done.missing_leads == gone
    assert [flag for flag in done.flags if flag.startswith("missing")] == [f"missing_lead:{lead}" for lead in gone]
    assert done.lead_mask.tolist() == [lead not in gone for lead in LEADS]
    assert not done.signal[~done.lead_mask].any()
    assert not any(flag.startswith("flat_lead") for flag in done.flags)
    assert done.repaired_samples == 1
    expected = standardise(whole, repair="lead").signal
    around = slice(0, 5000) if repair == "lead" else slice(300 * 500 // fs, 5000)  # the gap is filled otherwise
    np.testing.assert_allclose(done.signal[done.lead_mask, around], expected[done.lead_mask, around], atol=1e-5)


def test_published_repair_does_not_mix_missing_leads_in() -> None:
    signal = noise().signal.copy()
    signal[7, 50] = np.nan
    gone = without(ECG(signal, 500), "I")
    expected = repair_published(signal[1:])
    np.testing.assert_array_equal(standardise(gone, repair="published").signal[1:], expected)


def test_one_lead_is_enough_and_none_is_not() -> None:
    single = without(noise(), *LEADS[:4], *LEADS[5:])
    done = standardise(single)
    assert done.lead_mask.sum() == 1
    np.testing.assert_array_equal(done.signal[4], single.signal[4])
    assert reason_of(single, min_leads=2) == "missing_leads"
    assert reason_of(without(noise(), *LEADS)) == "missing_leads"
    flat = ECG(np.where(np.isnan(single.signal), np.nan, 0.3), 500)
    assert reason_of(flat) == "flat_record"
    # Lead by lead at different times, as on a printed sheet: what the part used does not hold is missing there.
    later = without(noise(10000), "V3", at=slice(0, 5000))
    assert standardise(later).missing_leads == ("V3",)
    assert reason_of(without(noise(10000), *LEADS, at=slice(0, 5000))) == "gaps_too_long"


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(2.5, 1), (10, 1), (12.4, 1), (12.5, 2), (20, 2), (22.49, 2), (22.5, 3), (30, 3), (115.2, 12), (86400, 8640)],
)
@pytest.mark.parametrize("fs", [100, 500, 977, 1000])
def test_window_count(seconds: float, count: int, fs: float) -> None:
    assert window_count(math.ceil(seconds * fs), fs) == count


def test_windows_are_spread_from_the_first_on() -> None:
    assert list(choose_windows(12, None)) == list(range(12))
    assert list(choose_windows(12, 30)) == list(range(12))
    assert list(choose_windows(12, 1)) == [0]
    assert list(choose_windows(12, 5)) == [0, 2, 4, 7, 9]


@given(count=st.integers(1, 10_000), wanted=st.integers(1, 200))
def test_chosen_windows_are_distinct_and_even(count: int, wanted: int) -> None:
    chosen = list(choose_windows(count, wanted))
    assert len(chosen) == min(count, wanted)
    assert chosen[0] == 0
    assert chosen[-1] < count
    steps = np.diff([*chosen, count])
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("fs", [500, 257, 360, 977.5, 1000])
def test_windows_are_the_stretches_of_the_whole_recording(fs: float) -> None:
    ecg = noise(round(33.7 * fs), fs)
    whole = resample(ecg.signal, Fraction(500 / fs).limit_denominator(1000)) if fs != 500 else ecg.signal
    found = list(standardise_windows(ecg))
    assert [done.window for done in found] == [0, 1, 2, 3]
    assert [done.start_sample for done in found] == [round(k * 10 * fs) for k in range(4)]
    assert [done.valid_samples for done in found] == [5000, 5000, 5000, round((ecg.n_samples - 30 * fs) * 500 / fs)]
    for done in found:
        valid = done.valid_samples
        stretch = whole[:, done.window * 5000 :][:, :valid]
        inner = slice(0, valid - 100)  # at its end the first window sees less of the future than the whole does
        np.testing.assert_allclose(done.signal[:, inner], stretch[:, inner], atol=1e-4)
        assert not done.signal[:, valid:].any()
        assert ("cropped" in done.flags, "padded" in done.flags) == (True, valid < 5000)
    np.testing.assert_array_equal(found[0].signal, standardise(ecg).signal)
    assert [done.window for done in standardise_windows(ecg, windows=2)] == [0, 2]


def test_unusable_windows_are_left_out_while_another_is_usable() -> None:
    signal = noise(20000).signal.copy()
    signal[2, :2000] = np.nan
    signal[:, 10000:15000] = 0.2
    ecg = ECG(signal, 500)
    assert [done.window for done in standardise_windows(ecg)] == [1, 3]
    with pytest.raises(ReadError) as caught:
        list(standardise_windows(ecg, windows=1))
    assert caught.value.reason == "gaps_too_long"
    signal[:, 5000:10000] = signal[:, 15000:] = 0
    with pytest.raises(ReadError) as caught:
        list(standardise_windows(ecg))
    assert caught.value.reason == "gaps_too_long"


def printed(fs: float = 500, seconds: float = 2.5) -> ECG:
    """Four groups of three leads, one after the other, and lead II throughout."""
    n = round(seconds * fs)
    signal = noise(4 * n, fs).signal.copy() + np.linspace(-0.3, 0.3, 12)[:, None]
    for row in (0, *range(2, 12)):
        at = slice(row // 3 * n, (row // 3 + 1) * n)
        stretch = signal[row, at].copy()
        signal[row] = np.nan
        signal[row, at] = stretch
    return ECG(signal, fs)


def test_printed_layout_keeps_each_lead_at_its_time() -> None:
    ecg = printed()
    done = standardise(ecg)
    there = np.isfinite(ecg.signal)
    np.testing.assert_array_equal(done.signal[there], ecg.signal[there])
    for row in (0, *range(2, 12)):
        np.testing.assert_allclose(done.signal[row, ~there[row]], ecg.signal[row, there[row]].mean(), atol=1e-6)
    assert done.flags == tuple(f"partial_lead:{lead}" for lead in LEADS if lead != "II")
    assert (done.missing_leads, done.repaired_samples, done.valid_samples) == ((), 0, 5000)
    assert ecg.partial_leads == tuple(lead for lead in LEADS if lead != "II")
    centred = normalise(done.signal)  # what a model sees
    assert np.abs(centred[~there]).max() < 1e-5


def test_printed_layout_at_another_rate_and_with_a_small_gap() -> None:
    ecg = printed(1000)
    ecg.signal[6, 5500:5510] = np.nan
    done = standardise(ecg)
    assert (done.repaired_samples, "repaired" in done.flags, "partial_lead:V1" in done.flags) == (10, True, True)
    whole = standardise(ECG(np.nan_to_num(ecg.signal), 1000)).signal
    inner = np.zeros((12, 5000), bool)
    for row in range(12):
        first, last = (0, 5000) if row == 1 else (row // 3 * 1250, row // 3 * 1250 + 1250)
        inner[row, first + 40 : last - 40] = True
    inner[6, 2700:2800] = False
    np.testing.assert_allclose(done.signal[inner], whole[inner], atol=2e-3)
    assert np.ptp(done.signal[11, :3750]) == 0


def test_short_strips_are_missing_and_single_dropouts_are_refused() -> None:
    short = printed(500, 3.0)  # of the last group 1 s lies within the 10 s
    done = standardise(short)
    assert done.missing_leads == ("V4", "V5", "V6")
    assert not done.signal[9:].any()
    assert "partial_lead:V3" in done.flags
    assert reason_of(short, min_leads=10) == "missing_leads"
    signal = noise().signal.copy()
    signal[2, :2000] = signal[3, :1500] = np.nan  # two electrodes that were put on late: no printed layout
    assert reason_of(ECG(signal, 500)) == "gaps_too_long"
