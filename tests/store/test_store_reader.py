from __future__ import annotations

import json
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deri.cli.main import main
from deri.errors import DeriError
from deri.files import write_sealed
from deri.store import Store, prepare
from deri.store.plan import read_json


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, make_dataset, records: Path) -> Path:
    """A store of 150 recordings in three shards."""
    path = tmp_path_factory.mktemp("made") / "store"
    prepare(make_dataset(records, [f"a{i:03d}" for i in range(150)]), path)
    return path


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "store")
    return tmp_path / "store"


def edit_meta(store: Path, **changes) -> None:
    path = store / "store.json"
    write_sealed(path, read_json(path) | changes)


def test_batches_come_in_the_order_asked_for(made: Path, units_of) -> None:
    store = Store.open(made)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(store), 60)
    rows[3] = rows[40]  # a repeat
    files = store.index["file"][rows]
    expected = np.stack([units_of(int(file[1:])) for file in files])
    units = store.signals_int16(rows)
    assert units.dtype == np.int16
    np.testing.assert_array_equal(units, expected)
    signals = store.signals(rows)
    assert signals.dtype == np.float32
    np.testing.assert_allclose(signals, expected * 0.001, rtol=1e-6)


def test_a_buffer_is_filled_in_place(made: Path) -> None:
    store = Store.open(made)
    buffer = np.full((2, 12, 5000), 9, np.float32)
    assert store.signals([5, 1], out=buffer) is buffer
    np.testing.assert_array_equal(buffer, store.signals([5, 1]))
    with pytest.raises(ValueError, match="needed is float32"):
        store.signals([1], out=buffer)
    with pytest.raises(ValueError, match="needed is int16"):
        store.signals_int16([1, 2], out=buffer)


def test_rows_outside_are_refused(made: Path) -> None:
    store = Store.open(made)
    assert store.signals([]).shape == (0, 12, 5000)
    for rows in ([-1], [len(store)]):
        with pytest.raises(IndexError):
            store.signals(rows)
    with pytest.raises(TypeError):
        store.signals(np.ones(len(store), bool))
    with pytest.raises(TypeError):
        store.signals([0.5])


def test_splits_divide_the_rows(made: Path) -> None:
    store = Store.open(made)
    parts = {split: store.rows(split) for split in ("train", "val", "test")}
    for split, rows in parts.items():
        assert rows.dtype == np.int64
        assert (store.index["split"].to_numpy()[rows] == split).all()
        assert len(rows) == store.meta["summary"]["splits"][split] > 0
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), store.rows("all"))
    with pytest.raises(DeriError, match="--split dev: choose one of train, val, test, all"):
        store.rows("dev")


def test_labels_and_rows_of_a_task(made: Path) -> None:
    store = Store.open(made)
    rows = store.task_rows("labels")
    numbers = np.array([int(file[1:]) for file in store.index["file"]])
    np.testing.assert_array_equal(rows, np.flatnonzero(numbers % 5 != 4))
    classes, marks = store.labels("labels", rows[::-1])
    assert classes == ["AFIB", "SR", "PVC"]
    assert marks.dtype == np.uint8
    # As the data set was made: odd recordings carry the class number i % 3, even ones none.
    expected = (numbers[rows[::-1]][:, None] % 3 == np.arange(3)) & (numbers[rows[::-1]][:, None] % 2 == 1)
    np.testing.assert_array_equal(marks, expected)
    val = store.task_rows("labels", "val")
    np.testing.assert_array_equal(val, np.intersect1d(rows, store.rows("val")))


def test_unknown_labels_are_not_absent_ones(made: Path) -> None:
    store = Store.open(made)
    with pytest.raises(DeriError, match=r"row 4 .*not part of task 'labels'"):
        store.labels("labels", [0, 4])
    with pytest.raises(DeriError, match="no task 'cpsc2018'; its tasks: labels"):
        store.task_rows("cpsc2018")


def test_reports_follow_their_rows(made: Path) -> None:
    store = Store.open(made)
    assert store.reports == ["sinus rhythm. normal ecg for this age.", "atrial fibrillation with rapid ecg response."]
    assert store.report_ids.dtype == np.int64
    np.testing.assert_array_equal(store.report_ids, store.index["report_id"])
    assert store.report_ids[:4].tolist() == [0, 1, -1, 0]


def test_a_pickled_store_reads_on(made: Path) -> None:
    store = Store.open(made)
    store.signals([0])
    data = pickle.dumps(store)
    assert len(data) < 20_000  # the path, not the signals
    np.testing.assert_array_equal(pickle.loads(data).signals([70]), store.signals([70]))


