"""Recordings with fewer than twelve leads and of several windows, in a store."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deri.datasets import Dataset
from deri.ecg import ECG, LEADS, read_ecg, standardise, standardise_windows
from deri.errors import DeriError
from deri.store import Store, chunk, prepare
from support import windowed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return windowed.dataset(tmp_path_factory.mktemp("windowed") / "source")


@pytest.fixture(scope="module")
def store(data: Dataset) -> Store:
    prepare(data, data.root.parent / "all", windows=None)
    return Store.open(data.root.parent / "all")


def test_every_window_is_a_row(data: Dataset, store: Store) -> None:
    index = store.index
    assert {name: rows["window"].tolist() for name, rows in index.groupby("record_id")} == windowed.WINDOWS
    assert (len(store), store.recordings, store.meta["n"], store.meta["recordings"]) == (10, 6, 10, 6)
    for name, part in index.groupby("record_id"):
        ecg = read_ecg(data.root / f"{name}.npz")
        done = list(standardise_windows(ecg))
        assert part["start_sample"].tolist() == [round(w * 10 * ecg.fs) for w in part["window"]]
        assert part["valid_samples"].tolist() == [window.valid_samples for window in done]
        assert part["n_samples"].unique().tolist() == [ecg.n_samples]
        signals = np.stack([window.signal for window in done])
        np.testing.assert_allclose(store.signals(part.index.to_numpy()), signals, atol=5.1e-4)
        for column in ("labels", "split", "report_id", "subject_id", "file"):
            assert part[column].astype(str).nunique() == 1
    assert index["valid_samples"][index["record_id"] == "long"].tolist() == [5000, 5000, 5000, 2000]


def test_rows_are_recordings_unless_windows_are_asked_for(store: Store) -> None:
    names = store.index["record_id"].to_numpy()
    assert names[store.rows()].tolist() == [name for name, *_ in windowed.RECORDINGS]
    np.testing.assert_array_equal(store.rows(windows=True), np.arange(10))
    assert names[store.rows("train")].tolist() == ["ten", "long", "single", "gap"]
    assert names[store.rows("train", windows=True)].tolist() == ["ten", *["long"] * 4, "single", "gap", "gap"]
    assert store.index["window"].iloc[store.rows()].tolist() == [0, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(store.task_rows("labels"), store.rows())
    assert len(store.task_rows("labels", "train", windows=True)) == 8
    every, owner = store.windows_of([6, 0, 3])  # gap's first window, ten, and the third of long
    assert every.tolist() == [6, 7, 0, 1, 2, 3, 4]
    assert owner.tolist() == [0, 0, 1, 2, 2, 2, 2]
    assert [part.tolist() for part in store.windows_of([])] == [[], []]
    with pytest.raises(IndexError):
        store.windows_of([10])


def test_missing_leads_are_masked_and_zero(store: Store) -> None:
    masks = dict(zip(store.index["record_id"], store.lead_mask(np.arange(10)), strict=True))
    assert masks["single"].tolist() == [lead == "II" for lead in LEADS]
    assert all(mask.all() for name, mask in masks.items() if name != "single")
    row = int(np.flatnonzero(store.index["record_id"] == "single")[0])
    units = store.signals_int16([row])[0]
    assert units[1].any()
    assert not units[[i for i in range(12) if i != 1]].any()
    assert list(store.index["missing_leads"][row]) == [lead for lead in LEADS if lead != "II"]
    assert "missing_lead:V3" in store.index["quality"][row]
    eight = store.index["quality"][store.index["record_id"] == "eight"].iloc[0]
    assert set(eight) == {"padded", *(f"derived_lead:{lead}" for lead in ("III", "aVR", "aVL", "aVF"))}


def test_the_waveform_column_is_the_digest_of_the_rows_bytes(store: Store) -> None:
    for row in range(len(store)):
        data = store.signals_int16([row])[0].astype("<i2").tobytes()
        assert store.index["waveform"][row] == hashlib.sha256(data).hexdigest()[:32]


def test_the_first_ten_seconds_are_the_default(data: Dataset, tmp_path: Path) -> None:
    summary = prepare(data, tmp_path / "s")
    assert (summary.read, summary.windows, summary.longer) == (5, 5, 2 - 1)  # gap begins flat and is refused
    assert summary.rejected == {"flat_record": 1}
    assert "1 recordings are longer than 10 s" in summary.text()
    assert "--windows all keeps the rest" in summary.text()
    store = Store.open(tmp_path / "s")
    assert len(store) == store.recordings == 5
    for i, name in enumerate(store.index["record_id"]):
        expected = standardise(read_ecg(data.root / f"{name}.npz")).signal
        np.testing.assert_allclose(store.signals([i])[0], expected, atol=5.1e-4)


def test_windows_are_spread_and_counts_are_of_recordings(data: Dataset, tmp_path: Path) -> None:
    summary = prepare(data, tmp_path / "s", windows=2)
    store = Store.open(tmp_path / "s")
    windows = {name: rows["window"].tolist() for name, rows in store.index.groupby("record_id")}
    assert windows == {**windowed.WINDOWS, "long": [0, 2], "gap": [1]}
    assert (summary.read, summary.windows, summary.splits) == (6, 7, {"train": 4, "val": 1, "test": 1})
    assert summary.per_source == {"test": {"read": 6, "rejected": {}}}
    assert "6 recordings, 6 stored" in summary.text()
    assert "windows: 7 of 10 s" in summary.text()
    assert json.loads((tmp_path / "s" / "store.json").read_text())["plan"]["windows"] == 2
    with pytest.raises(DeriError, match="--windows 2, now all"):
        prepare(data, tmp_path / "s", windows=None)
    with pytest.raises(DeriError, match="--min-leads 1, now 2"):
        prepare(data, tmp_path / "s", windows=2, min_leads=2)


def test_too_few_leads_are_refused(data: Dataset, tmp_path: Path) -> None:
    summary = prepare(data, tmp_path / "s", windows=None, min_leads=2)
    assert summary.rejected == {"missing_leads": 1}
    store = Store.open(tmp_path / "s")
    assert store.rejects["record_id"].tolist() == ["single"]
    assert "1 are there, at least 2 are wanted" in store.rejects["detail"][0]
    for options in ({"min_leads": 0}, {"min_leads": 13}, {"windows": 0}):
        with pytest.raises(DeriError, match="--"):
            prepare(data, tmp_path / "t", **options)


def test_workers_and_shards_change_nothing(data: Dataset, store: Store, tmp_path: Path, content) -> None:
    prepare(data, tmp_path / "s", windows=None, workers=2)
    assert content(tmp_path / "s") == content(store.path)


def test_recordings_that_share_an_id_are_told_apart(data: Dataset, tmp_path: Path) -> None:
    data.examples["record_id"] = data.examples["record_id"].replace({"ten": "long"})
    prepare(data, tmp_path / "s", windows=None)
    data.examples["record_id"] = [name for name, *_ in windowed.RECORDINGS]
    assert Store.open(tmp_path / "s").rows().tolist() == [0, 1, 5, 6, 8, 9]


def test_a_recording_that_fails_halfway_leaves_no_row(data: Dataset, tmp_path: Path, monkeypatch) -> None:
    """Windows are written as they come; those of a recording that is refused after all are taken back."""
    with monkeypatch.context() as patch:
        quantise = chunk.quantise
        calls: list[int] = []

        def broken(signal: np.ndarray) -> np.ndarray:
            calls.append(1)
            if len(calls) == 4:  # the third window of long
                raise ZeroDivisionError("a defect")
            return quantise(signal)

        patch.setattr(chunk, "quantise", broken)
        summary = prepare(data, tmp_path / "s", windows=None)
    assert (summary.read, summary.windows, summary.rejected) == (5, 6, {"reader_error": 1})
    store = Store.open(tmp_path / "s")
    assert not len(store.damaged())
    assert store.rejects["record_id"].tolist() == ["long"]
    assert "long" not in set(store.index["record_id"])
    for row, name in enumerate(store.index["record_id"]):
        window = store.index["window"][row]
        done = {w.window: w.signal for w in standardise_windows(read_ecg(data.root / f"{name}.npz"))}
        np.testing.assert_allclose(store.signals([row])[0], done[window], atol=5.1e-4)


@pytest.mark.slow
def test_a_day_takes_the_memory_of_its_samples(tmp_path: Path) -> None:
    """24 h of one lead at 125 Hz: 8,640 windows, read in a process whose peak memory is looked at."""
    n = 24 * 3600 * 125
    beat = np.rint(1000 * np.exp(-(((np.arange(n) % 100 - 30) / 2.5) ** 2))).astype("<i2")
    beat += np.random.default_rng(0).integers(-9, 10, n).astype("<i2")
    source = tmp_path / "source"
    source.mkdir()
    (source / "day.hea").write_text(f"day 1 125 {n}\nday.dat 16 1000/mV 16 0 {beat[0]} 0 0 II\n")
    (source / "day.dat").write_bytes(beat.tobytes())
    code = (
        "import sys; from pathlib import Path; from deri.datasets import open_dataset; from deri.store import prepare\n"
        "s = prepare(open_dataset('folder', sys.argv[1]), sys.argv[2], windows=int(sys.argv[3]) or None)\n"
        "assert s.read == 1, s\n"
        "status = Path('/proc/self/status')\n"
        "print(int(status.read_text().partition('VmHWM:')[2].split()[0]) / 1024 if status.exists() else 0)"
    )
    peaks = []
    for windows in (24, 0):
        command = [sys.executable, "-c", code, str(source), str(tmp_path / f"s{windows}"), str(windows)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout.split()[-1]))
    assert peaks[1] < min(peaks[0] + 100, 1500)
    store = Store.open(tmp_path / "s24")
    assert store.index["window"].tolist() == [360 * i for i in range(24)]
    assert len(Store.open(tmp_path / "s0")) == 8640
    shutil.rmtree(tmp_path / "s0")  # a gigabyte
    row = store.signals([23])[0][1]
    start = int(store.index["start_sample"][23])
    expected = standardise(ECG(np.stack([beat[start : start + 1300] / 1000.0] * 12), 125)).signal[1]
    np.testing.assert_allclose(row[100:4900], expected[100:4900], atol=1e-3)
