from __future__ import annotations

import numpy as np
import pytest

from deri.ecg import ECG, LEADS, MIMIC_LEADS
from deri.errors import DeriError, ReadError


def test_order_and_case_of_names_do_not_matter() -> None:
    values = np.random.default_rng(0).normal(size=(12, 50)).astype(np.float32)
    ecg = ECG.from_leads(values, [name.upper() for name in MIMIC_LEADS], 500)
    for i, name in enumerate(MIMIC_LEADS):
        assert np.array_equal(ecg.signal[LEADS.index(name)], values[i])
    assert ecg.metadata["derived_leads"] == {}
    assert ecg.missing_leads == ()


@pytest.mark.parametrize("given", [("I", "II"), ("I", "III"), ("II", "III")])
def test_limb_leads_follow_from_any_two(given: tuple[str, str]) -> None:
    rng = np.random.default_rng(1)
    right, left, foot = rng.normal(size=(3, 40))  # electrode potentials: an expectation that knows no lead formula
    leads = {"I": left - right, "II": foot - right, "III": foot - left}
    augmented = {
        "aVR": right - (left + foot) / 2,
        "aVL": left - (right + foot) / 2,
        "aVF": foot - (right + left) / 2,
    }
    ecg = ECG.from_leads([leads[name] for name in given], given, 500)
    for name, expected in (leads | augmented).items():
        np.testing.assert_allclose(ecg.signal[LEADS.index(name)], expected, atol=1e-6)
    assert set(ecg.metadata["derived_leads"]) == ({"I", "II", "III"} - set(given)) | set(augmented)
    assert ecg.missing_leads == LEADS[6:]
    assert np.isnan(ecg.signal[6:]).all()


def test_a_recorded_lead_is_never_overwritten() -> None:
    values = np.arange(4 * 30, dtype=np.float32).reshape(4, 30)
    ecg = ECG.from_leads(values, ["I", "II", "III", "aVR"], 500)  # III is not II - I here
    assert np.array_equal(ecg.signal[2], values[2])
    assert np.array_equal(ecg.signal[3], values[3])
    assert set(ecg.metadata["derived_leads"]) == {"aVL", "aVF"}


def test_other_channels_are_dropped_and_named() -> None:
    ecg = ECG.from_leads(np.ones((4, 30)), ["I", "vx", "V1", "PLETH"], 500, {"source_file": "a.hea"})
    assert ecg.metadata["dropped_leads"] == ["vx", "PLETH"]
    assert ecg.metadata["source_file"] == "a.hea"


@pytest.mark.parametrize(
    ("signal", "names", "reason"),
    [
        ([np.ones(30), np.ones(29)], ["I", "II"], "unequal_lead_lengths"),
        (np.ones((3, 30)), ["I", "II"], "lead_count_mismatch"),
        (np.ones((2, 30)), ["V1", "v1"], "duplicate_lead"),
        (np.ones((1, 30)), ["vx"], "unknown_leads"),
    ],
)
def test_what_cannot_be_a_recording_has_a_reason(signal, names: list[str], reason: str) -> None:
    with pytest.raises(ReadError) as caught:
        ECG.from_leads(signal, names, 500)
    assert caught.value.reason == reason


def test_lengths_are_named() -> None:
    with pytest.raises(ReadError, match=r"I: 30, II: 29 samples"):
        ECG.from_leads([np.ones(30), np.ones(29)], ["I", "II"], 500)


def test_properties() -> None:
    signal = np.zeros((12, 1000), dtype=np.float64)
    signal[3] = np.nan
    signal[5, :999] = np.inf
    ecg = ECG(signal, 250.0)
    assert ecg.signal.dtype == np.float32
    assert (ecg.n_samples, ecg.duration, ecg.missing_leads) == (1000, 4.0, ("aVR",))
    assert "4 s at 250 Hz" in repr(ecg)
    assert "aVR" in repr(ecg)


def test_wrong_shape_rate_or_leads_are_refused() -> None:
    with pytest.raises(DeriError, match=r"\(11, 5\)"):
        ECG(np.zeros((11, 5), dtype=np.float32), 500)
    with pytest.raises(DeriError, match="positive"):
        ECG(np.zeros((12, 5), dtype=np.float32), 0)
    with pytest.raises(DeriError, match="positive"):
        ECG(np.zeros((12, 5), dtype=np.float32), float("nan"))
    with pytest.raises(DeriError, match="from_leads"):
        ECG(np.zeros((12, 5), dtype=np.float32), 500, {}, MIMIC_LEADS)
