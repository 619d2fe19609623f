"""The layouts of CPSC2018 and CSN from disk to store: lengths, labels, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from typer.testing import CliRunner

from deri.cli.main import app
from deri.datasets import open_dataset
from deri.simulate import simulate
from deri.store import Store, prepare


def test_cpsc2018_structs_of_any_length(tmp_path: Path) -> None:
    simulate("cpsc2018", 14, tmp_path / "source", seed=3)
    data = open_dataset("cpsc2018", tmp_path / "source")
    summary = prepare(data, tmp_path / "store")
    assert (summary.read, summary.rejected) == (14, {})
    store = Store.open(tmp_path / "store")
    lengths = set()
    for row, example in enumerate(data.examples.to_dict("records")):
        recorded = scipy.io.loadmat(tmp_path / "source" / example["file"])["ECG"][0, 0]["data"]
        n = min(recorded.shape[1], 5000)
        stored = store.signals(np.array([row]))[0]
        np.testing.assert_allclose(stored[:, :n], recorded[:, :n], atol=6e-4)
        assert not stored[:, n:].any()
        assert store.index.loc[row, "n_samples"] == recorded.shape[1]
        lengths.add(recorded.shape[1])
    assert min(lengths) < 5000 < max(lengths)
    classes, labels = store.labels("cpsc2018", store.task_rows("cpsc2018", "all"))
    for row, found in zip(labels, data.examples["cpsc2018"], strict=True):
        assert {c for c, on in zip(classes, row, strict=True) if on} == set(found)


def test_csn_by_the_command_line_with_published_labels(tmp_path: Path) -> None:
    simulate("csn", 60, tmp_path / "source", seed=3)
    out = CliRunner().invoke(
        app, ["prepare", "csn", str(tmp_path / "source"), "--out", str(tmp_path / "store"), "--published-labels"]
    )
    assert out.exit_code == 0, out.output
    assert "60 recordings, 60 stored, 0 rejected" in out.output
    store = Store.open(tmp_path / "store")
    assert len(store.tasks["csn"]) == 38
    assert store.meta["notes"] == ["csn: labels match as substrings, as in the published split files"]
    members = store.task_rows("csn", "all")
    assert 0 < len(members) < 60


@pytest.mark.parametrize("folder", ["merl", "deri-cpsc2018"])
def test_published_splits_reach_the_store(folder: str, shared: Path, ecg_real: Path, tmp_path: Path) -> None:
    data = open_dataset("cpsc2018", ecg_real / "cpsc2018", splits=shared / "published-splits" / folder)
    prepare(data, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    where = "merl/icbeb" if folder == "merl" else folder
    assert store.meta["notes"] == [f"cpsc2018: splits and labels of {where.split('/')[-1]}/icbeb_*.csv"]
    assert store.index["split"].tolist() == data.examples["split"].tolist()
    assert len(store.task_rows("cpsc2018", "train")) == {"merl": 10, "deri-cpsc2018": 12}[folder]
