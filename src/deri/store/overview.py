"""The flags of a store's recordings, counted: the column ``quality`` by code and by lead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deri.store.codes import NOTES

if TYPE_CHECKING:
    from deri.store.reader import Store


@dataclass(frozen=True)
class Flags:
    """All flags of all rows of a store, as parallel arrays (k,).

    Attributes:
        rows: int64, the row of each flag, ascending.
        recordings: int64, the number of the row's recording.
        codes: object, the first part of the flag.
        details: object, what follows the colon, a lead say; "" where nothing does.
    """

    rows: np.ndarray
    recordings: np.ndarray
    codes: np.ndarray
    details: np.ndarray

    @classmethod
    def of(cls, store: Store) -> Flags:
        """Read them from the index."""
        import pyarrow.compute as pc

        column = store.table["quality"].combine_chunks()
        rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
        texts = [str(text).partition(":") for text in pc.list_flatten(column).to_pylist()]
        codes = np.array([code for code, _, _ in texts], dtype=object)
        details = np.array([detail for _, _, detail in texts], dtype=object)
        recordings = np.cumsum(store.begins) - 1
        return cls(rows, recordings[rows], codes, details)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Recordings with each code, the most frequent first, then by name."""
        pairs = set(zip(self.codes.tolist(), self.recordings.tolist(), strict=True))
        counts = Counter(code for code, _ in pairs)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    @property
    def suspicions(self) -> dict[str, int]:
        """:attr:`counts` without what is normal, such as another length or rate."""
        return {code: n for code, n in self.counts.items() if code not in NOTES}

    def by_detail(self, code: str) -> dict[str, int]:
        """Recordings with a code by what follows it (the lead), the most frequent first."""
        chosen = self.codes == code
        pairs = set(zip(self.details[chosen].tolist(), self.recordings[chosen].tolist(), strict=True))
        counts = Counter(detail for detail, _ in pairs if detail)
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def rows_of(self, code: str) -> np.ndarray:
        """Rows with a code, ascending, the first of each recording."""
        chosen = self.codes == code
        _, first = np.unique(self.recordings[chosen], return_index=True)
        rows: np.ndarray = self.rows[chosen][first]
        return rows

    def suspicious(self) -> np.ndarray:
        """Recordings that have a flag beyond what is normal, ascending."""
        return np.unique(self.recordings[~np.isin(self.codes, list(NOTES))])
