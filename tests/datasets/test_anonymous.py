"""--anonymous: names of files and ids of people stay out of stores, tables and messages."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from deri.datasets.anonymous import Pseudonyms
from deri.ecg import LEADS
from deri.store import Store
from support import tiny
from support.command import run

NAMES = ("mueller", "mrn4711", "mrn4712", "schmidt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hospital") / "ecgs"
    path.mkdir()
    time = np.arange(5000) / 500
    beat = np.exp(-(((time % 0.8) - 0.3) ** 2) / 4e-4)
    for i, name in enumerate(("mueller", "mueller-2")):
        signal = np.random.default_rng(i).normal(0, 0.05, (12, 5000)) + np.linspace(0.5, 1.5, 12)[:, None] * beat
        np.savez(path / f"{name}.npz", signal=signal.astype(np.float32), fs=500, units="mV", leads=LEADS)
    (path / "schmidt.edf").write_bytes(b"0       no EDF")
    rows = [("mueller.npz", "MRN4711", 93, "2019-03-04"), ("mueller-2.npz", "MRN4711", 50, "2020-05-06")]
    rows.append(("schmidt.edf", "MRN4712", 60, "2020-05-06"))
    pd.DataFrame(rows, columns=["file", "subject", "age", "date"]).to_csv(path / "index.csv", index=False)
    return path


def names_in(text: str) -> list[str]:
    return [name for name in NAMES if name in text.lower()]


def test_a_store_names_nobody(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, key = tmp_path / "store", tmp_path / "key"
    assert run("prepare", "folder", folder, "--out", out, "--anonymous", key) == 0
    printed = capsys.readouterr()
    assert not names_in((printed.out + printed.err).replace(str(folder), ""))
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    told = "".join(pq.read_table(file).to_pandas().to_csv() for file in sorted(out.glob("*.parquet")))
    assert not names_in(told + (out / "store.json").read_text())
    store, hide = Store.open(out), Pseudonyms(key)
    assert store.index["subject_id"].tolist() == [hide("MRN4711")] * 2
    assert store.index["age"].tolist() == [90, 50]
    assert store.index["date"].tolist() == ["2019", "2020"]
    assert store.rejects["subject_id"].tolist() == [hide("MRN4712")]
    assert store.rejects["detail"].tolist() == [""]
    plain = tmp_path / "plain"
    assert run("prepare", "folder", folder, "--out", plain) == 0
    rows = np.argsort(Store.open(plain).index["waveform"])
    np.testing.assert_array_equal(Store.open(plain).signals(rows), store.signals(np.argsort(store.index["waveform"])))


def test_a_table_names_nobody(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.model("model.signal.fs=100", "model.signal.samples=1000").save_pretrained(tmp_path / "model")
    key = tmp_path / "key"
    capsys.readouterr()
    assert run("embed", folder, "--model", tmp_path / "model", "--out", tmp_path / "e.csv", "--anonymous", key) == 0
    printed = capsys.readouterr()
    assert not names_in(printed.out + printed.err)
    hide, table = Pseudonyms(key), pd.read_csv(tmp_path / "e.csv", dtype=str)
    assert f"{hide(str(folder / 'schmidt.edf'))}: unsupported_format" in printed.err
    assert table["subject"].tolist() == [hide("MRN4711")] * 2
    assert not names_in((tmp_path / "e.csv").read_text())


def test_who_has_another_key_or_none_learns_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Pseudonyms(tmp_path / "a"), Pseudonyms(tmp_path / "b")
    assert first("MRN4711") == Pseudonyms(tmp_path / "a")("MRN4711") != second("MRN4711")
    assert (first(""), first(None)) == ("", None)
    (tmp_path / "short").write_text("secret\n")
    assert run("embed", tmp_path, "--model", "x", "--out", "e.csv", "--anonymous", tmp_path / "short") == 2
    assert "holds no key of 32 characters" in capsys.readouterr().err
