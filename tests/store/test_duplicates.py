"""Recordings that a data set holds twice: by their bytes, or by their samples under another name and format."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deri.datasets import Dataset
from deri.ecg import LEADS
from deri.errors import DeriError
from deri.store import Store, prepare
from deri.store.duplicates import digest_keys, dropped_rows, first_rows


@pytest.fixture
def doubled(make_dataset, record_writer, units_of, tmp_path: Path) -> Dataset:
    """Nine recordings: a1 and a6 are a0 (its bytes; another format), a5 is a4 (another header), a8 is nearly a7."""
    root = tmp_path / "source"
    for i in (0, 2, 3, 4, 7):
        record_writer(root, f"a{i}", units_of(i))
    for end in (".hea", ".dat"):
        shutil.copyfile(root / f"a0{end}", root / f"a1{end}")
    (root / "a1.hea").write_text((root / "a1.hea").read_text().replace("a0", "a1"))
    text = (root / "a4.hea").read_text().replace("a4", "a5") + "# the same waveform under another id\n"
    (root / "a5.hea").write_text(text)
    shutil.copyfile(root / "a4.dat", root / "a5.dat")
    np.savez(root / "a6.npz", signal=units_of(0)[::-1].astype(np.float32), fs=500, units="uV", leads=LEADS[::-1])
    near = units_of(7).copy()
    near[3, 2000] += 1
    record_writer(root, "a8", near)
    names = ["a0", "a1", "a2", "a3", "a4", "a5", "a6.npz", "a7", "a8"]
    splits = ["train", "train", "train", "train", "val", "train", "train", "test", "test"]
    subjects = ["p0", "p0", "p2", "p3", "p4", "p5", "p6", "p7", "p7"]
    return make_dataset(root, names, split=splits, subject_id=subjects)


def test_a_duplicate_is_kept_and_flagged(doubled: Dataset, tmp_path: Path) -> None:
    summary = prepare(doubled, tmp_path / "s")
    index = Store.open(tmp_path / "s").index
    flags = {name: list(quality) for name, quality in zip(index["record_id"], index["quality"], strict=True)}
    assert flags == {f"r{i}": [] for i in range(9)} | {
        "r1": ["duplicate:r0"], "r6": ["duplicate:r0"], "r5": ["duplicate:r4"],
    }  # fmt: skip
    assert summary.read == 9
    assert summary.duplicates == {
        "recordings": 3,
        "across_splits": 1,  # r5 trains, r4 validates
        "across_subjects": 2,
        "examples": [["r1", "r0"], ["r5", "r4"], ["r6", "r0"]],
        "dropped": False,
    }
    text = summary.text()
    assert "3 recordings have the samples of an earlier one (kept and flagged" in text
    assert "r1 = r0, r5 = r4, r6 = r0" in text
    assert "LEAKAGE: 1 of them lie in another split" in text
    assert json.loads((tmp_path / "s" / "store.json").read_text())["summary"]["duplicates"] == summary.duplicates


def test_duplicates_can_be_left_out(doubled: Dataset, content, tmp_path: Path) -> None:
    summary = prepare(doubled, tmp_path / "s", duplicates="drop")
    store = Store.open(tmp_path / "s")
    assert not len(store.damaged())
    assert store.index["record_id"].tolist() == ["r0", "r2", "r3", "r4", "r7", "r8"]
    assert not store.index["quality"].map(len).any()
    rejects = store.rejects[store.rejects["reason"] == "duplicate_recording"]
    assert rejects["record_id"].tolist() == ["r1", "r5", "r6"]
    assert rejects["detail"].tolist() == ["has the samples of r0", "has the samples of r4", "has the samples of r0"]
    assert rejects["file"].tolist() == ["a1", "a5", "a6.npz"]
    assert (summary.read, summary.rejected) == (6, {"duplicate_recording": 3, "no_report": 1})
    assert sum(summary.splits.values()) == 6
    whole = prepare(doubled, tmp_path / "whole")
    kept = Store.open(tmp_path / "whole")
    assert whole.read == 9
    for i, name in enumerate(store.index["record_id"]):
        np.testing.assert_array_equal(store.signals_int16([i])[0], kept.signals_int16([int(name[1:])])[0])
    prepare(doubled, tmp_path / "two", duplicates="drop", workers=2)
    assert content(tmp_path / "two") == content(tmp_path / "s")
    with pytest.raises(DeriError, match="--duplicates drop, now keep"):
        prepare(doubled, tmp_path / "s")
    with pytest.raises(DeriError, match="choose keep or drop"):
        prepare(doubled, tmp_path / "t", duplicates="ignore")


def test_duplicates_are_found_across_chunks(make_dataset, record_writer, units_of, tmp_path: Path) -> None:
    """Of 130 recordings in three chunks the last is the first, and number 65 number 64."""
    root = tmp_path / "source"
    for i in range(130):
        record_writer(root, f"a{i:03d}", units_of({129: 0, 65: 64}.get(i, i)))
    summary = prepare(make_dataset(root, [f"a{i:03d}" for i in range(130)]), tmp_path / "s")
    assert summary.duplicates["examples"] == [["r65", "r64"], ["r129", "r0"]]
    for part in ((0, 2), (1, 2)):
        summary = prepare(
            make_dataset(root, [f"a{i:03d}" for i in range(130)]), tmp_path / "d", duplicates="drop", shard=part
        )
    assert (summary.read, summary.rejected["duplicate_recording"]) == (128, 2)


@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3)), max_size=30),
    same_half=st.booleans(),
)
def test_first_rows_and_dropped_rows_by_brute_force(rows: list[tuple[int, int]], same_half: bool) -> None:
    """Rows are (recording + gap, sample content); recordings ascend as they do in a store."""
    recordings = np.cumsum([r % 2 for r, _ in rows]) if rows else np.empty(0, np.int64)
    content = [c for _, c in rows]
    words = [f"{0 if same_half else c:016x}{c:016x}" for c in content]
    first = first_rows(digest_keys(words), recordings)
    seen: dict[int, int] = {}
    expected = []
    for row, c in enumerate(content):
        earliest = seen.setdefault(c, row)
        expected.append(-1 if recordings[earliest] == recordings[row] else earliest)
    assert first.tolist() == expected
    own = defaultdict(list)
    for row, value in enumerate(expected):
        own[recordings[row]].append(value)
    assert dropped_rows(first, recordings).tolist() == [all(v >= 0 for v in own[r]) for r in recordings]
    # Nothing is lost: what a dropped row holds stands in a row that is kept.
    kept = {c for c, drop in zip(content, dropped_rows(first, recordings), strict=True) if not drop}
    assert kept == set(content)
