"""Data sets: what each one looks like on disk, and its examples, labels and splits. Tables only, no signals."""

from __future__ import annotations

from deri.datasets.base import DATASETS, Dataset, DatasetKind, OpenOptions, open_dataset

__all__ = ["DATASETS", "Dataset", "DatasetKind", "OpenOptions", "open_dataset"]
