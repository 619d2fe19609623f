"""Filters on metadata: what fits, what is unknown, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from deri.errors import DeriError
from deri.evaluation.where import LONGEST, rows_where

ROWS = [
    {"file": "a", "age": 50.0, "windows": 1, "sex": "female", "date": "2019-12-31T10:00", "ptbxl-super": ["MI"]},
    {"file": "b", "age": 61.0, "windows": 2, "sex": "male", "date": "2020-05-01", "ptbxl-super": ["NORM", "MI"]},
    {"file": "c", "age": None, "windows": 1, "sex": None, "date": None, "ptbxl-super": None},
    {"file": "d", "age": 70.5, "windows": 3, "sex": "male", "date": "2021-01-01", "ptbxl-super": ["NORM"]},
    {"file": "e", "age": 80.0, "windows": 1, "sex": "female", "date": "2020-12-31T23:59", "ptbxl-super": []},
]
SCHEMA = pa.schema(
    [
        *(("file", pa.string()), ("age", pa.float64()), ("windows", pa.int32()), ("sex", pa.string())),
        *(("date", pa.string()), ("ptbxl-super", pa.list_(pa.string()))),
    ]
)
TABLE = pa.concat_tables([pa.Table.from_pylist(ROWS[:2], SCHEMA), pa.Table.from_pylist(ROWS[2:], SCHEMA)])


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("age > 60", "bde"),
        ("60 >= age", "a"),
        ("not age > 60", "a"),
        ("60 < age < 75", "bd"),
        ("-5 < age != 61", "ade"),
        ("windows == 1 and age > -1", "ae"),
        ("windows in (1, 2.5)", "ace"),
        ("age in [50, 80]", "ae"),
        ("age not in [50, 80]", "bd"),
        ("age is None", "c"),
        ("date is not None", "abde"),
        ('sex == "male" or age < 55 and windows < 9', "abd"),
        ('(sex == "male" or age < 55) and windows > 1', "bd"),
        ('"2020-01" <= date and date < "2021"', "be"),
        ('"MI" in ptbxl-super', "ab"),
        ('"MI" not in ptbxl-super', "de"),
        ('"M" in ptbxl-super', ""),
        ('not ("MI" in ptbxl-super or "NORM" in ptbxl-super)', "e"),
        ('"EMA" in sex', "ae"),
        ("age > 1" + "0" * 40, ""),
    ],
)
def test_rows_that_fit(text: str, files: str) -> None:
    mask = rows_where(TABLE, text)
    assert mask.dtype == bool
    assert "".join(row["file"] for row, fits in zip(ROWS, mask, strict=True) if fits) == files


def test_a_table_without_rows() -> None:
    assert rows_where(SCHEMA.empty_table(), 'age > 3 and "MI" in ptbxl-super').tolist() == []


def test_many_rows_against_python() -> None:
    rng = np.random.default_rng(0)
    ages = rng.integers(0, 100, 1000)
    labels = [[name for name in "ABC" if rng.random() < 0.3] for _ in ages]
    table = pa.table({"age": ages, "labels": pa.array(labels, pa.list_(pa.string()))})
    expected = [40 <= age < 60 and ("A" in has) != ("B" in has) for age, has in zip(ages, labels, strict=True)]
    text = '40 <= age < 60 and ("A" in labels and "B" not in labels or "B" in labels and not "A" in labels)'
    assert rows_where(table, text).tolist() == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("weight > 60", "no column weight; there are file, age, windows, sex, date, ptbxl-super"),
        ("age - 5 > 60", "no column age - 5"),
        ('age > "60"', "age holds numbers, '60' is none; write a number without quotes"),
        ("age > True", "True is none"),
        ("age == None", "None is none"),
        ("age > 1e400", "inf is none"),
        ("sex == 3", 'sex holds text, 3 is none; write "3"'),
        ('ptbxl-super == "MI"', 'write "…" in ptbxl-super'),
        ("5 in age", "age"),
        ("sex = 'male'", "is not understood; write comparisons such as age > 60"),
        ("age > 60 AND sex == 'male'", "is not understood"),
        ("age", "age is not understood"),
        ("age == age", "is not understood"),
        ("", "is not understood"),
        ("age > 10**9", "10**9 is not understood"),
        ("age > 1 if age else 2", "is not understood"),
        ("file.x == 'a'", "file.x is not understood"),
        ("__import__('os').system('false') == 0", "is not understood"),
        ("[age for age in (1,)]", "is not understood"),
        ("(" * 400 + "age > 1" + ")" * 400, "is not understood"),
        ("age > 60 " + "or age > 60 " * 100, f"{LONGEST} are the most"),
        ("age \0 > 60", "is not understood"),
        ("age == {[]: 1}", "is not understood"),
        ('sex == "\\ud800"', "is not understood"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(DeriError) as error:
        rows_where(TABLE, text)
    assert told in str(error.value)
    assert str(error.value).startswith("--where")
