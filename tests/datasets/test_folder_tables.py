from __future__ import annotations

from pathlib import Path

import pytest

from deri.datasets import Dataset, open_dataset
from deri.errors import DeriError


def touch(root: Path, *files: str, text: str = "x") -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)


def from_csv(root: Path, text: str, **options: object) -> Dataset:
    (root / "index.csv").write_text(text)
    return open_dataset("folder", root, **options)  # type: ignore[arg-type]


def test_all_columns(tmp_path: Path) -> None:
    data = from_csv(
        tmp_path,
        "file,fs,report,labels,subject,split,source\n"
        'b/r2.dat,500,"Sinus rhythm, normal",SR; NORM;SR;,7,train,ward\n'
        "./a//r1.mat,500,,,,,\n"
        "r3,500, *** ,AFIB,007,test,\n"
        "NA.xml,500,NA,NA,NA,val,NA\n",
    )
    table = data.examples
    assert list(table["file"]) == ["b/r2.dat", "a/r1.mat", "r3", "NA.xml"]
    assert list(table["record_id"]) == list(table["study_id"]) == ["b/r2", "a/r1", "r3", "NA"]
    assert list(table["subject_id"]) == ["7", "a/r1", "007", "NA"]
    assert list(table["source"]) == ["ward", "a", "", "NA"]
    assert list(table["report"]) == ["Sinus rhythm, normal", None, None, "NA"]
    assert list(table["split"]) == ["train", None, "test", "val"]
    assert list(table["labels"]) == [("SR", "NORM"), None, ("AFIB",), ("NA",)]
    assert data.tasks == {"labels": ["AFIB", "NA", "NORM", "SR"]}
    assert (data.val_fraction, data.test_fraction) == (0.1, 0.1)
    assert data.rejects.empty
    assert list(table.columns) == [
        "file", "record_id", "subject_id", "study_id", "source", "report", "split", "labels"
    ]  # fmt: skip


def test_only_files(tmp_path: Path) -> None:
    data = from_csv(tmp_path, "\ufefffile\r\na/1.hea\r\n")
    assert data.tasks == {}
    assert data.examples.iloc[0].to_dict() == {
        "file": "a/1.hea", "record_id": "a/1", "subject_id": "a/1", "study_id": "a/1", "source": "a",
        "report": None, "split": None,
    }  # fmt: skip


def test_a_label_column_without_labels_is_no_task(tmp_path: Path) -> None:
    data = from_csv(tmp_path, "file,labels\na.hea,\nb.hea,;\n")
    assert data.tasks == {}
    assert len(data.examples) == 2


def test_the_same_recording_twice(tmp_path: Path) -> None:
    data = from_csv(
        tmp_path,
        "file,labels\na/1.dat,SR\na/1.dat,SR\na\\1.hea,OTHER\na/./1,SR\na/1.xml,SR\na/1.dcm,SR\na/2.xml,SR\na/2.xml,SR\n",
    )
    assert list(data.examples["record_id"]) == ["a/1", "a/1.xml", "a/1.dcm", "a/2"]
    assert list(data.rejects["file"]) == ["a/1.dat", "a/1.hea", "a/1", "a/2.xml"]
    assert set(data.rejects["reason"]) == {"duplicate_file"}
    assert data.tasks == {"labels": ["SR"]}, "a label of a refused row alone is no class"


def test_limit(tmp_path: Path) -> None:
    data = from_csv(tmp_path, "file\nc.hea\nc.hea\na.hea\na.hea\nb.hea\n", limit=2)
    assert list(data.examples["file"]) == ["c.hea", "a.hea"]
    assert list(data.rejects["file"]) == ["c.hea"]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("path,labels\na,b\n", "no column 'file' .*found path, labels"),
        ("file|labels\na|b\n", r"no column 'file' .*found file\|labels"),
        ("file,split\na,train\nb,validation\nc,Test\n", "split must be .*found Test, validation"),
        ("file\na\n../b.hea\n", r"\.\./b.hea is not below"),
        ("file\na/../../b.hea\n", r"\.\./b.hea is not below"),
        ("file\n/data/b.hea\n", "/data/b.hea is not below"),
        ("file\nC:\\data\\b.hea\n", "C:/data/b.hea is not below"),
        ("file,labels\na,SR\n ,AFIB\n", r"no file in row 2 \(of 2\)"),
        ("file,labels\n", "has no rows"),
        ("", "has no header"),
        ('file\n"a\n', "line 2 is no row of a table"),
    ],
)
def test_unusable_csv(tmp_path: Path, text: str, cause: str) -> None:
    with pytest.raises(DeriError, match=cause) as caught:
        from_csv(tmp_path, text)
    assert "index.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_may_go_up_and_down_within_the_root(tmp_path: Path) -> None:
    assert list(from_csv(tmp_path, "file\na/../b..c/d.hea\n").examples["file"]) == ["b..c/d.hea"]


