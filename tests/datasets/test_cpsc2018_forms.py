"""CPSC2018 in its two forms: REFERENCE.csv beside struct files, and headers with SNOMED codes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from deri.datasets import open_dataset
from deri.errors import DeriError

CLASSES = ["NORM", "AFIB", "1AVB", "CLBBB", "CRBBB", "PAC", "VPC", "STD", "STE"]
REFERENCE = """Recording,First_label,Second_label,Third_label
A0001,5,,
A0002,1,,
A0003,2,4,
A0004,6,7,8
A0005,9,3,
"""


def mat(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.mat").write_bytes(b"")


def hea(root: Path, name: str, dx: str) -> None:
    mat(root, name)
    record = name.rsplit("/", maxsplit=1)[-1]
    (root / f"{name}.hea").write_text(f"{record} 12 500 5000\n{record}.mat 16+24 1000/mV 16 0 0 0 0 I\n#Dx: {dx}\n")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    mat(tmp_path, *(f"A000{i}" for i in range(1, 6)))
    (tmp_path / "REFERENCE.csv").write_text(REFERENCE)
    return tmp_path


def test_original_form(original: Path) -> None:
    data = open_dataset("cpsc2018", original)
    assert data.tasks == {"cpsc2018": CLASSES}
    table = data.examples
    assert list(table["file"]) == [f"A000{i}.mat" for i in range(1, 6)]
    assert list(table["record_id"]) == list(table["subject_id"]) == [f"A000{i}" for i in range(1, 6)]
    assert list(table["cpsc2018"]) == [
        ("CRBBB",), ("NORM",), ("AFIB", "CLBBB"), ("PAC", "VPC", "STD"), ("1AVB", "STE")
    ]  # fmt: skip
    assert (data.val_fraction, data.test_fraction) == (0.08, 0.2)
    assert data.rejects.empty


def test_original_form_in_training_sets(tmp_path: Path) -> None:
    mat(tmp_path, "TrainingSet1/A0001", "TrainingSet2/A2001")
    (tmp_path / "TrainingSet1/REFERENCE.csv").write_text(REFERENCE[: REFERENCE.index("A0002")])
    (tmp_path / "TrainingSet2/REFERENCE.csv").write_text(REFERENCE.splitlines()[0] + "\nA2001,2,,\n")
    data = open_dataset("cpsc2018", tmp_path)
    assert list(data.examples["file"]) == ["TrainingSet1/A0001.mat", "TrainingSet2/A2001.mat"]
    assert list(data.examples["cpsc2018"]) == [("CRBBB",), ("AFIB",)]


def test_physionet_form(tmp_path: Path) -> None:
    hea(tmp_path, "g1/A0001", "59118001")
    hea(tmp_path, "g1/A0002", "426783006")
    hea(tmp_path, "g7/A6877", "164889003, 164909002,164884008")
    hea(tmp_path, "g7/A6000", "39732003")
    hea(tmp_path, "g7/B0001", "39732003")
    data = open_dataset("cpsc2018", tmp_path)
    assert list(data.examples["file"]) == ["g1/A0001", "g1/A0002", "g7/A6000", "g7/A6877"]
    assert list(data.examples["cpsc2018"]) == [("CRBBB",), ("NORM",), None, ("AFIB", "CLBBB", "VPC")]


def test_rows_refused(original: Path) -> None:
    with open(original / "REFERENCE.csv", "a") as handle:
        handle.write("A0003,2,,\nA0006,0,,\nA0007,1,,\n")
    mat(original, "A0006", "A0008", "more/A0001")
    hea(original, "A0002", "164889003")
    hea(original, "A0009", "426783006")
    (original / "A0009.hea").write_text("")
    data = open_dataset("cpsc2018", original)
    assert dict(zip(data.rejects["file"], data.rejects["reason"], strict=True)) == {
        "more/A0001.mat": "duplicate_file",
        "A0002": "conflicting_labels",
        "A0003.mat": "conflicting_labels",
        "A0006.mat": "bad_label",
        "A0008.mat": "no_reference",
        "A0009": "bad_header",
    }
    assert "A0007.mat" in set(data.examples["file"])  # listed, not there: counted when it is read
    assert "the header says AFIB, REFERENCE.csv says NORM" in set(data.rejects["detail"])


def test_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="holds no recordings A0001"):
        open_dataset("cpsc2018", tmp_path)
    mat(tmp_path, "A0001")
    (tmp_path / "REFERENCE.csv").write_text("file,label\nA0001,1\n")
    with pytest.raises(DeriError, match="lacks the column Recording"):
        open_dataset("cpsc2018", tmp_path)


# --- real recordings and published files ------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["merl/icbeb", "merl", "deri-cpsc2018"])
def test_real_recordings_with_published_splits(shared: Path, ecg_real: Path, folder: str) -> None:
    home = shared / "published-splits" / (folder if folder != "merl" else "merl/icbeb")
    published = pd.concat(
        [pd.read_csv(home / f"icbeb_{split}.csv").assign(split=split) for split in ("train", "val", "test")]
    ).set_index("filename")
    assert len(published) == 4_950 + 551 + 1_376
    own = open_dataset("cpsc2018", ecg_real / "cpsc2018").examples.set_index("record_id")
    assert len(own) == 8  # those with a header
    data = open_dataset("cpsc2018", ecg_real / "cpsc2018", splits=shared / "published-splits" / folder)
    table = data.examples.set_index("record_id")
    assert len(table) == 13
    assert data.rejects.empty
    for record in table.index:
        expected = {c for c in CLASSES if published.loc[record, c] == 1}
        assert set(table.loc[record, "cpsc2018"]) == expected
        assert table.loc[record, "split"] == published.loc[record, "split"]
        if record in own.index:  # the labels of the header itself
            assert set(own.loc[record, "cpsc2018"]) == expected
