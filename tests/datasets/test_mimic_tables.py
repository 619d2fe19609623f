from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from deri.datasets import Dataset, open_dataset
from deri.errors import DeriError
from deri.reports import clean_report

REPORTS = [f"report_{i}" for i in range(18)]
NORMAL = ["Sinus rhythm", "Normal ECG"]


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])


def record(subject: int, study: int, path: str | None = None) -> list[object]:
    path = f"files/p{subject // 10000}/p{subject}/s{study}/{study}" if path is None else path
    return [subject, study, study, "2180-07-23 08:44:00", path]


def measured(subject: int, study: int, report: list[str]) -> list[object]:
    """A row with the report spread over the columns, and a column behind them as in the release."""
    return [subject, study, 7, *report, *[""] * (18 - len(report)), "0.05-150 Hz"]


def root_with(root: Path, records: list[list[object]], reports: list[list[object]]) -> Path:
    write(root / "record_list.csv", ["subject_id", "study_id", "file_name", "ecg_time", "path"], records)
    write(root / "machine_measurements.csv", ["subject_id", "study_id", "cart_id", *REPORTS, "bandwidth"], reports)
    return root


def rejected(data: Dataset) -> list[tuple[str, str]]:
    return list(zip(data.rejects["study_id"], data.rejects["reason"], strict=True))


def test_pairs_by_study_in_the_order_of_ids(tmp_path: Path) -> None:
    root_with(
        tmp_path,
        [record(10000032, 41), record(10000031, 52), record(10000032, 9)],
        [
            measured(10000031, 52, ["Sinus rhythm.", "", "Possible EKG, \"quoted\""]),
            measured(10000032, 9, ["", "NA", "Atrial fibrillation ", "with rapid response"]),
            measured(10000032, 41, NORMAL),
            measured(10000099, 77, ["Of a study", "that is not there"]),
        ],
    )  # fmt: skip
    data = open_dataset("mimic-iv-ecg", tmp_path)
    assert (data.name, data.root, data.tasks) == ("mimic-iv-ecg", tmp_path, {})
    assert (data.val_fraction, data.test_fraction) == (0.02, 0.0)
    assert data.rejects.empty
    expected = [
        ("files/p1000/p10000031/s52/52", "52", "10000031", 'Sinus rhythm.. Possible EKG, "quoted"'),
        ("files/p1000/p10000032/s9/9", "9", "10000032", "NA. Atrial fibrillation. with rapid response"),
        ("files/p1000/p10000032/s41/41", "41", "10000032", "Sinus rhythm. Normal ECG"),
    ]
    columns = ["file", "study_id", "subject_id", "report"]
    assert list(data.examples[columns].itertuples(index=False, name=None)) == expected
    assert list(data.examples["record_id"]) == ["52", "9", "41"]
    assert set(data.examples["source"]) == {"mimic-iv-ecg"}
    assert list(data.examples["split"]) == [None, None, None]
    assert list(data.examples["date"]) == ["2180-07-23T08:44:00"] * 3
    assert list(data.examples["device"]) == ["cart 7"] * 3
    assert all(type(v) is str for column in columns for v in data.examples[column])
    assert list(data.rejects.columns) == [*data.examples.columns[:5], "reason", "detail"]
    assert clean_report(data.examples["report"][0]) == 'sinus rhythm. possible ecg, "quoted".'


def test_short_and_absent_reports_are_counted(tmp_path: Path) -> None:
    root_with(
        tmp_path,
        [record(1, s) for s in (10, 11, 12, 13)],
        [measured(1, 10, ["*** Sinus rhythm ***"]), measured(1, 11, []), measured(1, 12, NORMAL)],
    )
    data = open_dataset("mimic-iv-ecg", tmp_path)
    assert list(data.examples["study_id"]) == ["12"]
    assert rejected(data) == [("10", "report_too_short"), ("11", "report_too_short"), ("13", "no_report")]
    assert "2 words" in data.rejects["detail"][0]
    assert list(open_dataset("mimic-iv-ecg", tmp_path, min_words=2).examples["study_id"]) == ["10", "12"]


