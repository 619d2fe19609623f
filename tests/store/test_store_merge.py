"""Stores that are merged: all of every part, once, under one set of splits, tasks and reports."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from deri.errors import DeriError
from deri.store import Store, prepare
from deri.store.merge import merge_stores
from deri.store.splits import unit_hash
from support import forked, windowed


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, make_dataset, records: Path) -> list[Path]:
    """Two stores of recordings 0 … 69 and 60 … 129, other ids from the second on, and one with another task."""
    folder = tmp_path_factory.mktemp("parts")

    def numbered(first: int, last: int, **columns: list) -> object:
        numbers = range(first, last)
        columns = {"record_id": [f"r{i}" for i in numbers], "subject_id": [f"p{i // 3}" for i in numbers], **columns}
        return make_dataset(records, [f"a{i:03d}" for i in numbers], **columns)

    prepare(numbered(0, 66), folder / "a")
    prepare(numbered(66, 133), folder / "b")
    texts = ["a third report that is new"] * 3 + ["Sinus rhythm. Normal ECG for this age"] * 3
    other = numbered(135, 141, report=texts)
    other.examples = other.examples.rename(columns={"labels": "rhythm"})
    other.tasks = {"rhythm": ["SR", "AFIB", "PVC"]}
    prepare(other, folder / "c")
    return [folder / name for name in "abc"]


def rows_of(store: Store) -> list[dict]:
    """Everything that is known of each row, without numbers that a merge gives anew."""
    found = []
    for i, row in store.index.iterrows():
        text = None if row["report_id"] < 0 else store.reports[row["report_id"]]
        kept = {name: row[name] for name in ("record_id", "subject_id", "study_id", "file", "source", "waveform", "fs")}
        found.append(kept | {"text": text, "signal": store.signals_int16([i])[0].tobytes()})
    return found


def test_a_merged_store_holds_every_row_of_every_part(parts: list[Path], tmp_path: Path) -> None:
    stores = [Store.open(path) for path in parts]
    summary = merge_stores(parts, tmp_path / "all")
    merged = Store.open(tmp_path / "all")
    assert not len(merged.damaged())
    assert len(merged) == summary.read == sum(map(len, stores))
    assert rows_of(merged) == [row for store in stores for row in rows_of(store)]
    assert merged.index["split"].tolist() == [split for store in stores for split in store.index["split"]]
    assert merged.rejects.to_dict("records") == [r for store in stores for r in store.rejects.to_dict("records")]
    assert len(merged.reports) == len(set(merged.reports)) == 3
    assert summary.rejected == {"missing_file": 1, "truncated_signal": 1, "no_signals": 1, "no_report": 3}
    # A row is part of the tasks of its store, with the labels that it had.
    offset = 0
    assert merged.tasks == {"labels": ["AFIB", "SR", "PVC"], "rhythm": ["SR", "AFIB", "PVC"]}
    for store in stores:
        for task in merged.tasks:
            rows = merged.task_rows(task)
            here = rows[(rows >= offset) & (rows < offset + len(store))]
            assert len(here) == (len(store.task_rows(task)) if task in store.tasks else 0)
            if len(here):
                np.testing.assert_array_equal(merged.labels(task, here)[1], store.labels(task, here - offset)[1])
        offset += len(store)
    assert not list(tmp_path.glob(".all*"))


def test_the_same_parts_give_the_same_bytes(parts: list[Path], content, tmp_path: Path) -> None:
    merge_stores(parts[:2], tmp_path / "one")
    merge_stores(parts[:2], tmp_path / "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")
    merge_stores([tmp_path / "one", parts[2]], tmp_path / "nested")
    merge_stores(parts, tmp_path / "flat")
    nested, flat = Store.open(tmp_path / "nested"), Store.open(tmp_path / "flat")
    assert rows_of(nested) == rows_of(flat)
    assert nested.index.drop(columns="shard").equals(flat.index.drop(columns="shard"))


def test_a_store_is_extended_by_merging_what_is_new(
    parts: list[Path], make_dataset, records: Path, tmp_path: Path
) -> None:
    """Patients keep their split: the extended store has the rows of one preparation of everything."""
    merge_stores(parts[:2], tmp_path / "extended")
    numbers = range(133)
    ids = {"record_id": [f"r{i}" for i in numbers], "subject_id": [f"p{i // 3}" for i in numbers]}
    prepare(make_dataset(records, [f"a{i:03d}" for i in numbers], **ids), tmp_path / "anew")
    extended, anew = Store.open(tmp_path / "extended"), Store.open(tmp_path / "anew")
    assert [row | {"source": "", "study_id": ""} for row in rows_of(extended)] == [
        row | {"source": "", "study_id": ""} for row in rows_of(anew)
    ]
    assert extended.index["split"].tolist() == anew.index["split"].tolist()


def test_duplicates_between_stores(make_dataset, record_writer, units_of, tmp_path: Path) -> None:
    for name, numbers in (("x", (0, 1, 2)), ("y", (3, 1, 4))):
        for place, i in enumerate(numbers):
            record_writer(tmp_path / name, f"{name}{place}", units_of(i))
        ids = {"record_id": [f"{name}{k}" for k in range(3)], "subject_id": [f"p{name}{k}" for k in range(3)]}
        data = make_dataset(tmp_path / name, [f"{name}{k}" for k in range(3)], split=["train"] * 3, **ids)
        prepare(data, tmp_path / f"store-{name}")
    both = [tmp_path / "store-x", tmp_path / "store-y"]
    summary = merge_stores(both, tmp_path / "kept")
    assert summary.duplicates["examples"] == [["y1", "x1"]]
    index = Store.open(tmp_path / "kept").index
    assert dict(zip(index["record_id"], map(list, index["quality"]), strict=True))["y1"] == ["duplicate:x1"]
    summary = merge_stores(both, tmp_path / "dropped", duplicates="drop")
    store = Store.open(tmp_path / "dropped")
    assert not len(store.damaged())
    assert store.index["record_id"].tolist() == ["x0", "x1", "x2", "y0", "y2"]
    assert (summary.read, summary.rejected["duplicate_recording"]) == (5, 1)
    assert store.rejects["detail"].tolist()[-1] == "has the samples of x1"
    for row, name, i in ((3, "y0", 3), (4, "y2", 4)):
        assert store.index["record_id"][row] == name
        np.testing.assert_array_equal(store.signals_int16([row])[0], units_of(i))


def test_windows_of_a_recording_stay_together(tmp_path: Path) -> None:
    data = windowed.dataset(tmp_path / "source")
    prepare(data, tmp_path / "w", windows=None)
    again = windowed.dataset(tmp_path / "again")
    again.examples["subject_id"] = again.examples["subject_id"] + "x"
    again.examples["report"] = "something else that was reported"
    prepare(again, tmp_path / "v", windows=None)
    summary = merge_stores([tmp_path / "w", tmp_path / "v"], tmp_path / "both")
    merged, part = Store.open(tmp_path / "both"), Store.open(tmp_path / "w")
    assert (len(merged), merged.recordings, summary.longer) == (20, 12, 4)
    np.testing.assert_array_equal(merged.rows(), np.concatenate([part.rows(), part.rows() + 10]))
    np.testing.assert_array_equal(merged.lead_mask(np.arange(10, 20)), part.lead_mask(np.arange(10)))
    assert summary.duplicates["recordings"] == 6
    dropped = merge_stores([tmp_path / "w", tmp_path / "v"], tmp_path / "dropped", duplicates="drop")
    assert (dropped.read, dropped.windows, dropped.rejected) == (6, 10, {"duplicate_recording": 6})
    assert dropped.longer == 2  # of those that stay


def test_a_subject_in_two_splits_is_refused_or_drawn_anew(parts: list[Path], make_dataset, records, tmp_path) -> None:
    names = [f"a{i:03d}" for i in range(150, 156)]
    data = make_dataset(records, names, split=["test"] * 6, subject_id=["p0"] * 6)
    prepare(data, tmp_path / "leak")
    split = Store.open(parts[0]).index.set_index("subject_id")["split"]["p0"].iloc[0]
    if split == "test":
        pytest.fail("the draw of p0 makes this test empty: choose another subject")
    with pytest.raises(DeriError, match=r"1 subjects lie in different splits .* --resplit"):
        merge_stores([parts[0], tmp_path / "leak"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge_stores([parts[0], tmp_path / "leak"], tmp_path / "out", resplit=True, seed=5)
    index = Store.open(tmp_path / "out").index
    assert index.groupby("subject_id")["split"].nunique().max() == 1
    for subject, split in zip(index["subject_id"], index["split"], strict=True):
        u = unit_hash(5, subject)
        assert split == ("test" if u < 0.1 else "val" if u < 0.1 + 0.2 else "train")


def test_stores_that_do_not_fit_are_refused(parts: list[Path], small, tmp_path: Path, monkeypatch) -> None:
    prepare(small, tmp_path / "published", repair="published")
    for stores, message in (
        ([parts[0], tmp_path / "published"], "has repair published, .* has lead: prepare both with the same"),
        ([parts[0], parts[0]], "same content"),
        ([parts[0]], "two stores or more"),
        ([parts[0], tmp_path / "none"], "is no store"),
    ):
        with pytest.raises(DeriError, match=message):
            merge_stores(stores, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(DeriError, match="exists: name a new folder"):
        merge_stores(parts, parts[0])
    with pytest.raises(DeriError, match="choose keep or drop"):
        merge_stores(parts, tmp_path / "out", duplicates="none")


def test_shards_are_links_or_copies(parts: list[Path], content, tmp_path: Path, monkeypatch) -> None:
    merge_stores(parts, tmp_path / "linked")
    shard = tmp_path / "linked" / "signals" / "shard-00000.npy"
    assert shard.stat().st_ino == (parts[0] / "signals" / "shard-00000.npy").stat().st_ino

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", other_disk)
        merge_stores(parts, tmp_path / "copied")
    shard = tmp_path / "copied" / "signals" / "shard-00000.npy"
    assert shard.stat().st_ino != (parts[0] / "signals" / "shard-00000.npy").stat().st_ino
    assert content(tmp_path / "copied") == content(tmp_path / "linked")


def test_a_killed_merge_leaves_nothing_under_its_name(parts: list[Path], content, tmp_path: Path) -> None:
    merge_stores(parts, tmp_path / "whole")
    for place in ("shard-00001.npy", "index.parquet", "store.json", "killed"):
        forked.run_until_killed(merge_stores, parts, tmp_path / "killed", at=place)
        assert not (tmp_path / "killed").exists()
    merge_stores(parts, tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]
