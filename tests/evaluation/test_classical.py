from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from deri.datasets import open_dataset
from deri.ecg import LEADS
from deri.ecg.beats import find_beats
from deri.ecg.measure import FEATURE_NAMES, ecg_features
from deri.evaluation.probe import fit_probe
from deri.evaluation.task import Split
from deri.simulate import simulate
from deri.store import Store, prepare
from deri.store.measurements import extract_features


def recording(
    beats: np.ndarray,
    *,
    axis: float = 45.0,
    width: float = 0.02,
    scale: float = 1.0,
    fs: float = 500.0,
    seconds: float = 10.0,
    f_wave: float = 0.0,
) -> np.ndarray:
    """Gaussian P, R and T at known times, in limb leads by the projection of the axis; (12, n) mV."""
    t = np.arange(round(fs * seconds)) / fs
    bump = lambda centre, sd: np.exp(-0.5 * ((t - centre) / sd) ** 2)  # noqa: E731
    shape = sum(
        bump(b, width) + (0 if f_wave else 0.12 * bump(b - 0.16, 0.025)) + 0.25 * bump(b + 0.28, 0.05) for b in beats
    )
    directions = {"I": 0, "II": 60, "III": 120, "aVR": -150, "aVL": -30, "aVF": 90}
    length = {lead: (2 / np.sqrt(3) if lead in ("I", "II", "III") else 1.0) for lead in directions}
    gains = [
        length[lead] * np.cos(np.radians(axis - directions[lead])) if lead in directions else 0.2 * (i - 5)
        for i, lead in enumerate(LEADS)
    ]
    signal = scale * np.outer(gains, np.asarray(shape))
    if f_wave:
        signal += 0.1 * np.sin(2 * np.pi * f_wave * t)
    return signal + 0.002 * np.random.default_rng(0).normal(size=signal.shape)


def measure(signal: np.ndarray, fs: float = 500.0) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, ecg_features(signal, fs), strict=True))


REGULAR = np.arange(0.6, 9.6, 0.8)


@pytest.mark.parametrize("fs", [100.0, 500.0, 1000.0])
def test_beats_are_found_where_they_are(fs: float) -> None:
    times = np.array([0.5, 1.2, 2.1, 2.5, 3.6, 4.4, 5.2, 6.6, 7.2, 8.8])
    found = find_beats(recording(times, fs=fs), fs)
    np.testing.assert_allclose(found / fs, times, atol=0.03)


@pytest.mark.parametrize("rate", [40, 75, 150, 220])
def test_rate_and_regularity(rate: int) -> None:
    values = measure(recording(np.arange(0.5, 9.7, 60 / rate)))
    assert values["rate"] == pytest.approx(rate, rel=0.02)
    assert values["rr_cv"] < 0.01
    assert np.isfinite([values[f"{wave}_{lead}"] for wave in "pqrst" for lead in LEADS]).all()
    irregular = np.cumsum(np.random.default_rng(1).uniform(0.4, 1.1, 13))
    rr = np.diff(irregular[irregular < 9.9])
    values = measure(recording(irregular[irregular < 9.9]))
    assert values["rr_sd"] == pytest.approx(rr.std(ddof=1), abs=0.01)
    assert values["rmssd"] == pytest.approx(np.sqrt((np.diff(rr) ** 2).mean()), abs=0.015)


@pytest.mark.parametrize("axis", [-60.0, 10.0, 45.0, 110.0])
def test_axis(axis: float) -> None:
    values = measure(recording(REGULAR, axis=axis))
    assert values["axis_deg"] == pytest.approx(axis, abs=4)
    assert values["axis_cos"] == pytest.approx(np.cos(np.radians(values["axis_deg"])))


def test_amplitudes_are_in_millivolts_and_linear() -> None:
    one, two = measure(recording(REGULAR)), measure(recording(REGULAR, scale=2.0))
    assert one["r_II"] == pytest.approx(2 / np.sqrt(3) * np.cos(np.radians(15)), abs=0.08)
    assert one["t_II"] == pytest.approx(0.25 * one["r_II"], abs=0.05)
    for name in ("r_II", "s_aVR", "t_II", "net_I", "p_II"):
        assert two[name] == pytest.approx(2 * one[name], rel=0.06), name
    assert two["sokolow_lyon"] > one["sokolow_lyon"]


@pytest.mark.parametrize("width", [0.015, 0.03])
def test_qrs_is_as_wide_as_a_reader_sees_it(width: float) -> None:
    # x exp(-x²/2), the slope of a Gaussian, falls below 0.04 of its peak 3.23 standard deviations from the middle.
    assert measure(recording(REGULAR, width=width))["qrs_ms"] == pytest.approx(2 * 3.23 * width * 1000, rel=0.08)


