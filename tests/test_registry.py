import importlib.metadata
from importlib.metadata import EntryPoint

import pytest

from deri.errors import DeriError
from deri.registry import Registry


def test_rows_are_found_by_name_and_lazy_ones_are_imported():
    table = Registry("number", "deri.test", {"pi": "math:pi", "one": 1.0})
    assert table["pi"] == pytest.approx(3.14159265)
    assert table["one"] == 1.0
    assert table.names() == ["pi", "one"]
    assert "pi" in table
    assert "two" not in table


def test_an_unknown_name_is_an_error_that_lists_the_names():
    with pytest.raises(DeriError, match=r"'three' is no number; there are one, two"):
        Registry("number", "deri.test", {"one": 1, "two": 2})["three"]


def test_the_decorator_adds_a_row_and_refuses_a_name_that_is_taken():
    table: Registry = Registry("function", "deri.test")

    @table.register("double")
    def double(x):
        return 2 * x

    assert table["double"] is double
    table.register("double")(double)  # the same thing again, as when a module is imported twice
    with pytest.raises(DeriError, match="registered already"):
        table.register("double")(lambda x: x)


def test_entry_points_of_other_packages_add_rows(monkeypatch):
    asked = []

    def points(group):
        asked.append(group)
        return [EntryPoint("tau", "math:tau", group)]

    monkeypatch.setattr(importlib.metadata, "entry_points", points)
    table = Registry("number", "deri.numbers", {"one": 1.0})
    assert table["one"] == 1.0
    assert asked == []  # own rows need no look at installed packages
    assert table["tau"] == pytest.approx(6.2831853)
    assert table.names() == ["one", "tau"]
    assert asked == ["deri.numbers"]


def test_a_broken_entry_point_names_its_package(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [EntryPoint("bad", "no_such_package_here:x", group)]
    )
    with pytest.raises(DeriError, match="no_such_package_here"):
        Registry("number", "deri.numbers")["bad"]
