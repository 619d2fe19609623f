from __future__ import annotations

import errno
import json
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deri.ecg.formats import wfdb
from deri.errors import DeriError, ReadError
from deri.store import Store, chunk, prepare
from deri.store.chunk import quantise
from deri.store.layout import chunk_count, chunk_size
from deri.store.npy import NpyAppender
from support.told import Told


def good_names() -> list[int]:
    return [i for i in range(200) if i not in (7, 100, 101)]


def test_every_recording_is_stored_or_counted(dataset, units_of, tmp_path: Path) -> None:
    summary = prepare(dataset, tmp_path / "s")
    assert summary.complete
    assert summary.read == 197
    assert sum(summary.rejected.values()) == 4
    assert summary.rejected["no_report"] == 1
    assert summary.rejected["truncated_signal"] == 1
    assert summary.per_source["north"] == {"read": 0, "rejected": {"no_report": 1}}
    # a100 is of the west (100 % 4 == 0), a007 and a101 of the east.
    assert summary.per_source["west"] == {"read": 49, "rejected": {"truncated_signal": 1}}
    assert summary.per_source["east"]["read"] == 148
    assert sum(summary.per_source["east"]["rejected"].values()) == 2
    assert sum(summary.splits.values()) == 197
    assert summary.reports == 2

    store = Store.open(tmp_path / "s")
    assert len(store) == 197
    assert store.index["file"].tolist() == [f"a{i:03d}" for i in good_names()]
    for row in (0, 6, 7, 63, 64, 120, 196):
        units = units_of(good_names()[row])
        np.testing.assert_array_equal(store.signals_int16([row])[0], units)
        np.testing.assert_allclose(store.signals([row])[0], units / 1000.0, atol=1e-6)
    assert set(store.index["fs"]) == {500.0}
    assert set(store.index["n_samples"]) == set(store.index["valid_samples"]) == {5000}
    assert store.rejects["record_id"].tolist() == ["rx", "r7", "r100", "r101"]
    assert not store.rejects["detail"].str.contains(str(dataset.root)).any()
    assert not (tmp_path / "s" / "work").exists()


def test_summary_text_names_every_count(dataset, tmp_path: Path) -> None:
    text = prepare(dataset, tmp_path / "s").text()
    assert "201 recordings, 197 stored, 4 rejected" in text
    assert re.search(r"truncated_signal +1\n", text)
    assert "north" in text
    assert "distinct reports: 2" in text


def test_workers_shards_and_order_do_not_change_a_byte(dataset, content, tmp_path: Path) -> None:
    expected = prepare(dataset, tmp_path / "one")
    files = content(tmp_path / "one")
    assert {"store.json", "index.parquet", "rejects.parquet", "reports.parquet"} < set(files)
    assert len(files) == 4 + 4  # 200 examples in chunks of 64
    assert prepare(dataset, tmp_path / "two", workers=2) == expected
    assert content(tmp_path / "two") == files
    for i in (2, 0, 1):
        summary = prepare(dataset, tmp_path / "three", shard=(i, 3))
        assert summary.complete == (i == 1)
    assert summary == expected
    assert content(tmp_path / "three") == files


def test_an_unfinished_shard_says_what_is_there(dataset, tmp_path: Path) -> None:
    summary = prepare(dataset, tmp_path / "s", shard=(1, 2))
    assert (summary.complete, summary.chunks_done, summary.chunks) == (False, 2, 4)
    assert summary.read == 62 + 8 + 2 - 2  # examples 64…127 without a100, a101, and 192…199
    assert "2 of 4 chunks" in summary.text()
    with pytest.raises(DeriError, match="unfinished: run the same deri prepare command again"):
        Store.open(tmp_path / "s")


