"""``--splits``: what is taken from published split files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.reports import load_prompts

CLASSES = list(load_prompts("cpsc2018"))
OF = {"A0001": "CRBBB", "A0002": "NORM", "A0003": "AFIB", "A0004": "PAC"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "cpsc"
    root.mkdir()
    lines = ["Recording,First_label,Second_label,Third_label"]
    numbers = {"NORM": 1, "AFIB": 2, "CRBBB": 5, "PAC": 6}
    for record, label in OF.items():
        (root / f"{record}.mat").write_bytes(b"")
        lines.append(f"{record},{numbers[label]},,")
    (root / "REFERENCE.csv").write_text("\n".join(lines) + "\n")
    return root


def publish(folder: Path, rows: dict[str, list[tuple[str, str]]], columns: list[str] = CLASSES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, listed in rows.items():
        table = [[record, *(int(c in label.split("+")) for c in columns)] for record, label in listed]
        pd.DataFrame(table, columns=["filename", *columns]).to_csv(folder / f"icbeb_{split}.csv", index=False)
    return folder


SPLIT = {"train": [("A0003", "AFIB")], "val": [("A0001", "CRBBB")], "test": [("A0002", "NORM"), ("A6000", "STE")]}


def test_taken(root: Path, tmp_path: Path) -> None:
    folder = publish(tmp_path / "files" / "deep", SPLIT, CLASSES[::-1])
    for splits in (folder, tmp_path / "files"):
        data = open_dataset("cpsc2018", root, splits=splits)
        assert list(data.examples["split"]) == ["val", "test", "train", None]
        assert list(data.examples["cpsc2018"]) == [("CRBBB",), ("NORM",), ("AFIB",), None]
        assert data.tasks["cpsc2018"] == CLASSES
        assert data.notes == ["cpsc2018: splits and labels of deep/icbeb_*.csv"]


def test_few_differences_are_told_and_many_refused(root: Path, tmp_path: Path) -> None:
    lines, rows = (root / "REFERENCE.csv").read_text().splitlines(), []
    for i in range(100, 140):
        (root / f"A0{i}.mat").write_bytes(b"")
        lines.append(f"A0{i},1,,")
        rows.append((f"A0{i}", "NORM" if i else ""))
    (root / "REFERENCE.csv").write_text("\n".join(lines) + "\n")
    wrong = [("A0100", "NORM+STE"), *rows[1:]]
    data = open_dataset("cpsc2018", root, splits=publish(tmp_path / "a", SPLIT | {"val": wrong}))
    assert data.examples.set_index("record_id").loc["A0100", "cpsc2018"] == ("NORM", "STE")
    assert data.notes == [
        "cpsc2018: splits and labels of a/icbeb_*.csv",
        "cpsc2018: 1 of 42 recordings have other labels in the split files than in the data set (A0100); "
        "the files' are used",
    ]
    wrong = [(record, "STE") for record, _ in rows[:5]] + rows[5:]
    with pytest.raises(DeriError, match="do not fit the recordings: 5 of 42 differ"):
        open_dataset("cpsc2018", root, splits=publish(tmp_path / "b", SPLIT | {"val": wrong}))


@pytest.mark.parametrize(
    ("rows", "columns", "cause"),
    [
        (SPLIT | {"val": [("A0003", "AFIB")]}, CLASSES, "A0003 is listed twice"),
        (SPLIT, CLASSES[1:], "lacks the column NORM"),
        ({"train": [("A7000", "AFIB")], "val": [], "test": []}, CLASSES, "none of the 4 recordings"),
        ({"train": SPLIT["train"]}, CLASSES, "lacks icbeb_val.csv, icbeb_test.csv"),
        ({}, CLASSES, "holds no split files of cpsc2018"),
    ],
)
def test_files_that_do_not_fit(
    root: Path, tmp_path: Path, rows: dict[str, list[tuple[str, str]]], columns: list[str], cause: str
) -> None:
    with pytest.raises(DeriError, match=cause):
        open_dataset("cpsc2018", root, splits=publish(tmp_path / "files", rows, columns))


def test_two_publications_in_one_folder(root: Path, tmp_path: Path) -> None:
    publish(tmp_path / "files" / "a", SPLIT)
    publish(tmp_path / "files" / "b", SPLIT)
    with pytest.raises(DeriError, match="several publications have icbeb"):
        open_dataset("cpsc2018", root, splits=tmp_path / "files")


def test_flags_that_are_none(root: Path, tmp_path: Path) -> None:
    folder = publish(tmp_path / "files", SPLIT)
    text = (folder / "icbeb_val.csv").read_text()
    (folder / "icbeb_val.csv").write_text(text.replace(",1,", ",yes,"))
    with pytest.raises(DeriError, match="holds 'yes'; expected 0 or 1"):
        open_dataset("cpsc2018", root, splits=folder)


def test_options_that_a_data_set_does_not_have(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="there are no published split files of folder; a folder's CSV has a column"):
        open_dataset("folder", root, splits=tmp_path)
    with pytest.raises(DeriError, match="--published-labels: only the published labels of csn"):
        open_dataset("cpsc2018", root, published_labels=True)
    with pytest.raises(DeriError, match="no such folder"):
        open_dataset("cpsc2018", root, splits=tmp_path / "nowhere")


def test_real_ptbxl_equals_the_published_files(shared: Path, tmp_path: Path) -> None:
    """With --splits all four tasks are those of the files for every record in both, the six revised ones too."""
    (tmp_path / "ptbxl_database.csv").symlink_to(shared / "text" / "ptbxl_database_union.csv")
    (tmp_path / "scp_statements.csv").symlink_to(shared / "text" / "scp_statements.csv")
    data = open_dataset("ptb-xl", tmp_path, splits=shared / "published-splits")
    table = data.examples.set_index("record_id")
    names = {"super": "super_class", "sub": "sub_class", "form": "form", "rhythm": "rhythm"}
    for task, name in names.items():
        column = table[f"ptbxl-{task}"]
        members = {}
        for split in ("train", "val", "test"):
            rows = pd.read_csv(shared / f"published-splits/merl/ptbxl/{name}/ptbxl_{name}_{split}.csv")
            rows = rows[rows["ecg_id"].astype(str).isin(table.index)]
            records = rows["ecg_id"].astype(str).tolist()
            names_of = rows.columns[6:].to_numpy()
            for record, flags in zip(records, rows.iloc[:, 6:].to_numpy() == 1, strict=True):
                members[record] = set(names_of[flags])
            assert set(table.loc[records, "split"]) == {split}
        assert {record: set(found) for record, found in column.items() if found is not None} == members
    different = [note.split(":")[0] for note in data.notes if "other labels" in note]
    assert different == ["ptbxl-super", "ptbxl-sub"]
