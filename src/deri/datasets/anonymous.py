"""File names and ids without what they say: keyed hashes, the same for the same name under the same key."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri.errors import DeriError
from deri.files import writing

if TYPE_CHECKING:
    import pandas as pd

    from deri.datasets.base import Dataset

NAMING = ("file", "record_id", "subject_id", "subject", "study_id")
"""Columns that may name people."""
OLDEST = 90.0
_SHORTEST_KEY = 32


class Pseudonyms:
    """16 hex digits of HMAC-SHA256 for each name. Who has no key can neither turn one back nor try names out.

    Args:
        path: file of the key, 32 characters or more; made, readable for its owner alone, where it is missing.

    Raises:
        DeriError: the file cannot be read or written, or holds no key.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            with writing(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{secrets.token_hex(32)}\n")
        try:
            self._key = path.read_bytes().strip()
        except OSError as error:
            raise DeriError(f"--anonymous {path}: cannot be read ({error.strerror})") from None
        if len(self._key) < _SHORTEST_KEY:
            raise DeriError(
                f"--anonymous {path}: holds no key of {_SHORTEST_KEY} characters; name a new file to make one"
            )

    def __call__(self, name: Any) -> Any:
        """The pseudonym of a name; what is missing or empty stays."""
        if not isinstance(name, str) or not name:
            return name
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()[:16]

    def hide(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with pseudonyms in the columns ``NAMING``, of dates the year alone, and no age above 90."""
        found = {name: table[name].map(self) for name in NAMING if name in table}
        for name, coarse in (("date", year), ("age", capped)):
            if name in table:
                found[name] = table[name].map(coarse)
        return table.assign(**found)

    def anonymise(self, dataset: Dataset) -> None:
        """Hide the names of a data set's tables; ``paths`` keeps where its files are while they are read."""
        dataset.paths = dataset.examples["file"].tolist()
        dataset.examples = self.hide(dataset.examples)
        dataset.rejects = self.hide(dataset.rejects).assign(detail="")
        count = len(dataset.notes)
        dataset.notes = [f"{count} remarks on the tables are left out, they may name people"] if count else []


def year(date: Any) -> Any:
    """The year of ``YYYY-MM-DD…``."""
    return date[:4] if isinstance(date, str) else date


def capped(age: Any) -> Any:
    """An age in years, 90 at most."""
    return min(age, OLDEST) if isinstance(age, int | float) and age == age else age
