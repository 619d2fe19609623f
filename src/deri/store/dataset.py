"""A store as a torch data set, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from deri.ecg.standardise import resample
from deri.errors import DeriError
from deri.store.reader import Store


class StoreDataset(Dataset[dict[str, Any]]):
    """Recordings of a store with their reports and labels; an item is a dict that torch's default collation batches.

    - ``signal``: float32 (12, n) in mV, zeros where nothing was recorded. ``model.preprocess(signals, fs, …)`` makes
      model input of a batch.
    - ``valid_samples``: int, samples before padding; ``lead_mask``: bool (12,), which leads are there.
    - ``text``: the cleaned report, or an empty text; ``report_id``: equal for equal reports, -1 for none.
    - ``labels``: float32 (classes,), where a task is named.
    - ``row``: of the store.

    Reads by memory map and is cheap to pickle: workers open the store anew.

    Attributes:
        store: of the recordings.
        rows: int64, the rows of the items.
        fs: sampling rate of the signals, Hz.
        classes: names of the columns of ``labels``.
    """

    def __init__(
        self,
        store: Store | str | Path,
        split: str = "all",
        *,
        task: str | None = None,
        fs: float | None = None,
        reports: bool = False,
        windows: bool = False,
    ) -> None:
        """Choose the items.

        Args:
            store: a store, or its folder.
            split: train, val, test or all.
            task: whose labels come with the items; only records that have them.
            fs: rate to resample to, that of a model: ``model.config.signal.fs``; None keeps the store's.
            reports: only records that have one.
            windows: every window of a long recording; else the first.

        Raises:
            DeriError: no such store, split or task, or a rate that is none.
        """
        self.store = Store.open(store)
        if fs is not None and not 0 < fs < float("inf"):
            raise DeriError(f"fs={fs} is no sampling rate: give Hz")
        self.task = task
        self.fs = self.store.fs if fs is None else float(fs)
        self.classes = [] if task is None else self.store.labels(task, [])[0]
        rows = self.store.rows(split, windows=windows)
        if task is not None:
            rows = self.store.task_rows(task, split, windows=windows)
        self.rows = rows[self.store.report_ids[rows] >= 0] if reports else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items at ``indices``, read together; a torch loader asks for batches this way."""
        store, rows = self.store, self.rows[np.asarray(indices, np.int64)]
        signals, valid = store.signals(rows), store.column("valid_samples")[rows].astype(np.int64)
        if self.fs != store.fs:
            ratio = Fraction(self.fs / store.fs).limit_denominator(1000)
            signals = resample(signals, ratio).astype(np.float32)
            valid = np.ceil(valid * float(ratio)).astype(np.int64)
        masks, ids = store.lead_mask(rows), store.report_ids[rows]
        labels = store.labels(self.task, rows)[1].astype(np.float32) if self.task is not None else None
        return [
            {
                "signal": torch.from_numpy(signals[i]),
                "valid_samples": int(valid[i]),
                "lead_mask": torch.from_numpy(masks[i]),
                "text": store.reports[ids[i]] if ids[i] >= 0 else "",
                "report_id": int(ids[i]),
                "row": int(row),
                **({} if labels is None else {"labels": torch.from_numpy(labels[i])}),
            }
            for i, row in enumerate(rows)
        ]
