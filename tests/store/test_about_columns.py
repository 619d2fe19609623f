"""What is known of patient and recording: from files and tables into the store, through merges, and as reports."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deri.datasets import open_dataset
from deri.ecg.recording import ABOUT
from deri.errors import DeriError
from deri.files import file_sha256, write_sealed
from deri.store import Store, prepare
from deri.store.merge import merge_stores
from deri.store.overview import content, content_text
from deri.store.page import write_quality_page
from deri.store.plan import read_json
from store.conftest import ecg_units, write_record

COMMENTS = "#Age: 63\n#Sex: F\n"
DIAGNOSES = "#<diagnoses>:\n#Sinus bradycardia.\n#Confirmed by Dr. Jane Doe\n#Left axis deviation.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three records: with comments and sentences, with a base time, with nothing; ``b`` is not of the usual form."""
    root = tmp_path / "root"
    for seed, name in enumerate("abc"):
        write_record(root, name, ecg_units(seed, 6000 if name == "b" else 5000))
    with open(root / "a.hea", "a") as header:
        header.write(COMMENTS + DIAGNOSES)
    text = (root / "b.hea").read_text()
    (root / "b.hea").write_text(text.replace("b 12 500 6000", "b 12 500 6000 08:13:11 9/5/2016"))
    return root


def columns(store: Store) -> list[tuple]:
    table = store.table.select(ABOUT).to_pylist()
    return [tuple(row.values()) for row in table]


SAID = [
    (63.0, "female", None, None, ["Sinus bradycardia.", "Left axis deviation."]),
    (None, None, "2016-05-09T08:13:11", None, []),
    (None, None, None, None, []),
]


def make_old(path: Path) -> None:
    """As a store of an earlier version: without the columns."""
    table = pq.read_table(path / "index.parquet").drop_columns(list(ABOUT))
    pq.write_table(table, path / "index.parquet")
    meta = read_json(path / "store.json")
    meta["files"]["index.parquet"] = file_sha256(path / "index.parquet")
    write_sealed(path / "store.json", meta)


def test_what_files_say(folder: Path, tmp_path: Path) -> None:
    prepare(open_dataset("folder", folder), tmp_path / "s")
    assert columns(Store.open(tmp_path / "s")) == SAID


def test_tables_come_before_files(folder: Path, tmp_path: Path) -> None:
    (folder / "index.csv").write_text(
        "file,age,sex,date,device,report\na,64.5,male,2020-01-02,MAC 55,x y\nb,old,,2020-01-02 03:04:05,,\nc,,,,,\n"
    )
    data = open_dataset("folder", folder)
    assert data.notes == ["index.csv: 1 of 3 cells of the column age are not understood"]
    prepare(data, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert columns(store) == [
        (64.5, "male", "2020-01-02", "MAC 55", SAID[0][-1]),
        (None, None, "2020-01-02T03:04:05", None, []),
        SAID[2],
    ]
    assert store.reports == ["x y."]


def test_interpretation_as_report(folder: Path, tmp_path: Path) -> None:
    (folder / "index.csv").write_text("file,report\na,of the table\nb,of the table\nc,\n")
    data = open_dataset("folder", folder, report_from="file")
    prepare(data, tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert (store.reports, store.report_ids.tolist()) == (["sinus bradycardia. left axis deviation."], [0, -1, -1])
    with pytest.raises(DeriError, match="another preparation .*--report-from file, now None"):
        prepare(open_dataset("folder", folder), tmp_path / "s")


def test_old_stores_open_and_merge(folder: Path, tmp_path: Path) -> None:
    data = open_dataset("folder", folder)
    prepare(data, tmp_path / "old")
    data.examples["file"] = data.examples["file"].to_numpy()[::-1]
    prepare(data, tmp_path / "new")
    make_old(tmp_path / "old")
    assert columns(Store.open(tmp_path / "old")) == [(None,) * 5] * 3
    merge_stores([tmp_path / "old", tmp_path / "new"], tmp_path / "both")
    assert columns(Store.open(tmp_path / "both")) == [(None,) * 5] * 3 + SAID[::-1]


def test_a_class_named_like_a_column(folder: Path, tmp_path: Path) -> None:
    (folder / "index.csv").write_text("file,sex\na,0\nb,1\nc,\n")
    data = open_dataset("folder", folder, label_columns=["sex"])
    assert data.examples["labels"].tolist() == [(), ("sex",), None]
    assert "sex" not in data.examples


def test_counts(folder: Path, tmp_path: Path) -> None:
    (folder / "index.csv").write_text("file,labels,age,device\na,AFIB;LVH,40,MAC 55\nb,LVH,62,\nc,,,MAC 55\n")
    prepare(open_dataset("folder", folder, report_from="file"), tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert content(store) == {
        "classes of labels": {"LVH": 2, "AFIB": 1},
        "findings in reports": {"left axis deviation": 1, "sinus bradycardia": 1},
        "age": "40 to 62 years, median 51, known of 2",
        "sex": {"female": 1},
        "device": {"MAC 55": 2},
        "recorded": "2016-05-09 to 2016-05-09, known of 1",
        "interpretation": "in the files of 1",
    }
    assert "classes of labels: LVH: 2, AFIB: 1\n" in content_text(store)
    write_quality_page(store, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<th>classes of labels</th>" in page
    assert "Age: 40 to 62 years" in page
