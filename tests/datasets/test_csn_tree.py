"""CSN: labels from SNOMED codes in headers, the published label rule, published splits; beside real headers."""

from __future__ import annotations

import csv
import os
import shutil
import time
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.reports import load_prompts

CODES = {"SR": "426783006", "SB": "426177001", "AFIB": "164889003", "AF": "164890007", "LVQRSAL": "251146004"}
CONDITIONS = resources.files("deri.datasets") / "data" / "ConditionNames_SNOMED-CT.csv"


def write(root: Path, name: str, dx: str | None, folder: str = "01/010", signal: bool = True) -> None:
    home = root / "WFDBRecords" / folder
    home.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} 12 500 5000", *(f"{name}.mat 16+24 1000/mV 16 0 0 0 0 L{i}" for i in range(12)), "#Age: 59"]
    (home / f"{name}.hea").write_text("\n".join(lines + ([] if dx is None else [f"#Dx: {dx}"])) + "\n#Rx: Unknown\n")
    if signal:
        (home / f"{name}.mat").write_bytes(b"")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten AFIB, nine AF (of which one beside AFIB), twelve SR with slow ones between; then odd ones."""
    root = tmp_path / "csn"
    (root / "WFDBRecords").mkdir(parents=True)
    (root / "ConditionNames_SNOMED-CT.csv").write_text(CONDITIONS.read_text())
    for i in range(9):
        write(root, f"JS{i:05d}", CODES["AFIB"])
        write(root, f"JS{100 + i:05d}", CODES["AF"] if i else f"{CODES['AF']},{CODES['AFIB']}", "02/020")
    for i in range(12):
        write(root, f"JS{200 + i:05d}", CODES["SR"] if i < 10 else f"{CODES['SR']},55930002", "03/031")
    write(root, "JS00300", CODES["SB"])
    write(root, "JS00301", f"{CODES['LVQRSAL']} , {CODES['SB']}")
    write(root, "JS00302", "")
    write(root, "JS00303", None)
    return root


def labels(root: Path, **options: object) -> dict[str, tuple[str, ...] | None]:
    data = open_dataset("csn", root, **options)  # type: ignore[arg-type]
    return dict(zip(data.examples["record_id"], data.examples["csn"], strict=True))


def test_classes_with_ten_recordings_and_exact_labels(root: Path) -> None:
    data = open_dataset("csn", root)
    assert data.tasks["csn"] == ["SR", "AFIB"]  # AF has nine, SB and LVQRSAL are no classes of the published task
    table = data.examples.set_index("record_id")
    assert len(table) == 9 + 9 + 12 + 4
    assert table.loc["JS00003", "csn"] == ("AFIB",)
    assert table.loc["JS00100", "csn"] == ("AFIB",)
    assert table.loc["JS00101", "csn"] is None
    assert table.loc["JS00211", "csn"] == ("SR",)  # the second code is in no table
    assert table.loc["JS00301", "labels"] == ("lower voltage QRS in all lead", "Sinus Bradycardia")
    for empty in ("JS00302", "JS00303"):
        assert table.loc[empty, "csn"] is None
        assert table.loc[empty, "labels"] is None
    assert table.loc["JS00105", "file"] == "WFDBRecords/02/020/JS00105"
    assert set(table["source"]) == {"csn"}
    assert list(table.index) == sorted(table.index)
    assert list(table["subject_id"]) == list(table.index)
    assert data.rejects.empty


def test_published_rule(root: Path) -> None:
    found = labels(root, published_labels=True)
    assert found["JS00003"] == ("AFIB", "AF")  # "AF" is part of "AFIB"
    assert found["JS00101"] == ("AF",)
    assert found["JS00301"] == ("SA",)  # of LVQRSAL
    assert found["JS00211"] is None  # one code is in no table: the published files lack the recording
    assert found["JS00300"] is None
    assert open_dataset("csn", root, published_labels=True).tasks["csn"] == list(load_prompts("csn"))


def test_limit_does_not_change_the_classes(root: Path) -> None:
    part = open_dataset("csn", root, limit=3)
    assert list(part.examples["record_id"]) == ["JS00000", "JS00001", "JS00002"]
    assert part.tasks["csn"] == ["SR", "AFIB"]


def test_broken_headers_are_refused(root: Path) -> None:
    home = root / "WFDBRecords" / "01" / "010"
    (home / "JS00001.hea").write_text("")
    (home / "JS00002.hea").write_text("#Dx: 164889003\n")
    (home / "JS00003.hea").unlink()
    (home / "JS00004.hea").write_bytes(b"JS00004 12 500 5000\n" + b"#" * (1 << 20))
    write(root, "JS00005", CODES["SR"], "09/099")
    (home / ".JS00006.hea").write_text("hidden")
    data = open_dataset("csn", root)
    found = dict(zip(data.rejects["file"], data.rejects["reason"], strict=True))
    assert found == {
        "WFDBRecords/01/010/JS00001": "bad_header",
        "WFDBRecords/01/010/JS00002": "bad_header",
        "WFDBRecords/01/010/JS00003": "missing_header",
        "WFDBRecords/01/010/JS00004": "bad_header",
        "WFDBRecords/09/099/JS00005": "duplicate_file",
    }
    assert data.tasks["csn"] == ["SR"]  # six AFIB are left
    assert "is empty" in data.rejects["detail"][0]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda root: (root / "ConditionNames_SNOMED-CT.csv").unlink(), "ConditionNames_SNOMED-CT.csv is missing"),
        (lambda root: (root / "ConditionNames_SNOMED-CT.csv").write_text("a,b\n1,2\n"), "lacks a column for acronym"),
        (lambda root: shutil.rmtree(root / "WFDBRecords"), "WFDBRecords is missing"),
        (lambda root: [p.unlink() for p in (root / "WFDBRecords").rglob("*.*")], "holds no recordings"),
    ],
)
def test_foreign_trees(root: Path, change: object, cause: str) -> None:
    change(root)  # type: ignore[operator]
    with pytest.raises(DeriError, match=cause):
        open_dataset("csn", root)


def test_line_ends_and_marks_of_other_systems(root: Path) -> None:
    header = root / "WFDBRecords" / "01" / "010" / "JS00001.hea"
    header.write_bytes(b"\xef\xbb\xbf" + header.read_bytes().replace(b"\n", b"\r\n").replace(b"#Dx:", b"# dx :"))
    conditions = root / "ConditionNames_SNOMED-CT.csv"
    conditions.write_text("\ufeff" + conditions.read_text().replace("Acronym Name,Full Name", "AcronymName,FullName"))
    assert labels(root)["JS00001"] == ("AFIB",)


@pytest.mark.slow
def test_many_headers_are_read_in_seconds(tmp_path: Path) -> None:
    root = tmp_path / "csn"
    (root / "WFDBRecords").mkdir(parents=True)
    (root / "ConditionNames_SNOMED-CT.csv").write_text(CONDITIONS.read_text())
    for i in range(10_000):
        write(root, f"JS{i:05d}", CODES["AFIB"], f"{i // 1000:02d}/{i // 100:03d}", signal=False)
    started = time.perf_counter()
    assert len(open_dataset("csn", root).examples) == 10_000
    assert time.perf_counter() - started < 8


# --- real headers and published files ---------------------------------------------------------------------


@pytest.fixture
def real(ecg_real: Path, tmp_path: Path) -> Path:
    home = tmp_path / "real" / "WFDBRecords" / "01" / "010"
    home.mkdir(parents=True)
    for file in (ecg_real / "csn").iterdir():
        os.symlink(file, home / file.name)
    (tmp_path / "real" / "ConditionNames_SNOMED-CT.csv").write_text(CONDITIONS.read_text())
    return tmp_path / "real"


@pytest.fixture(scope="module")
def published(shared: Path) -> pd.DataFrame:
    files = [
        pd.read_csv(shared / f"published-splits/merl/chapman/chapman_{split}.csv").assign(split=split)
        for split in ("train", "val", "test")
    ]
    table = pd.concat(files, ignore_index=True)
    return table.set_index(table["ecg_path"].str.extract(r"(\w+)\.mat$")[0])


def test_our_rule_gives_the_published_labels_of_every_real_header(real: Path, published: pd.DataFrame) -> None:
    """Both ways: the same labels where the files list the recording, and none where they do not."""
    classes = list(load_prompts("csn"))
    ours = labels(real, published_labels=True)
    assert len(ours) == 41
    assert sum(record in published.index for record in ours) == 17
    for record, found in ours.items():
        if record in published.index:
            assert set(found or ()) == {c for c in classes if published.loc[record, c] == 1}, record
        else:
            assert found is None, record


@pytest.mark.parametrize("substrings", [False, True])
def test_splits_and_labels_of_the_published_files(
    real: Path, shared: Path, published: pd.DataFrame, substrings: bool
) -> None:
    data = open_dataset("csn", real, splits=shared / "published-splits", published_labels=substrings)
    classes = data.tasks["csn"]
    assert len(classes) == 38
    rule = ["csn: labels match as substrings, as in the published split files"] * substrings
    assert data.notes == [*rule, "csn: splits and labels of chapman/chapman_*.csv"]
    for row in data.examples.to_dict("records"):
        record = row["record_id"]
        if record not in published.index:
            assert row["csn"] is None
            assert row["split"] is None
            continue
        line = published.loc[record]
        assert row["split"] == line["split"]
        exact = {c for c in classes if c in line["diagnose"].split(",")}
        assert set(row["csn"]) == ({c for c in classes if line[c] == 1} if substrings else exact)


def test_the_published_files_follow_the_substring_rule(published: pd.DataFrame) -> None:
    """Every one of the 23,026 rows; 147 of them have no class by an exact match."""
    classes = list(load_prompts("csn"))
    columns = {c: published[c].to_numpy() == 1 for c in classes}
    found = published["diagnose"].tolist()
    assert len(found) == 16_546 + 1_860 + 4_620
    for c in classes:
        assert [c in text for text in found] == columns[c].tolist(), c
    assert sum(not set(text.split(",")) & set(classes) for text in found) == 147


def test_condition_table_has_the_columns_of_the_release() -> None:
    rows = list(csv.DictReader(CONDITIONS.read_text().splitlines()))
    assert list(rows[0]) == ["Acronym Name", "Full Name", "Snomed_CT"]
    assert len(rows) == 63
    assert {row["Acronym Name"] for row in rows} >= set(load_prompts("csn"))
