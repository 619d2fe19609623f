"""Strict reading of text tables (CSV): every row has as many fields as the header, or the first that has not is named.

pandas invents an index where rows have a field more than the header, and fills up where they have one less: columns
shift without a word. Here the fields of every row are counted. Known are ``,`` ``;`` and tab, quoted cells that hold
the separator, comment lines (``#``) and Excel's ``sep=;`` before the header, UTF-8 and UTF-16 with and without a byte
order mark, and windows-1252.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deri.errors import DeriError

SEPARATORS = (",", ";", "\t")
MAX_BYTES = 2**31


def decode(path: str, data: bytes, encoding: str | None = None) -> str:
    """The text of a file: by its byte order mark, else UTF-8, else UTF-16 or windows-1252, by its bytes.

    Raises:
        DeriError: the bytes are not those of the ``encoding`` that was given, or of any that is known.
    """
    try:
        if encoding is not None:
            return data.decode(encoding).removeprefix("\ufeff")
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        if b"\0" in data[:200]:
            return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return data.decode("windows-1252")
    except (UnicodeDecodeError, LookupError) as error:
        known = encoding or "UTF-8, UTF-16 or windows-1252"
        cure = "save it as UTF-8, or name its encoding (--encoding of deri prepare folder)"
        raise DeriError(f"{path}: is no text in {known} ({error}); {cure}") from None


@dataclass(frozen=True)
class TextTable:
    """A table of text cells.

    Attributes:
        path: the file, for messages.
        columns: the header's cells, without quotes and blanks around them.
        lines: the lines of the rows; those that are blank at the end are gone.
        first_line: number of the first of them in the file, from 1.
        separator: between the cells.
        quote: around cells that hold the separator.
    """

    path: str
    columns: tuple[str, ...]
    lines: list[str]
    first_line: int
    separator: str
    quote: str = '"'

    def rows(self) -> Iterator[list[str]]:
        """The cells of each row; blank lines between rows of several columns are none.

        Raises:
            DeriError: naming the first row that has more or fewer fields than the header.
        """
        lines = (line + "\n" for line in self.lines)
        reader = csv.reader(lines, delimiter=self.separator, quotechar=self.quote, skipinitialspace=True, strict=True)
        begin = 0
        try:
            for row in reader:
                cells = row or [""]
                if not row and len(self.columns) > 1:
                    begin = reader.line_num
                    continue
                if len(cells) != len(self.columns):
                    raise self._uneven(begin, cells)
                begin = reader.line_num
                yield cells
        except csv.Error as error:
            raise DeriError(f"{self.path}: line {self.first_line + begin} is no row of a table ({error})") from None

    def numbers(self, wanted: Sequence[int]) -> np.ndarray:
        """Columns of numbers, float64 (rows, len(wanted)); an empty cell is NaN.

        A comma is the decimal mark where it is not the separator and no cell has a point.

        Raises:
            DeriError: naming the first row that is uneven, or whose cell is no number.
        """
        import pandas as pd

        text = "\n".join(self.lines)
        quoted = self.quote in text
        if not quoted:
            width = len(self.columns) - 1
            uneven = (i for i, line in enumerate(self.lines) if line.count(self.separator) != width)
            if (first := next(uneven, None)) is not None:
                raise self._uneven(first, self.lines[first].split(self.separator))
        comma = self.separator != "," and "," in text and "." not in text
        if quoted:
            cells = [[row[i] for i in wanted] for row in self.rows()]
            comma = self.separator != "," and any("," in c for row in cells for c in row)
            frame = pd.DataFrame(cells, columns=list(wanted), dtype=object)
        else:
            try:
                frame = pd.read_csv(
                    io.StringIO(text), sep=self.separator, decimal="," if comma else ".", header=None,
                    usecols=list(wanted), dtype=np.float64, skipinitialspace=True, skip_blank_lines=False,
                    quoting=csv.QUOTE_NONE, index_col=False,
                )[list(wanted)]  # fmt: skip
                return frame.to_numpy()
            except (ValueError, pd.errors.ParserError):
                frame = pd.DataFrame([[row[i] for i in wanted] for row in self.rows()], columns=list(wanted))
        values = np.empty(frame.shape)
        for number, row in enumerate(frame.itertuples(index=False)):
            for k, cell in enumerate(row):
                values[number, k] = self._number(number, wanted[k], cell, comma)
        return values

    def _number(self, row: int, column: int, cell: str, comma: bool) -> float:
        text = cell.strip().replace(",", ".") if comma else cell.strip()
        if text == "" or text.lower() in ("nan", "na", "null", "none"):
            return np.nan
        try:
            return float(text)
        except ValueError:
            shown = self.columns[column] or f"number {column + 1}"
            raise DeriError(
                f"{self.path}: line {self.first_line + row}: {cell[:40]!r} in column {shown!r} is no number"
            ) from None

    def _uneven(self, row: int, cells: list[str]) -> DeriError:
        width, fields = len(self.columns), len(cells)
        cure = "quote cells that hold the separator"
        if fields == width + 1 and not cells[-1].strip():
            cure = "end no row with the separator, or the header, too"
        elif self.separator == "," and fields == 2 * width:
            cure = "a decimal comma needs another separator, such as ;"
        elif fields == width + 1 and row == 0:
            cure += ", and give row names a header (R leaves it out: row.names=FALSE or col.names=NA)"
        return DeriError(f"{self.path}: line {self.first_line + row} has {fields} fields, the header {width}; {cure}")


def read_text_table(path: str | os.PathLike[str], encoding: str | None = None, limit: int = MAX_BYTES) -> TextTable:
    """Read a table whose first line (after comments) names its columns.

    Args:
        path: the file.
        encoding: of its text; None: see :func:`decode`.
        limit: bytes that are read at once.

    Raises:
        DeriError: a file that cannot be opened, is larger than ``limit``, is no text, or has no header.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            data = handle.read() if size <= limit else b""
    except OSError as error:
        raise DeriError(f"{name}: cannot be opened ({error.strerror})") from error
    if size > limit:
        raise DeriError(f"{name}: {size} bytes are more than the {limit} that are read at once")
    return parse_text_table(name, decode(name, data, encoding))


def parse_text_table(path: str, text: str) -> TextTable:
    """The table in a text, see :func:`read_text_table`."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    at, separator = 0, ""
    while at < len(lines) and (
        not lines[at].strip() or lines[at].lstrip().startswith("#") or lines[at][:4].lower() == "sep="
    ):
        if lines[at][:4].lower() == "sep=":
            separator = lines[at][4:].strip(" ") or "\t"
        at += 1
    if at == len(lines):
        raise DeriError(f"{path}: has no header, so that it cannot be read as a table")
    header = lines[at]
    quote = "'" if header.lstrip().startswith("'") else '"'
    separator = separator[:1] or _separator(header, quote)
    try:
        cells = next(csv.reader([header], delimiter=separator, quotechar=quote, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DeriError(f"{path}: its header is no row of a table ({error})") from None
    columns = tuple(cell.strip().strip("\"'").strip() for cell in cells)
    return TextTable(path, columns, lines[at + 1 :], at + 2, separator, quote)


def _separator(header: str, quote: str) -> str:
    """The separator that occurs most often outside quotes."""
    outside = "".join(header.split(quote)[::2])
    return max(SEPARATORS, key=outside.count)
