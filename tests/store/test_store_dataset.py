"""A store as a torch data set: what an item holds, resampling, and workers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly
from torch.utils.data import DataLoader

from deri.errors import DeriError
from deri.store import Store, StoreDataset
from support.stores import simulated_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated_store(tmp_path_factory.mktemp("dataset"), 24, 5)


def test_an_item_is_what_the_store_holds(store: Store) -> None:
    data = StoreDataset(store, "train", task="ptbxl-super", reports=True)
    rows = store.task_rows("ptbxl-super", "train")
    rows = rows[store.report_ids[rows] >= 0]
    assert len(data) == len(rows) > 5
    names, marks = store.labels("ptbxl-super", rows)
    assert data.classes == names
    item = data[3]
    np.testing.assert_array_equal(item["signal"].numpy(), store.signals(rows[3:4])[0])
    assert item["row"] == rows[3]
    assert item["text"] == store.reports[item["report_id"]] != ""
    np.testing.assert_array_equal(item["labels"].numpy(), marks[3])
    assert item["valid_samples"] == store.samples
    assert item["lead_mask"].all()


def test_the_rate_is_that_of_the_model(store: Store) -> None:
    item = StoreDataset(store.path, fs=100)[0]
    assert item["signal"].shape == (12, 1000)
    assert item["valid_samples"] == 1000
    expected = resample_poly(store.signals([0])[0], 1, 5, axis=1)
    middle = slice(50, 950)
    assert np.abs(item["signal"].numpy()[:, middle] - expected[:, middle]).mean() < 0.01  # mV
    assert "labels" not in item
    with pytest.raises(DeriError, match="no sampling rate"):
        StoreDataset(store, fs=0)
    with pytest.raises(DeriError, match="no task"):
        StoreDataset(store, task="none")


def test_workers_read_the_same_batches(store: Store) -> None:
    data = StoreDataset(store, fs=100, task="ptbxl-super")
    assert len(pickle.dumps(data)) < 20_000
    alone, shared = (list(DataLoader(data, batch_size=8, num_workers=n)) for n in (0, 2))
    assert [batch["text"] for batch in alone] == [batch["text"] for batch in shared]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["signal"], other["signal"])
        assert torch.equal(one["labels"], other["labels"])
    assert alone[0]["signal"].shape == (8, 12, 1000)
