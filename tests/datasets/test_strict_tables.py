"""Tables as people bring them: read right, or refused with the row or the option that helps."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.datasets import open_dataset
from deri.datasets.tables import read_pieces, read_table
from deri.errors import DeriError
from deri.simulate import simulate

REPORTS = ["sinus rhythm. normal ecg.", "sinus bradycardia, otherwise normal.", "left bundle branch block."]


def index(root: Path, text: str, encoding: str = "utf-8") -> Path:
    (root / "index.csv").write_bytes(text.encode(encoding))
    return root


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "windows-1252"])
def test_separators_and_encodings(separator: str, encoding: str, tmp_path: Path) -> None:
    lines = ["file,report,labels", *(f'r{i}.hea,"Überleitung, {text}",NORM' for i, text in enumerate("abc"))]
    text = "\r\n".join(line.replace("hea,", f"hea{separator}").replace('",', f'"{separator}') for line in lines)
    text = text.replace("file,report,labels", f"file{separator}report{separator}labels")
    data = open_dataset("folder", index(tmp_path, text, encoding))
    assert list(data.examples["report"]) == [f"Überleitung, {text}" for text in "abc"]
    assert data.tasks == {"labels": ["NORM"]}


def test_comment_and_separator_lines(tmp_path: Path) -> None:
    data = open_dataset("folder", index(tmp_path, "sep=;\n# of the ward\nfile;subject\nr0.hea;p,0\n"))
    assert list(data.examples["subject_id"]) == ["p,0"]


def test_an_encoding_is_named(tmp_path: Path) -> None:
    index(tmp_path, "file,report\nr0.hea,ритм синусовый\n", "koi8-r")
    data = open_dataset("folder", tmp_path, encoding="koi8-r")
    assert data.examples["report"][0] == "ритм синусовый"
    with pytest.raises(DeriError, match=r"index\.csv: is no text in utf-8 .*--encoding"):
        open_dataset("folder", tmp_path, encoding="utf-8")


@pytest.mark.parametrize(
    ("header", "row", "fields"),
    [
        ("file,report,labels,subject", "r3.hea,sinus bradycardia, otherwise normal.,SBRAD,p3", 5),
        ("file,report,labels,age", "r3.hea,sinus rhythm,NORM,63,", 5),
        ("file,report,labels,subject", "r3.hea,NORM,p3", 3),
    ],
)
def test_a_row_of_more_or_fewer_cells_is_named(header: str, row: str, fields: int, tmp_path: Path) -> None:
    good = "r0.hea,sinus rhythm,NORM,p0"
    with pytest.raises(DeriError, match=rf"index\.csv: line 3 has {fields} fields, the header 4"):
        open_dataset("folder", index(tmp_path, "\n".join([header, good, row, good])))


def test_columns_of_0_and_1(tmp_path: Path) -> None:
    index(tmp_path, "file,AFIB,NORM,age\na,0,1,61\nb,1,0,62\nc,0,0,63\nd,,,64\n")
    data = open_dataset("folder", tmp_path)
    assert data.tasks == {}
    assert data.notes == [
        "index.csv: columns of 0 and 1 are ignored: AFIB, NORM; --label-columns of deri prepare takes them as labels"
    ]
    for asked in (["all"], ["AFIB", "NORM"]):
        data = open_dataset("folder", tmp_path, label_columns=asked)
        assert data.tasks == {"labels": ["AFIB", "NORM"]}
        assert list(data.examples["labels"]) == [("NORM",), ("AFIB",), (), None]
        assert data.notes == []
    index(tmp_path, "file,RBBB,ST\na,True,False\nb,false,FALSE\nc,,\n")  # as CODE-15 has them
    data = open_dataset("folder", tmp_path, label_columns=["all"])
    assert list(data.examples["labels"]) == [("RBBB",), (), None]
    index(tmp_path, "file,AFIB,NORM,age\na,0,1,61\n")
    with pytest.raises(DeriError, match=r"--label-columns age: .* something else than 0 and 1"):
        open_dataset("folder", tmp_path, label_columns=["age"])
    with pytest.raises(DeriError, match=r"--label-columns LBBB: .* no such column; found AFIB, NORM, age"):
        open_dataset("folder", tmp_path, label_columns=["LBBB"])
    with pytest.raises(DeriError, match="--label-columns: mimic-iv-ecg has its own tables and files"):
        open_dataset("mimic-iv-ecg", tmp_path, label_columns=["all"])


def test_a_misspelt_column_is_told(tmp_path: Path) -> None:
    data = open_dataset("folder", index(tmp_path, "file,lables,age\na,NORM,61\n"))
    assert data.notes == ["index.csv: the column 'lables' is ignored; was 'labels' meant?"]


def test_words_of_programs_for_nothing_are_no_report(tmp_path: Path) -> None:
    data = open_dataset("folder", index(tmp_path, 'file,report\na,nan\nb,"NaN"\nc,none.\nd,None\ne,no nan\n'))
    assert list(data.examples["report"]) == [None, None, None, None, "no nan"]


def test_files_without_a_known_suffix(ecg_real: Path, tmp_path: Path) -> None:
    dicom = next(ecg_real.rglob("*.dcm"))
    (tmp_path / "1.2.840.113619.2.1").write_bytes(dicom.read_bytes())
    (tmp_path / "notes.txt").write_text("patient was cold")
    (tmp_path / "README").write_text("about")
    data = open_dataset("folder", tmp_path)
    assert list(data.examples["file"]) == ["1.2.840.113619.2.1"]
    assert data.notes == [f"2 files below {tmp_path.name} are no ECG by name or content: README, notes.txt"]


def test_a_quote_in_a_large_table_that_is_not_closed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"x, y"\n2,"x\n3,y\n4,z\n')
    with pytest.raises(DeriError, match=r"t\.csv: line 3 is no row"):
        list(read_pieces(path, "", ["a", "b"]))
    path.write_text('a,b\n1,"x, y"\n2,"x ""3"" and\n\ny"\n4,5"6\n')
    (table,) = read_pieces(path, "", ["a", "b"])
    assert table.values.tolist() == [["1", "x, y"], ["2", 'x "3" and\n\ny'], ["4", '5"6']]


def test_a_comma_in_a_report_of_mimic_is_named(tmp_path: Path) -> None:
    root = tmp_path / "mm"
    simulate("mimic-iv-ecg", 3, root, seed=3)
    path = root / "machine_measurements.csv"
    header, first, *rest = path.read_text().splitlines()
    column = header.split(",").index("report_0")
    cells = next(csv.reader([first]))
    cells[column] = "Sinus rhythm, normal"  # without quotes
    for at in (2, 3):
        lines = [header, *rest]
        lines.insert(at - 1, ",".join(cells))
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(DeriError, match=rf"machine_measurements\.csv: row {at} .* has \d+ fields, the header"):
            open_dataset("mimic-iv-ecg", root)


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=6),
    broken=st.none() | st.tuples(st.integers(0, 5), st.sampled_from([2, 4, 5])),
)
def test_any_table_is_read_right_or_its_row_is_named(
    rows: list[tuple[str, ...]], broken: tuple[int, int] | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    written = [list(row) for row in rows]
    if broken is not None:
        number, fields = broken[0] % len(rows), broken[1]
        written[number] = (written[number] * 2)[:fields]
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["one", "two", "three"], *written])
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    for read in (read_table, lambda *asked: next(read_pieces(*asked))):
        if broken is None:
            table = read(path, "", ["three", "one"])
            assert table.values.tolist() == [[row[2], row[0]] for row in rows]
        else:
            with pytest.raises(DeriError, match=rf"(line|row) {number + 2} (.* )?has {fields} fields, the header 3"):
                read(path, "", ["three", "one"])
