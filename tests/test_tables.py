"""Strict tables: every row has the fields of the header, or the first that has not is named."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deri.datasets import open_dataset
from deri.datasets.tables import read_pieces, read_table
from deri.ecg import read_ecg
from deri.errors import DeriError
from deri.generation.tables import read_pairs
from deri.tables import decode, parse_text_table, read_text_table

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=8)


@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1, max_size=5)
    ),
    separator=st.sampled_from(",;\t"),
)
@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text of any letters waits for their table
def test_what_the_csv_module_writes_is_read(rows: list[list[str]], separator: str) -> None:
    header = [f"c{k}" for k in range(len(rows[0]))]
    stream = io.StringIO()
    csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    table = parse_text_table("t.csv", stream.getvalue())
    assert table.columns == tuple(header)
    assert list(table.rows()) == rows


@given(
    width=st.integers(2, 5),
    length=st.integers(1, 30),
    at=st.integers(0, 29),
    change=st.sampled_from(["more", "fewer", "text"]),
    separator=st.sampled_from(",;\t"),
)
def test_a_table_with_one_broken_row_names_it(width: int, length: int, at: int, change: str, separator: str) -> None:
    rows = [[f"{10 * i + k}.5" for k in range(width)] for i in range(length)]
    row = rows[at % length]
    if change == "more":
        row.append("7")
    elif change == "fewer":
        row.pop()
    else:
        row[0] = "low"
    lines = [separator.join(map(str, row)) for row in [[f"c{k}" for k in range(width)], *rows]]
    table = parse_text_table("t.csv", "\n".join(lines) + "\n")
    with pytest.raises(DeriError, match=rf"t\.csv: line {at % length + 2}\b"):
        table.numbers([0])
    if change != "text":
        with pytest.raises(DeriError, match=rf"t\.csv: line {at % length + 2}\b"):
            list(table.rows())


def read_signals(path: Path) -> list[list[str]]:
    signal = read_ecg(path, fs=500, units="mV").signal
    return [[f"{value:g}" for value in row] for row in signal[[0, 1, 6]].T]


def read_folder(path: Path) -> list[list[str]]:
    return open_dataset("folder", path.parent, labels=path).examples[["file", "report", "subject_id"]].values.tolist()


READERS = {
    "signals": (("I", "II", "V1"), read_signals),
    "folder": (("file", "report", "subject"), read_folder),
    "data set": (("a", "b", "c"), lambda path: read_table(path, "", ["a", "b", "c"]).values.tolist()),
    "large table": (
        ("a", "b", "c"),
        lambda path: [row for piece in read_pieces(path, "", ["a", "b", "c"]) for row in piece.values.tolist()],
    ),
    "reports": (
        ("reference", "generated", "subject"),
        lambda path: read_pairs(path)[["reference", "generated", "subject"]].values.tolist(),
    ),
}
BREAKS = {
    "right": lambda row, k, separator: separator.join(row),
    "all quoted": lambda row, k, separator: separator.join(f'"{cell}"' for cell in row),
    "blank line before": lambda row, k, separator: "\n" + separator.join(row),
    "one fewer": lambda row, k, separator: separator.join(row[:k] + row[k + 1 :]),
    "one more": lambda row, k, separator: separator.join([*row[:k], row[k] + separator + "7", *row[k + 1 :]]),
    "separator at the end": lambda row, k, separator: separator.join([*row, ""]),
    "quote not closed": lambda row, k, separator: separator.join([*row[:k], '"' + row[k], *row[k + 1 :]]),
    "text behind a quote": lambda row, k, separator: separator.join([*row[:k], f'"{row[k]}"7', *row[k + 1 :]]),
    "cut off": lambda row, k, separator: separator.join(row)[: -len(row[-1]) - 1],
}


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(*[st.integers(0, 999)] * 3), min_size=1, max_size=6),
    at=st.integers(0, 5),
    column=st.integers(0, 2),
    how=st.sampled_from(list(BREAKS)),
    separator=st.sampled_from(",;\t"),
)
def test_any_table_with_one_broken_row_is_refused_or_read_right(
    reader: str,
    rows: list[tuple[int, ...]],
    at: int,
    column: int,
    how: str,
    separator: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    header, read = READERS[reader]
    word = "" if reader == "signals" else "word"
    cells = [
        [f"{word}{i}{first:03d}", *(f"{word}{number}" for number in rest)] for i, (first, *rest) in enumerate(rows)
    ]
    lines = [separator.join(row) for row in cells]
    lines[at % len(rows)] = BREAKS[how](cells[at % len(rows)], column, separator)
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join([separator.join(header), *lines]) + "\n")
    if how not in ("right", "all quoted") and (how != "blank line before" or reader == "signals"):
        with pytest.raises(DeriError, match=r"table\.csv: (line|row) \d"):
            read(path)
        return
    assert read(path) == ([[f"{float(cell):g}" for cell in row] for row in cells] if reader == "signals" else cells)


def test_numbers_with_points_commas_and_gaps() -> None:
    for text in ("a;b\n1,5;2\n;3,25\n", "a\tb\n1,5\t2\n\t3,25", "a,b\n1.5,2\n,3.25\n\n", 'a,b\n"1.5",2\n,"3.25"\n'):
        values = parse_text_table("t.csv", text).numbers([1, 0])
        np.testing.assert_array_equal(values, [[2, 1.5], [3.25, np.nan]])
    with pytest.raises(DeriError, match=r"line 3: '1,5' in column 'b'"):
        parse_text_table("t.csv", "a;b\n1.5;2.5\n1.5;1,5\n").numbers([0, 1])


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('"a","b"\n"1",0.5,1.5\n"2",0.5,1.5\n', "col.names=NA"),
        ("a\tb\n0\t0.5\t1.5\n", "row.names=FALSE"),
        ("a,b\n0,5,1,5\n", "decimal comma"),
        ("a\n0,5\n", "decimal comma"),
        ("a,b\n1,2\n3,4,5\n", "quote cells"),
        ("a,b\n1,2,\n3,4,\n", "end no row with the separator"),
    ],
)
def test_uneven_rows_say_what_may_be_wrong(text: str, cure: str) -> None:
    with pytest.raises(DeriError, match=cure):
        parse_text_table("t.csv", text).numbers([0])


def test_comments_separators_and_quotes_before_and_in_the_header() -> None:
    table = parse_text_table("t.csv", '# made by hand\nsep=;\n"Time; s";I\n1;2\n')
    assert (table.columns, table.first_line) == (("Time; s", "I"), 4)
    assert parse_text_table("t.csv", '"Time, s",I\n1,2\n').columns == ("Time, s", "I")
    assert parse_text_table("t.csv", "'a, b','I'\n1,2\n").columns == ("a, b", "I")
    with pytest.raises(DeriError, match="no header"):
        parse_text_table("t.csv", "# nothing\n\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "windows-1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_encodings(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(newline.join(["I (µV),note", "1,für"]).encode(encoding))
    table = read_text_table(path)
    assert table.columns == ("I (µV)", "note")
    assert list(table.rows()) == [["1", "für"]]


def test_an_encoding_that_does_not_fit_names_the_option(tmp_path: Path) -> None:
    assert decode("t.csv", "é".encode("cp850"), "cp850") == "é"
    for data, encoding in ((b"\xff\xfe\xff", None), (b"\xe4", "utf-8"), (b"a", "no-such")):
        with pytest.raises(DeriError, match="--encoding"):
            decode("t.csv", data, encoding)
    with pytest.raises(DeriError, match="cannot be opened"):
        read_text_table(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(DeriError, match="more than the 2"):
        read_text_table(tmp_path / "a.csv", limit=2)


def test_blank_lines_between_rows_are_no_rows() -> None:
    table = parse_text_table("a.csv", "file,label\na,1\n\nb,2\n\n\n")
    assert list(table.rows()) == [["a", "1"], ["b", "2"]]
    with pytest.raises(DeriError, match="line 5 has 1 fields"):
        list(parse_text_table("a.csv", "file,label\na,1\n\nb,2\nc\n").rows())