def test_fibrillation_waves_are_seen_between_the_beats() -> None:
    quiet, waving = measure(recording(REGULAR)), measure(recording(REGULAR, f_wave=6.3))
    assert waving["residual_peak_hz_II"] == pytest.approx(6.3, abs=0.3)
    assert waving["residual_rms_II"] > 5 * quiet["residual_rms_II"]


@pytest.mark.parametrize(
    "signal", [np.zeros((12, 5000)), np.full((12, 5000), 0.4), np.zeros((12, 100)), np.zeros((12, 1))]
)
def test_what_cannot_be_measured_is_nan(signal: np.ndarray) -> None:
    values = measure(signal)
    assert np.isnan(values["rate"])
    assert np.isnan(values["r_II"])
    assert not np.isinf(list(values.values())).any()


def test_one_beat_has_amplitudes_and_no_rhythm() -> None:
    values = measure(recording(np.array([2.0]), seconds=3.5))
    assert np.isnan(values["rate"])
    assert values["r_II"] > 0.9


def test_features_of_a_store_leave_padding_out(tmp_path: object) -> None:
    class Padded:
        fs = 500.0
        table = pa.table({"quality": [["short"], []]})
        index = {"valid_samples": __import__("pandas").Series([5000, 4000])}  # noqa: RUF012

        def signals(self, rows: np.ndarray) -> np.ndarray:
            whole = recording(REGULAR).astype(np.float32)
            short = whole.copy()
            short[:, 4000:] = 0
            return np.stack([whole, short])[rows]

        def lead_mask(self, rows: np.ndarray) -> np.ndarray:
            return np.ones((len(rows), 12), bool)

    found = extract_features(Padded(), np.array([1, 0]))  # type: ignore[arg-type]
    whole = recording(REGULAR).astype(np.float32)
    np.testing.assert_allclose(found[0], ecg_features(whole[:, :4000], 500.0), rtol=1e-5)
    np.testing.assert_allclose(found[1], ecg_features(whole, 500.0), rtol=1e-5)


def test_rates_of_simulated_findings(tmp_path_factory: pytest.TempPathFactory) -> None:
    from deri.datasets import open_dataset

    folder = tmp_path_factory.mktemp("classical")
    simulate("ptb-xl", 170, folder / "source", seed=8)
    prepare(open_dataset("ptb-xl", folder / "source"), folder / "store")
    store = Store.open(folder / "store")
    rows = store.task_rows("labels")
    values = extract_features(store, rows)
    names, labels = store.labels("labels", rows)
    rate = values[:, FEATURE_NAMES.index("rate")]
    for code, low, high in (("STACH", 99, 168), ("SBRAD", 34, 61)):
        own = rate[labels[:, names.index(code)] == 1]
        assert len(own) >= 2
        # Disturbed recordings and tall T waves mislead any detector now and then.
        assert ((own > low) & (own < high)).mean() >= 0.8, (code, own)
    width = values[:, FEATURE_NAMES.index("qrs_ms")]
    wide, usual = (
        width[labels[:, [names.index(code) for code in codes]].any(axis=1)] for codes in (("CLBBB", "CRBBB"), ("NORM",))
    )
    block, normal = np.nanmedian(wide), np.nanmedian(usual)
    assert block > 115
    assert normal < 110


def split(n: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = np.nan
    labels = np.stack([(np.nan_to_num(x[:, 0]) > 0) ^ (np.nan_to_num(x[:, 1]) > 0), np.zeros(n), np.ones(n)], axis=1)
    return Split(x, labels.astype(np.uint8), np.arange(n))


def test_boosting_learns_what_no_line_can_and_keeps_constants() -> None:
    train, val, test = split(600, 0), split(50, 1), split(300, 2)
    probe = fit_probe(train, val, test, protocol="boosting", seed=1)
    assert roc_auc_score(test.labels[:, 0], probe.test[:, 0]) > 0.93
    np.testing.assert_allclose(probe.test[:, 1], 0.5 / 601)
    np.testing.assert_allclose(probe.val[:, 2], 600.5 / 601)
    assert probe.val.shape == (50, 3)
    again = fit_probe(train, val, test, protocol="boosting", seed=1)
    np.testing.assert_array_equal(again.test, probe.test)


def test_a_printed_layout_is_not_measured(shared: Path, tmp_path: Path) -> None:
    folder = shared / "faults" / "D08"
    if not folder.is_dir():
        pytest.skip(f"no reported faults in {folder}")
    prepare(open_dataset("folder", folder), tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert "partial_lead:V1" in store.index["quality"][0]
    assert np.isnan(extract_features(store, store.rows())).all()
