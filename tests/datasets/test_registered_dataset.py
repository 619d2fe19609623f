"""A data set that another package registers: one row, and ``deri prepare`` knows it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from deri.cli.main import app
from deri.datasets import DATASETS, Dataset, DatasetKind, OpenOptions, open_dataset
from deri.errors import DeriError
from deri.store import Store
from support import windowed


@pytest.fixture
def mine() -> Iterator[None]:
    def open_mine(root: Path, options: OpenOptions) -> Dataset:
        data = windowed.dataset(root)
        data.examples = data.examples.iloc[: options.limit]
        return data

    DATASETS.register("mine")(DatasetKind(open_mine))
    yield
    DATASETS._rows.pop("mine")


def test_a_registered_data_set_is_prepared(mine: None, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    arguments = ["prepare", "mine", str(tmp_path / "source"), "--out", str(tmp_path / "s"), "--limit", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    store = Store.open(tmp_path / "s")
    assert store.index["record_id"].tolist() == ["ten", "long"]
    assert np.isfinite(store.signals([0, 1])).all()


def test_what_it_does_not_have_is_told(mine: None, tmp_path: Path) -> None:
    for options, message in (
        ({"splits": tmp_path}, "no published split files of mine"),
        ({"labels": tmp_path / "x.csv"}, "mine has its own tables"),
        ({"published_labels": True}, "not mine's"),
    ):
        with pytest.raises(DeriError, match=message):
            open_dataset("mine", tmp_path, **options)
    with pytest.raises(DeriError, match=r"unknown data set 'mime': did you mean mine\? There are .*folder, mine"):
        open_dataset("mime", tmp_path)
    result = CliRunner().invoke(app, ["download", "mine", "--to", str(tmp_path / "d")])
    assert "'mine' cannot be downloaded; there are mimic-iv-ecg, ptb-xl" in str(result.exception)