def test_duplicates(tmp_path: Path) -> None:
    root_with(
        tmp_path,
        [
            record(1, 10), record(1, 10),  # the same twice
            record(1, 11), record(1, 11, "files/other/11"),  # two paths
            record(1, 12), record(2, 12, "files/p0/p1/s12/12"),  # two subjects
            record(1, 13), record(1, 14), record(1, 15),
            record(3, 16, "files/same"), record(3, 17, "files/same"),
        ],
        [
            measured(1, 10, NORMAL), measured(1, 11, NORMAL), measured(1, 12, NORMAL),
            measured(1, 13, NORMAL), measured(1, 13, ["", *NORMAL]),  # the same text in other columns
            measured(1, 14, NORMAL), measured(1, 14, ["Sinus bradycardia", "Abnormal ECG"]),
            measured(2, 15, NORMAL),
            measured(3, 16, NORMAL), measured(3, 17, NORMAL),
        ],
    )  # fmt: skip
    data = open_dataset("mimic-iv-ecg", tmp_path)
    assert list(data.examples["study_id"]) == ["10", "13"]
    assert sorted(rejected(data)) == [
        ("10", "duplicate_study_id"),
        *[("11", "duplicate_study_id")] * 2,
        *[("12", "duplicate_study_id")] * 2,
        ("13", "duplicate_study_id"),
        ("14", "duplicate_study_id"),
        ("15", "subject_mismatch"),
        *[(study, "duplicate_file") for study in ("16", "17")],
    ]
    details = data.rejects.groupby("study_id")["detail"].agg(set)
    assert "one is kept" in next(iter(details["10"]))
    assert "same report; one is kept" in next(iter(details["13"]))
    assert "different reports" in next(iter(details["14"]))


def test_rows_without_ids_or_with_paths_out_of_the_root(tmp_path: Path) -> None:
    records = [record(1, 10), record(1, 11, ""), record(1, 12, "../../etc/12"), record(1, 13, "/data/13")]
    no_study, no_subject = record(1, 14), record(1, 15)
    no_study[1] = no_subject[0] = ""
    root_with(tmp_path, [*records, no_study, no_subject], [measured(1, s, NORMAL) for s in range(10, 16)])
    data = open_dataset("mimic-iv-ecg", tmp_path)
    assert list(data.examples["study_id"]) == ["10"]
    assert sorted(rejected(data)) == [
        ("", "missing_study_id"),
        *[(study, "bad_path") for study in ("11", "12", "13")],
        ("15", "missing_study_id"),
    ]


def test_limit_takes_the_first_and_what_was_refused_before(tmp_path: Path) -> None:
    records = [record(1, s) for s in range(20, 10, -1)]
    root_with(tmp_path, records, [measured(1, s, NORMAL if s % 2 else ["Short"]) for s in range(11, 21)])
    whole = open_dataset("mimic-iv-ecg", tmp_path)
    part = open_dataset("mimic-iv-ecg", tmp_path, limit=3)
    assert list(whole.examples["study_id"]) == ["11", "13", "15", "17", "19"]
    assert list(part.examples["study_id"]) == ["11", "13", "15"]
    assert rejected(part) == [("12", "report_too_short"), ("14", "report_too_short")]
    assert len(open_dataset("mimic-iv-ecg", tmp_path, limit=99).rejects) == len(whole.rejects) == 5
    with pytest.raises(DeriError, match="--limit 0"):
        open_dataset("mimic-iv-ecg", tmp_path, limit=0)


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ([*REPORTS, "report_18"], "foreign column report_18; expected"),
        ([*REPORTS[:5], "Report_5", *REPORTS[6:]], "foreign column Report_5 and no report_5; expected"),
        (REPORTS[:-1], "no report_17; expected"),
        (["text"], "no report_0, .*found subject_id, study_id, text$"),
        ([*REPORTS, "report_3"], "has the column report_3 more than once"),
    ],
)
def test_foreign_report_columns(tmp_path: Path, header: list[str], cause: str) -> None:
    root_with(tmp_path, [record(1, 10)], [])
    path = tmp_path / "machine_measurements.csv"
    write(path, ["subject_id", "study_id", *header], [[1, 10, *["Sinus rhythm"] * len(header)]])
    with pytest.raises(DeriError, match=cause) as caught:
        open_dataset("mimic-iv-ecg", tmp_path)
    assert str(path) in str(caught.value)