def test_shards_that_run_at_once_finish_one_store(dataset, content, tmp_path: Path) -> None:
    prepare(dataset, tmp_path / "alone")
    summaries = {}

    def run(key: str, shard: tuple[int, int]) -> None:
        summaries[key] = prepare(dataset, tmp_path / "many", shard=shard)

    # The last two do the same chunks: each is locked by whoever takes it first.
    jobs = {"a": (0, 2), "b": (1, 2), "c": (0, 1), "d": (0, 1)}
    threads = [threading.Thread(target=run, args=job) for job in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(summaries) == set(jobs)
    assert summaries["c"].complete
    assert summaries["d"].complete
    assert content(tmp_path / "many") == content(tmp_path / "alone")


def test_a_finished_store_is_left_alone(small, tmp_path: Path, monkeypatch) -> None:
    first = prepare(small, tmp_path / "s")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    monkeypatch.setattr(chunk, "read_recording", None)  # nothing may be read
    assert prepare(small, tmp_path / "s", workers=2) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")} == before


def test_another_preparation_in_the_same_folder_is_refused(small, make_dataset, records, tmp_path: Path) -> None:
    prepare(small, tmp_path / "s")
    with pytest.raises(DeriError, match=r"seed 0, now 1.*choose another --out"):
        prepare(small, tmp_path / "s", seed=1)
    with pytest.raises(DeriError, match="--split patient, now record"):
        prepare(small, tmp_path / "s", split="record")
    with pytest.raises(DeriError, match="recordings, labels, reports or --limit"):
        prepare(make_dataset(records, ["a000", "a001"]), tmp_path / "s")
    small.examples.at[0, "report"] = "Another report of this ECG"
    with pytest.raises(DeriError, match="recordings, labels, reports or --limit"):
        prepare(small, tmp_path / "s")


def test_another_preparation_is_refused_while_unfinished_too(dataset, tmp_path: Path, monkeypatch) -> None:
    prepare(dataset, tmp_path / "s", shard=(0, 2))
    with pytest.raises(DeriError, match="repair lead, now published"):
        prepare(dataset, tmp_path / "s", repair="published")
    monkeypatch.setattr("deri.store.plan.__version__", "99.0")
    with pytest.raises(DeriError, match=r"deri version .*, now 99\.0"):
        prepare(dataset, tmp_path / "s")


def test_a_folder_with_other_files_is_refused(small, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DeriError, match="not empty and no store"):
        prepare(small, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(DeriError, match="is a file"):
        prepare(small, tmp_path / "thesis.tex")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "--workers 0"),
        ({"shard": (2, 2)}, "--shard 2/2"),
        ({"split": "study"}, "choose patient or record"),
        ({"repair": "none"}, "choose lead or published"),
    ],
)
def test_bad_options_are_refused(small, tmp_path: Path, options, message) -> None:
    with pytest.raises(DeriError, match=message):
        prepare(small, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_an_interrupted_run_continues_where_it_was(dataset, content, tmp_path: Path, monkeypatch) -> None:
    prepare(dataset, tmp_path / "whole")
    reads: list[str] = []
    read = chunk.read_recording
    monkeypatch.setattr(
        chunk, "read_recording", lambda path, *a, **k: (reads.append(Path(path).name), read(path, *a, **k))[1]
    )

    def interrupt(done: int, total: int) -> None:
        assert total == 200
        if done == 130:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(dataset, tmp_path / "s", progress=Told(interrupt))
    reads.clear()
    seen: list[int] = []
    prepare(dataset, tmp_path / "s", progress=Told(lambda done, total: seen.append(done)))
    assert reads == [f"a{i:03d}" for i in range(128, 200)]  # two chunks of 64 were done
    assert seen[-1] == 200
    assert seen == sorted(set(seen))
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_progress_of_workers_reaches_the_total(dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(dataset, tmp_path / "s", workers=2, progress=Told(lambda done, total: seen.append((done, total))))
    assert seen[-1] == (200, 200)


def test_a_defect_in_a_reader_costs_one_recording(small, tmp_path: Path, monkeypatch) -> None:
    read = wfdb.read_counts

    def broken(path, options):
        if Path(path).stem == "a003":
            raise ZeroDivisionError("gain")
        return read(path, options)

    monkeypatch.setattr(wfdb, "read_counts", broken)
    summary = prepare(small, tmp_path / "s")
    assert summary.rejected == {"no_report": 1, "reader_error": 1}
    assert Store.open(tmp_path / "s").rejects["detail"].tolist()[1] == "ZeroDivisionError: gain"


def test_a_machine_that_cannot_read_is_no_reject(small, tmp_path: Path, monkeypatch) -> None:
    def no_files(path, options):
        raise ReadError("cannot be opened", "unreadable_file") from OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(wfdb, "read_counts", no_files)
        with pytest.raises(DeriError, match=r"Too many open files.*run the same command again"):
            prepare(small, tmp_path / "s")
    assert prepare(small, tmp_path / "s").read == 7


def test_a_data_set_that_vanishes_is_no_reject(make_dataset, record_writer, units_of, tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    for i in range(3):
        record_writer(root, f"a{i}", units_of(i))
    data = make_dataset(root, ["a0", "a1", "a2"])

    def unmount(done: int, total: int) -> None:
        if root.exists():
            shutil.move(root, tmp_path / "elsewhere")

    with pytest.raises(DeriError, match=r"mounted is gone: mount it"):
        prepare(data, tmp_path / "s", progress=Told(unmount))
    shutil.move(tmp_path / "elsewhere", root)
    assert prepare(data, tmp_path / "s").read == 3


@pytest.mark.parametrize("space", [4, 40, 63])
def test_a_full_disk_is_a_clear_error_and_can_be_continued(
    space: int, make_dataset, records, content, tmp_path: Path, monkeypatch
) -> None:
    """The disk fills in the first batch of a shard, in the second, and with the last recording."""
    data = make_dataset(records, [f"a{i % 7:03d}" for i in range(64)])
    append = NpyAppender.append

    def full(self, rows):
        if self.rows + len(rows) > space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(NpyAppender, "append", full)
        with pytest.raises(DeriError, match=r"No space left.*make room, then .* again: finished chunks are kept"):
            prepare(data, tmp_path / "s")
    assert not list((tmp_path / "s").rglob("*.npy"))
    prepare(data, tmp_path / "s")
    prepare(data, tmp_path / "t")
    assert content(tmp_path / "s") == content(tmp_path / "t")


def test_nothing_usable_leaves_no_store(make_dataset, records, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match=r"none of the 3 recordings.*no_report 1.*no store is written"):
        prepare(make_dataset(records, ["a100", "a007"]), tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(DeriError, match="none of the 1 recordings"):
        prepare(make_dataset(records, []), tmp_path / "s")


def test_a_chunk_without_a_recording_has_no_shard(make_dataset, records, tmp_path: Path) -> None:
    names = ["a000"] * 64 + ["a007"] * 64 + ["a001"] * 3
    summary = prepare(make_dataset(records, names), tmp_path / "s")
    assert summary.read == 67
    store = Store.open(tmp_path / "s")
    shards = [path.name for path in sorted((tmp_path / "s" / "signals").iterdir())]
    assert shards == ["shard-00000.npy", "shard-00002.npy"]
    np.testing.assert_array_equal(store.signals([66, 0]), store.signals([64, 63]))
    assert not np.array_equal(store.signals([66]), store.signals([0]))


def test_reports_are_cleaned_and_stored_once_in_order_of_the_rows(make_dataset, records, tmp_path: Path) -> None:
    reports = ["B  EKG", None, "a thing", "b ecg.", "***", "A thing", "lost with its record"]
    names = ["a000", "a001", "a002", "a003", "a004", "a005", "a007"]
    summary = prepare(make_dataset(records, names, report=reports), tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert store.reports == ["b ecg.", "a thing."]
    assert store.report_ids.tolist() == [0, -1, 1, 0, -1, 1]
    assert summary.reports == 2


def test_quality_and_padding_are_recorded(make_dataset, record_writer, units_of, tmp_path: Path) -> None:
    units = units_of(1, n=3000)
    units[8] = 0
    record_writer(tmp_path / "d", "short", units)
    record_writer(tmp_path / "d", "slow", units_of(2, n=2500), fs=250)
    prepare(make_dataset(tmp_path / "d", ["short", "slow"]), tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert store.index["valid_samples"].tolist() == [3000, 5000]
    assert store.index["n_samples"].tolist() == [3000, 2500]
    assert store.index["fs"].tolist() == [500.0, 250.0]
    assert {"padded", "flat_lead:V3"} <= set(store.index["quality"][0])
    assert "resampled" in store.index["quality"][1]
    signal = store.signals([0])[0]
    assert not signal[:, 3000:].any()
    np.testing.assert_allclose(signal[:, :3000], units / 1000, atol=1e-6)


def test_a_label_without_a_class_is_refused(small, tmp_path: Path) -> None:
    small.examples.at[2, "labels"] = ("WPW",)
    with pytest.raises(DeriError, match=r"recording r2 .*'WPW'.*'labels'"):
        prepare(small, tmp_path / "s")


def test_a_task_cannot_take_the_name_of_a_column(small, tmp_path: Path) -> None:
    small.examples = small.examples.rename(columns={"labels": "row"})
    small.tasks = {"row": small.tasks["labels"]}
    with pytest.raises(DeriError, match="'row' has the name of an index column"):
        prepare(small, tmp_path / "s")


def test_splits_that_leak_patients_need_the_record_rule(small, tmp_path: Path) -> None:
    small.examples["split"] = ["train", "test", None, "val", "val", "val", "test"]
    with pytest.raises(DeriError, match="subject p0"):
        prepare(small, tmp_path / "s")
    assert prepare(small, tmp_path / "s", split="record").splits["test"] >= 2


def test_store_json_holds_the_format(small, tmp_path: Path) -> None:
    prepare(small, tmp_path / "s", seed=3)
    meta = json.loads((tmp_path / "s" / "store.json").read_text())
    assert {key: meta[key] for key in ("format", "version", "n", "fs", "samples", "uv_per_unit", "seed", "split")} == {
        "format": "deri-store",
        "version": 2,
        "n": 7,
        "fs": 500.0,
        "samples": 5000,
        "uv_per_unit": 1.0,
        "seed": 3,
        "split": "patient",
    }
    assert meta["leads"] == ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert meta["tasks"] == {"labels": ["AFIB", "SR", "PVC"]}
    names = pq.read_schema(tmp_path / "s" / "index.parquet").names
    first, second = "record_id subject_id study_id source file report_id split", "shard row window start_sample"
    third = "valid_samples repaired_samples missing_leads quality fs n_samples waveform"
    about = "age sex date device interpretation"
    assert " ".join(names) == f"{first} {second} {third} {about} labels"


@settings(max_examples=60)
@given(
    hnp.arrays(np.float32, (12, 20), elements=st.floats(-32.75, 32.75, width=32, allow_subnormal=False)),
    st.sampled_from([1.0, 2.5, 5.0]),
)
def test_rounding_loses_half_a_unit_at_most(signal, uv_per_unit) -> None:
    units = quantise(signal, uv_per_unit)
    assert units.dtype == np.int16
    error_uv = np.abs(units.astype(np.float64) * uv_per_unit - signal.astype(np.float64) * 1000)
    assert error_uv.max() <= 0.5 * uv_per_unit + 0.004  # float32 itself is that coarse at 32 mV


def test_amplitudes_that_do_not_fit_are_refused_not_wrapped() -> None:
    with pytest.raises(ReadError, match=r"reaches 40\.0 mV") as caught:
        quantise(np.full((12, 5), -40.0, np.float32))
    assert caught.value.reason == "amplitude_out_of_range"
    with pytest.raises(ValueError, match="not finite"):
        quantise(np.full((12, 5), np.nan, np.float32))


@pytest.mark.parametrize(("n", "size"), [(0, 64), (1, 64), (1024, 64), (1025, 65), (131_072, 8192), (800_035, 8192)])
def test_chunk_size_follows_the_number_of_examples(n: int, size: int) -> None:
    assert chunk_size(n) == size
    assert (chunk_count(n) - 1) * size < max(n, 1) <= max(chunk_count(n), 1) * size
