"""Filters on what is known of recordings: ``age > 60 and sex == "female" and "AFIB" in labels``.

The text is parsed as a Python expression, of which only comparisons of columns with constants are understood; nothing
of it is ever run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deri.errors import DeriError

LONGEST = 1000
"""Characters of a filter at most."""

_COMPARE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("equal", "equal"),
    ast.NotEq: ("not_equal", "not_equal"),
    ast.Lt: ("less", "greater"),
    ast.LtE: ("less_equal", "greater_equal"),
    ast.Gt: ("greater", "less"),
    ast.GtE: ("greater_equal", "less_equal"),
}
"""The function of Arrow for a comparison, and for that with its sides exchanged."""

HELP = (
    'write comparisons such as age > 60, sex == "female", date >= "2020-01", "AFIB" in labels, age is None, '
    "joined with and, or, not"
)


def rows_where(table: pa.Table, text: str) -> np.ndarray:
    """Rows of a table that a filter holds for, bool (n,).

    Understood are ``== != < <= > >=``, ``in`` and ``not in`` (a label in a column of labels, a part of a text, a value
    in a list), ``is None`` and ``is not None``, joined with ``and``, ``or``, ``not`` and parentheses. A row of which a
    column is unknown fits no comparison with it, nor the opposite of one.

    Raises:
        DeriError: another expression, a column that there is not, or a value of another type than the column's.
    """
    if len(text) > LONGEST:
        raise DeriError(f"--where has {len(text)} characters, {LONGEST} are the most")
    try:
        found = _Filter(table, text.strip()).of(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise DeriError(f"--where {text}: is not understood; {HELP}") from None
    mask: np.ndarray = pc.fill_null(found, False).to_numpy()
    return mask


class _Filter:
    """The rows that an expression holds for: true, false, or null where a column is unknown."""

    def __init__(self, table: pa.Table, text: str) -> None:
        self._table, self._text = table, text

    def of(self, node: ast.expr) -> pa.ChunkedArray:
        if isinstance(node, ast.BoolOp):
            join: Callable[..., Any] = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            return reduce(join, [self.of(value) for value in node.values])
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return pc.invert(self.of(node.operand))
        if isinstance(node, ast.Compare):
            sides = pairwise([node.left, *node.comparators])
            found = [self._compare(left, op, right) for op, (left, right) in zip(node.ops, sides, strict=True)]
            return reduce(pc.and_kleene, found)
        raise self._refuse(node)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pa.ChunkedArray:
        if isinstance(op, ast.In | ast.NotIn):
            found = self._contains(left, right)
            return pc.invert(found) if isinstance(op, ast.NotIn) else found
        if isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._refuse(right)
            column = self._column(left)
            return pc.is_null(column) if isinstance(op, ast.Is) else pc.is_valid(column)
        if isinstance(left, ast.Constant | ast.UnaryOp):
            return self._call(_COMPARE[type(op)][1], right, left)
        return self._call(_COMPARE[type(op)][0], left, right)

    def _call(self, function: str, column: ast.expr, constant: ast.expr) -> pa.ChunkedArray:
        values = self._column(column)
        return pc.call_function(function, [values, self._value(constant, values.type, column)])

    def _contains(self, item: ast.expr, within: ast.expr) -> pa.ChunkedArray:
        if isinstance(within, ast.Tuple | ast.List):  # age in (60, 61)
            column = self._column(item)
            values = [self._value(value, column.type, item) for value in within.elts]
            found = pc.is_in(column, value_set=pa.array([value.as_py() for value in values], column.type))
            return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))
        column = self._column(within)
        if pa.types.is_list(column.type):
            wanted = self._value(item, column.type.value_type, within).as_py()
            return pa.chunked_array([_lists_with(chunk, wanted) for chunk in column.chunks], pa.bool_())
        wanted = self._value(item, pa.string(), within).as_py()
        if not pa.types.is_string(column.type):
            raise DeriError(f"--where: {self._source(within)} holds {_kind(column.type)}: compare it with == < >")
        return pc.match_substring(column, wanted, ignore_case=True)

    def _column(self, node: ast.expr) -> pa.ChunkedArray:
        name = self._source(node)
        if name in self._table.column_names:  # ptbxl-super, which Python takes for a difference, is one, too
            column = self._table[name]
            return column.cast(pa.float64()) if pa.types.is_integer(column.type) else column
        if isinstance(node, ast.Name | ast.BinOp):
            raise DeriError(f"--where: there is no column {name}; there are {', '.join(self._table.column_names)}")
        raise self._refuse(node)

    def _value(self, node: ast.expr, kind: pa.DataType, column: ast.expr) -> pa.Scalar:
        """The constant ``node`` as a value of a column's type."""
        try:
            value = ast.literal_eval(node)
            str(value).encode()  # a lone surrogate is no text
        except (ValueError, TypeError):
            raise self._refuse(node) from None
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
        if pa.types.is_list(kind):
            raise DeriError(f'--where: {self._source(column)} holds several texts: write "…" in {self._source(column)}')
        if not (isinstance(value, str) if pa.types.is_string(kind) else number):
            cure = f'"{value}"' if pa.types.is_string(kind) else "a number without quotes"
            raise DeriError(f"--where: {self._source(column)} holds {_kind(kind)}, {value!r} is none; write {cure}")
        return pa.scalar(value if isinstance(value, str) else float(value), kind)

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._text, node) or ""

    def _refuse(self, node: ast.AST) -> DeriError:
        shown = ast.get_source_segment(self._text, node) or self._text
        return DeriError(f"--where {self._text}: {shown} is not understood; {HELP}")


def _kind(kind: pa.DataType) -> str:
    return "text" if pa.types.is_string(kind) else "numbers"


def _lists_with(column: pa.ListArray, wanted: str) -> pa.Array:
    """Which lists hold a value; null where there is no list."""
    hits = pc.equal(pc.list_flatten(column), wanted)
    mask = np.zeros(len(column), bool)
    mask[pc.list_parent_indices(column).filter(hits).to_numpy()] = True
    return pc.if_else(column.is_valid(), pa.array(mask), pa.scalar(None, pa.bool_()))