def test_missing_empty_and_broken_tables(tmp_path: Path) -> None:
    root_with(tmp_path, [record(1, 10)], [measured(1, 10, NORMAL)])
    records, reports = tmp_path / "record_list.csv", tmp_path / "machine_measurements.csv"
    good = reports.read_text()
    reports.unlink()
    with pytest.raises(DeriError, match=r"machine_measurements.csv is missing: the root of mimic-iv-ecg should"):
        open_dataset("mimic-iv-ecg", tmp_path)
    reports.write_text("")
    with pytest.raises(DeriError, match=r"machine_measurements\.csv: has no header"):
        open_dataset("mimic-iv-ecg", tmp_path)
    reports.write_text(good.splitlines()[0] + "\n")
    with pytest.raises(DeriError, match=r"machine_measurements\.csv has no rows"):
        open_dataset("mimic-iv-ecg", tmp_path)
    reports.write_text(good)
    records.write_text("subject_id,path\n1,a\n")
    with pytest.raises(DeriError, match=r"record_list\.csv lacks the column study_id; found subject_id, path"):
        open_dataset("mimic-iv-ecg", tmp_path)
    records.write_bytes("subject_id,study_id,path\n1,2,ä\n".encode("latin-1"))
    with pytest.raises(DeriError, match=r"record_list\.csv cannot be read as CSV"):
        open_dataset("mimic-iv-ecg", tmp_path)


def test_the_real_row(tmp_path: Path, shared: Path) -> None:
    real = (shared / "text" / "mimic_machine_measurements_1row.csv").read_text()
    root_with(tmp_path, [record(10000032, 40689238)], [])
    (tmp_path / "machine_measurements.csv").write_text(real)
    data = open_dataset("mimic-iv-ecg", tmp_path)
    assert data.examples["file"][0] == "files/p1000/p10000032/s40689238/40689238"
    assert data.examples["report"][0] == "Sinus rhythm. Possible right atrial abnormality. Borderline ECG"


def test_many_rows_equal_a_plain_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    phrases = ["", "", "Sinus rhythm", "Normal ECG", "Left axis deviation", "*** Poor data ***", "PVC(s)."]
    studies = rng.permutation(np.arange(1000, 4000))
    reports = {s: [phrases[k] for k in rng.integers(len(phrases), size=18)] for s in studies.tolist()}
    for study in studies[:1000].tolist():
        reports[study] = reports[study][:2]
    root_with(
        tmp_path,
        [record(int(s) % 700, int(s)) for s in studies],
        [measured(s % 700, s, reports[s]) for s in rng.permutation(studies).tolist()],
    )
    data = open_dataset("mimic-iv-ecg", tmp_path)
    expected = []
    for study in sorted(reports, key=lambda s: (s % 700, s)):
        text = ". ".join(part for part in reports[study] if part)
        if len(clean_report(text).split()) >= 4:
            expected.append((str(study), str(study % 700), text))
    found = list(data.examples[["study_id", "subject_id", "report"]].itertuples(index=False, name=None))
    assert 2000 <= len(expected) < 3000
    assert found == expected
    assert data.rejects["reason"].value_counts().to_dict() == {"report_too_short": 3000 - len(expected)}
