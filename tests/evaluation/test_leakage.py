from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.cli.main import main
from deri.datasets import open_dataset
from deri.ecg import LEADS
from deri.errors import DeriError
from deri.evaluation.leakage import _close_pairs, _equal_pairs, find_leakage, leakage_text
from deri.simulate import simulate
from deri.store import Store, prepare

Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("leakage")
    simulate("mimic-iv-ecg", 40, folder / "source", seed=5)
    prepare(open_dataset("mimic-iv-ecg", folder / "source"), folder / "store")
    return Store.open(folder / "store")


def as_store(folder: Path, signals: list[np.ndarray], fs: list[float], subjects: list[str], splits: list[str]) -> Store:
    """A store of a folder of WFDB files, (12, n) mV each."""
    source = folder / "source"
    source.mkdir(parents=True)
    names = [f"r{i:03d}" for i in range(len(signals))]
    for name, signal, rate in zip(names, signals, fs, strict=True):
        wfdb.wrsamp(
            name, rate, ["mV"] * 12, list(LEADS), p_signal=signal.T.astype(float), fmt=["16"] * 12,
            adc_gain=[1000.0] * 12, baseline=[0] * 12, write_dir=str(source),
        )  # fmt: skip
    table = pd.DataFrame({"file": [f"{n}.hea" for n in names], "subject": subjects, "split": splits, "labels": "a"})
    table.to_csv(source / "index.csv", index=False)
    prepare(open_dataset("folder", source), folder / "store")
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def other(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four copies (two equal, one scaled and shifted, one at 250 Hz with noise), and four recordings of its own."""
    folder = tmp_path_factory.mktemp("other")
    rng = np.random.default_rng(0)
    taken = store.signals(np.array([3, 4, 5, 6])).astype(np.float64)
    simulate("mimic-iv-ecg", 4, folder / "mimic", seed=6)
    prepare(open_dataset("mimic-iv-ecg", folder / "mimic"), folder / "own")
    own = Store.open(folder / "own").signals(np.arange(4))
    half = taken[3].reshape(12, -1, 2).mean(axis=2)
    signals = [
        taken[0],
        taken[1],
        0.5 * taken[2] + 0.3,
        half + 0.01 * rng.normal(size=half.shape),
        *own,
    ]
    subjects = [str(store.index["subject_id"].iloc[3]), *(f"x{i}" for i in range(7))]
    splits = ["test", "train", "test", "test", "train", "val", "test", "test"]
    return as_store(folder, signals, [500, 500, 500, 250, *[500] * 4], subjects, splits)


def test_finds_copies_and_nothing_else(store: Store, other: Store) -> None:
    found = find_leakage(store, other)
    ids = store.index["record_id"].tolist()
    theirs = other.index["record_id"].tolist()
    assert found["exact"]["examples"] == [[ids[3], theirs[0]], [ids[4], theirs[1]]]
    assert found["exact"]["records"] == [2, 2]
    assert found["exact"]["against_by_split"] == {"test": 1, "train": 1}
    assert found["near"]["examples"] == [[ids[5], theirs[2]], [ids[6], theirs[3]]]
    assert found["near"]["pairs"] == 2
    assert found["near"]["against_by_split"] == {"test": 2}
    subject = store.index["subject_id"].iloc[3]
    assert found["subjects"] == {
        "n": 1,
        "records": [int((store.index["subject_id"] == subject).sum()), 1],
        "against_by_split": {"test": 1},
        "examples": [subject],
    }
    assert found["same_dataset"] is False
    text = leakage_text(found)
    assert text.startswith("LEAKAGE: the stores share recordings")
    assert "may be equal by chance" in text


def test_other_moments_of_the_same_patients_are_no_duplicates(store: Store, tmp_path: Path) -> None:
    """The same patients' later recordings have the same shape of beat, at another moment."""
    simulate("mimic-iv-ecg", 80, tmp_path / "source", seed=5)  # asking for more records changes none
    prepare(open_dataset("mimic-iv-ecg", tmp_path / "source"), tmp_path / "store")
    larger = Store.open(tmp_path / "store")
    found = find_leakage(store, larger)
    assert found["exact"]["pairs"] == len(store)
    assert found["near"]["pairs"] == 0
    assert found["same_dataset"] is True
    assert found["subjects"]["n"] == store.index["subject_id"].nunique()
    assert leakage_text(found).startswith("LEAKAGE: the stores share patients and recordings")


def test_nothing_shared_says_so(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    clean = as_store(
        tmp_path, [rng.normal(size=(12, 5000)) * 0.2 for _ in range(3)], [500] * 3, list("abc"), ["test"] * 3
    )
    with pytest.raises(SystemExit) as done:
        main(["info", str(store.path), "--against", str(clean.path)])
    assert done.value.code == 0
    assert capsys.readouterr().out.startswith("No shared patients and no shared recordings found")
    with pytest.raises(SystemExit) as done:
        main(["info", str(store.path), "--against", str(clean.path), "--json"])
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == [len(store), 3]
    assert found["subjects"]["n"] == found["exact"]["pairs"] == found["near"]["pairs"] == 0


def test_a_store_against_itself_is_refused(store: Store) -> None:
    with pytest.raises(DeriError, match="same content"):
        find_leakage(store, Store.open(store.path))


@settings(max_examples=50)
@given(a=st.lists(st.integers(0, 5), max_size=12), b=st.lists(st.integers(0, 5), max_size=12))
def test_equal_pairs_are_all_of_them(a: list[int], b: list[int]) -> None:
    pairs = _equal_pairs(np.array(a, "S4"), np.array(b, "S4"))
    assert sorted(map(tuple, pairs.tolist())) == [(i, j) for i in range(len(a)) for j in range(len(b)) if a[i] == b[j]]


def test_close_pairs_do_not_depend_on_the_chunk() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(30, 8))
    b = np.concatenate([a[[4, 17]] + 0.01, rng.normal(size=(20, 8))])
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    for chunk in (1, 7, 100):
        assert sorted(map(tuple, _close_pairs(a, b, chunk).tolist())) == [(4, 0), (17, 1)]
