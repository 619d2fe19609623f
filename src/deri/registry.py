"""Tables of things that users extend: backbones, text encoders, objective terms, data sets, formats, metrics.

A package outside this one adds a row either by calling the decorator, or by an entry point in its metadata, which is
loaded when a name is asked for that is not in the table, or when all names are listed::

    [project.entry-points."deri.backbones"]
    my_backbone = "my_package:MyBackbone"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar, cast

from deri.errors import DeriError

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from names to things of one kind.

    Args:
        kind: what a row is, in the singular, for messages ("backbone").
        group: group of entry points that add rows ("deri.backbones").
        rows: the package's own rows. A row given as ``"module:attribute"`` is imported when it is asked for.
    """

    def __init__(self, kind: str, group: str, rows: Mapping[str, T | str] | None = None) -> None:
        self.kind, self.group = kind, group
        self._rows: dict[str, Any] = dict(rows or {})
        self._entry_points_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds what it decorates under ``name``. A name that is taken by something else is an error."""

        def add(row: T) -> T:
            self._add(name, row)
            return row

        return add

    def names(self) -> list[str]:
        """All names, the package's own first."""
        self._load_entry_points()
        return list(self._rows)

    def get(self, name: str) -> T | None:
        """The row of ``name``; None where there is none."""
        if name not in self._rows:
            self._load_entry_points()
        row = self._rows.get(name)
        if isinstance(row, str):
            module, _, attribute = row.partition(":")
            row = self._rows[name] = getattr(import_module(module), attribute)
        return cast("T | None", row)

    def __getitem__(self, name: str) -> T:
        """The row of ``name``.

        Raises:
            DeriError: there is none; the message lists the names.
        """
        row = self.get(name)
        if row is None:
            raise DeriError(f"{name!r} is no {self.kind}; there are {', '.join(self.names())}")
        return row

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _add(self, name: str, row: T) -> None:
        there = self._rows.get(name)
        if there is not None and there is not row:
            raise DeriError(f"{self.kind} {name!r} is registered already; give yours another name")
        self._rows[name] = row

    def _load_entry_points(self) -> None:
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        from importlib.metadata import entry_points  # 40 ms, which `deri --help` does not need

        for point in entry_points(group=self.group):
            try:
                self._add(point.name, point.load())
            except (ImportError, AttributeError) as error:
                raise DeriError(
                    f"{self.kind} {point.name!r} of the installed package {point.value.split(':')[0]} cannot be "
                    f"loaded: {error}; repair or uninstall that package"
                ) from error
