"""Real recordings in a store, against wfdb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deri.datasets import open_dataset
from deri.store import Store, prepare


@pytest.fixture(scope="module")
def real(ecg_real: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    path = tmp_path_factory.mktemp("real") / "store"
    dataset = open_dataset("folder", ecg_real, labels=ecg_real / "index.csv")
    return path, prepare(dataset, path)


def test_every_row_of_the_index_is_counted(real, ecg_real: Path) -> None:
    path, summary = real
    table = pd.read_csv(ecg_real / "index.csv")
    assert summary.read + sum(summary.rejected.values()) == len(table)
    per_source = {source: c["read"] + sum(c["rejected"].values()) for source, c in summary.per_source.items()}
    assert per_source == table["source"].value_counts().to_dict()
    store = Store.open(path)
    assert len(store) == summary.read
    assert set(store.index["file"]) | set(store.rejects["file"]) == set(table["file"])
    assert not set(store.index["file"]) & set(store.rejects["file"])


@pytest.mark.parametrize("source", ["ludb", "csn", "ptbxl"])
def test_signals_are_those_that_wfdb_reads(real, ecg_real: Path, source: str) -> None:
    import wfdb

    store = Store.open(real[0])
    index = store.index
    ours = (index["fs"] == 500) & (index["source"] == source) & (index["repaired_samples"] == 0)
    rows = index[
        ours & (index["missing_leads"].map(len) == 0) & ~index["quality"].map(" ".join).str.contains("gain_corr")
    ].index[:15]
    assert len(rows) == 15
    for row in rows:
        record = wfdb.rdrecord(str((ecg_real / index["file"][row]).with_suffix("")))
        order = [[name.upper() for name in record.sig_name].index(lead.upper()) for lead in store.meta["leads"]]
        expected = record.p_signal.T[order, :5000]
        if source == "ludb":  # one unit for all leads instead of 1 mV from peak to peak for each, see docs/ecg.md
            assert "common_gain" in index["quality"][row]
            expected = expected * (np.array(record.adc_gain)[order] / 1000)[:, None]
        found = store.signals([row])[0, :, : expected.shape[1]]
        assert np.abs(found - expected).max() <= 0.0005 + 1e-6


def test_labels_are_those_of_the_table(real, ecg_real: Path) -> None:
    store = Store.open(real[0])
    table = pd.read_csv(ecg_real / "index.csv").set_index("file")["labels"]
    rows = store.task_rows("labels")
    classes, marks = store.labels("labels", rows)
    assert len(rows) > 150
    for row, mark in zip(rows, marks, strict=True):
        expected = {label.strip() for label in table[store.index["file"][row]].split(";")}
        assert {name for name, one in zip(classes, mark, strict=True) if one} == expected