def test_threads_read_the_same(made: Path) -> None:
    expected = Store.open(made).signals_int16(np.arange(147))
    store = Store.open(made)
    wrong: list[int] = []

    def read(seed: int) -> None:
        rows = np.random.default_rng(seed).permutation(147)[:50]
        if not np.array_equal(store.signals_int16(rows), expected[rows]):
            wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_documented_format_is_enough_to_read_it(made: Path) -> None:
    """docs/store.md in a few lines, without deri."""
    meta = json.loads((made / "store.json").read_text())
    index = pq.read_table(made / "index.parquet").to_pylist()
    row = index[100]
    shard = np.load(made / f"signals/shard-{row['shard']:05d}.npy")
    reports = pq.read_table(made / "reports.parquet").to_pylist()
    store = Store.open(made)
    np.testing.assert_allclose(shard[row["row"]] * (meta["uv_per_unit"] / 1000), store.signals([100])[0], rtol=1e-6)
    assert reports[row["report_id"]] == {"report_id": 1, "text": store.reports[1]}
    assert len(index) == meta["n"] == sum(shard["rows"] for shard in meta["shards"])


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DeriError, match="is no store"):
            Store.open(path)
    (tmp_path / "store.json").write_text('{"format": "zarr"}')
    with pytest.raises(DeriError, match="does not describe a store"):
        Store.open(tmp_path)
    (tmp_path / "store.json").write_text('{"format": ')
    with pytest.raises(DeriError, match="is damaged"):
        Store.open(tmp_path)


def test_another_version_is_refused_by_name(copied: Path, small) -> None:
    edit_meta(copied, version=3, deri_version="7.1")
    message = r"has version 3 \(written by deri 7\.1\), this deri reads version 2: prepare the data again"
    with pytest.raises(DeriError, match=message):
        Store.open(copied)
    with pytest.raises(DeriError, match="store version 3, now 2"):
        prepare(small, copied)


def test_missing_and_cut_files_are_found(copied: Path) -> None:
    shard = copied / "signals" / "shard-00001.npy"
    data = shard.read_bytes()
    shard.write_bytes(data[:-2])
    with pytest.raises(DeriError, match=r"shard-00001\.npy has .* bytes instead of"):
        Store.open(copied)
    shard.unlink()
    with pytest.raises(DeriError, match=r"lacks signals/shard-00001\.npy"):
        Store.open(copied)
    shard.write_bytes(data)
    (copied / "reports.parquet").unlink()
    with pytest.raises(DeriError, match=r"lacks reports\.parquet"):
        Store.open(copied)


def test_an_altered_table_is_found(copied: Path) -> None:
    table = pq.read_table(copied / "index.parquet")
    pq.write_table(table.take(list(reversed(range(len(table))))), copied / "index.parquet")
    with pytest.raises(DeriError, match=r"index\.parquet is not the file that store\.json describes"):
        Store.open(copied)


def test_a_flipped_bit_is_named_by_whoever_reads_the_row(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(copied)
    assert not len(store.damaged())
    with pytest.raises(SystemExit) as status:
        main(["info", str(copied), "--verify"])
    assert status.value.code == 0
    assert f"samples of {len(store)} rows are what was written" in capsys.readouterr().out
    with open(copied / "signals" / "shard-00002.npy", "r+b") as file:
        file.seek(128 + 120_000 + 5)  # of the second row of the shard
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    where = store.index[(store.index["shard"] == 2) & (store.index["row"] == 1)]
    row, record = int(where.index[0]), where["record_id"].iloc[0]
    store = Store.open(copied)
    store.signals([row - 1, row + 1])
    for read in (store.signals, store.signals_int16):
        with pytest.raises(DeriError, match=rf"shard-00002\.npy is damaged: row {row} of the store \({record}, "):
            read([row + 1, row])
    assert store.damaged().tolist() == [row]
    with pytest.raises(SystemExit) as status:
        main(["info", str(copied), "--verify"])
    assert status.value.code == 2
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{record} (")
    assert f"1 of {len(store)} rows" in printed.err


def test_the_fingerprint_is_of_the_content(made: Path, copied: Path, make_dataset, records, tmp_path: Path) -> None:
    assert Store.open(copied).fingerprint == Store.open(made).fingerprint
    assert len(Store.open(made).fingerprint) == 64
    seen = {Store.open(made).fingerprint}
    names = [f"a{i:03d}" for i in range(150)]
    prepare(make_dataset(records, names), tmp_path / "seed", seed=1)
    swapped = ["a001", "a000", *names[2:]]  # other signals under the same rows
    prepare(make_dataset(records, swapped), tmp_path / "swapped")
    seen |= {Store.open(tmp_path / name).fingerprint for name in ("seed", "swapped")}
    assert len(seen) == 3