def test_which_csv(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file\nfrom_labels.hea\n")
    assert list(open_dataset("folder", tmp_path).examples["file"]) == ["from_labels.hea"]
    own = tmp_path / "sub" / "own.csv"
    own.parent.mkdir()
    own.write_text("file\nown.hea\n")
    (tmp_path / "index.csv").write_text("file\nfrom_index.hea\n")
    assert list(open_dataset("folder", tmp_path, labels=own).examples["file"]) == ["own.hea"]
    with pytest.raises(DeriError, match=r"both index\.csv and labels\.csv: say with --labels"):
        open_dataset("folder", tmp_path)
    with pytest.raises(DeriError, match=r"gone.csv is missing: give the CSV of the folder with --labels"):
        open_dataset("folder", tmp_path, labels=tmp_path / "gone.csv")


def test_without_a_csv_every_recording_once(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.hea", "b/2.dat", "a/1.hea", "a/1.mat", "a/1.XML", "x.dcm", "notes.txt", "a/orphan.mat")
    touch(tmp_path, "c/rec.hea", text="rec 12 500 5000\nsignals.dat 16 1000/mV 16 0 0 0 0 I\n#Age: 5\n")
    touch(tmp_path, "c/signals.dat", "c/lost.dat", "._b.hea", ".git/z.hea", "c/sub/README")
    data = open_dataset("folder", tmp_path)
    assert list(data.examples["file"]) == [
        "x.dcm", "a/1.XML", "a/1.hea", "a/orphan.mat", "b/2.hea", "c/lost.dat", "c/rec.hea"
    ]  # fmt: skip
    assert list(data.examples["record_id"]) == ["x", "a/1.XML", "a/1", "a/orphan", "b/2", "c/lost", "c/rec"]
    assert list(data.examples["source"]) == ["", "a", "a", "a", "b", "c", "c"]
    assert list(open_dataset("folder", tmp_path, limit=1).examples["file"]) == ["x.dcm"]


def test_every_format_is_listed_and_tables_are_not(tmp_path: Path) -> None:
    ecgs = ["a.scp", "b.EDF", "c.bdf", "d.ecg", "e.npy", "f.npz", "g.h5", "h.hdf5", "i.xml.gz", "j.zip", "k.DCM.GZ"]
    touch(tmp_path, *ecgs, "notes.txt.gz", "l.tar")
    touch(tmp_path, "lead.csv", text="time,I,II,V1\n0,0.1,0.2,0.3\n")
    touch(tmp_path, "REFERENCE.csv", text="Recording,First_label\nA0001,5\n")
    data = open_dataset("folder", tmp_path)
    assert list(data.examples["file"]) == [*ecgs, "lead.csv"]
    assert list(data.examples["record_id"]) == [*"abcdefghijk", "lead"]


def test_linked_folders_are_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.hea", "root/0.hea")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "root")
    data = open_dataset("folder", tmp_path / "root")
    assert list(data.examples["file"]) == ["0.hea", "link/1.hea"]


def test_nothing_there(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(DeriError, match=r"holds no ECG files \(\.hea"):
        open_dataset("folder", tmp_path)


def test_real_recordings(ecg_real: Path) -> None:
    data = open_dataset("folder", ecg_real, labels=ecg_real / "index.csv")
    table = data.examples
    assert len(table) == 285
    assert data.rejects.empty
    assert table["record_id"].is_unique
    assert table["source"].value_counts()[["ludb", "code15", "sph"]].to_dict() == {"ludb": 101, "code15": 40, "sph": 4}
    assert table["labels"].isna().sum() == 53
    assert sum("AFIB" in labels for labels in table["labels"].dropna()) == 12
    assert table["report"].notna().sum() == 120
    assert all((ecg_real / file).is_file() for file in table["file"])
    assert list(open_dataset("folder", ecg_real).examples["file"]) == list(table["file"]), "index.csv is the default"


@pytest.mark.parametrize("name", ["cpsc", "CSN", "mimic", "PTB-XL", ""])
def test_unknown_names_list_what_is_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="There are mimic-iv-ecg, ptb-xl, cpsc2018, csn, folder") as caught:
        open_dataset(name, tmp_path)
    meant = {"mimic": "mimic-iv-ecg", "PTB-XL": "ptb-xl"}.get(name)
    assert (f"did you mean {meant}?" in str(caught.value)) == (meant is not None)


def test_roots_and_options(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="gone does not exist: give the root folder of the ptb-xl"):
        open_dataset("ptb-xl", tmp_path / "gone")
    touch(tmp_path, "file")
    with pytest.raises(DeriError, match="is a file, not a folder"):
        open_dataset("folder", tmp_path / "file")
    with pytest.raises(DeriError, match=r"--labels x\.csv: ptb-xl has its own tables"):
        open_dataset("ptb-xl", tmp_path, labels="x.csv")
