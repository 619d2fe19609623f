"""Tables that users of such tools reported (shared/faults): read right, or refused with the row."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.store import Store, prepare


def test_semicolons(faults: Path) -> None:
    data = open_dataset("folder", faults / "F10")
    assert len(data.examples) == 24
    assert list(data.examples["report"][:2]) == [
        "sinus rhythm. normal ecg.",
        "atrial fibrillation with rapid response.",
    ]
    assert list(data.examples["labels"][:3]) == [("NORM",), ("AFIB",), ("CLBBB",)]
    assert list(data.examples["subject_id"][:2]) == ["p0", "p1"]


def test_a_column_for_each_class(faults: Path) -> None:
    data = open_dataset("folder", faults / "F14")
    (note,) = data.notes
    assert note.startswith("index.csv: columns of 0 and 1 are ignored: AFIB, NORM; --label-columns")
    data = open_dataset("folder", faults / "F14", label_columns=["all"])
    assert list(data.examples["labels"][:3]) == [("NORM",), ("AFIB",), ()]


def test_reports_that_read_nan(faults: Path) -> None:
    data = open_dataset("folder", faults / "F21")
    assert list(data.examples["report"]) == [None] * 24


@pytest.mark.parametrize(("name", "line"), [("F23", 5), ("F32", 2)])
def test_a_comma_too_many(name: str, line: int, faults: Path) -> None:
    with pytest.raises(DeriError, match=rf"index\.csv: line {line} has 5 fields, the header 4"):
        open_dataset("folder", faults / name)


def test_wfdb_records_in_capitals_are_prepared(faults: Path, tmp_path: Path) -> None:
    shutil.copytree(faults / "B11", tmp_path / "cd")
    (tmp_path / "cd" / "expected.txt").unlink()
    prepare(open_dataset("folder", tmp_path / "cd"), tmp_path / "store")
    assert list(Store.open(tmp_path / "store").index["file"]) == ["R1.HEA"]
