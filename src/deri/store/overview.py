"""What a store's recordings are, counted: classes, findings, patients, and the column ``quality`` by code and lead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deri.ecg.recording import ABOUT
from deri.store.codes import NOTES

if TYPE_CHECKING:
    from deri.store.reader import Store

MOST_REPORTS = 2000
"""Distinct reports of which findings are read; of more, so many spread evenly."""
MOST_LISTED = 12


def content(store: Store) -> dict[str, dict[str, int] | str]:
    """Counts of recordings, by what is known of them; what is known of none is left out.

    ``classes of TASK`` and ``findings in reports`` (asserted or held possible, as the labeller reads them): name → n,
    the most frequent first. ``sex``, ``device``: value → n. ``age``, ``recorded``, ``interpretation``: in words.
    """
    found: dict[str, dict[str, int] | str] = {f"classes of {task}": _classes(store, task) for task in store.tasks}
    found |= _findings(store)
    table = store.table.select(ABOUT).take(store.rows())
    ages = np.array([age for age in table["age"].to_pylist() if age is not None])
    if len(ages):
        found["age"] = f"{ages.min():g} to {ages.max():g} years, median {np.median(ages):g}, known of {len(ages):,}"
    for name in ("sex", "device"):
        found[name] = _ordered(Counter(value for value in table[name].to_pylist() if value))
    dates = [date for date in table["date"].to_pylist() if date]
    if dates:
        found["recorded"] = f"{min(dates)[:10]} to {max(dates)[:10]}, known of {len(dates):,}"
    if told := sum(map(bool, table["interpretation"].to_pylist())):
        found["interpretation"] = f"in the files of {told:,}"
    return {name: value for name, value in found.items() if value}


def content_text(store: Store) -> str:
    """:func:`content` in lines, of each table the first rows."""
    return "\n".join(f"{name}: {_counts_text(value)}" for name, value in content(store).items())


def _counts_text(value: dict[str, int] | str) -> str:
    if isinstance(value, str):
        return value
    more = [f"{len(value) - MOST_LISTED} more"] if len(value) > MOST_LISTED else []
    return ", ".join([f"{name}: {n:,}" for name, n in list(value.items())[:MOST_LISTED]] + more)


def _classes(store: Store, task: str) -> dict[str, int]:
    names, marks = store.labels(task, store.task_rows(task))
    return _ordered(Counter(dict(zip(names, marks.sum(axis=0, dtype=np.int64).tolist(), strict=True))))


def _findings(store: Store) -> dict[str, dict[str, int]]:
    from deri.reports.labeller import asserted, known_findings

    ids, weights = np.unique(store.report_ids[store.rows()], return_counts=True)
    ids, weights = ids[ids >= 0], weights[ids >= 0]
    chosen = np.arange(len(ids)) if len(ids) <= MOST_REPORTS else np.arange(MOST_REPORTS) * len(ids) // MOST_REPORTS
    counts: Counter[str] = Counter()
    names = {code: finding.name for code, finding in known_findings().items()}
    for i in chosen.tolist():
        for code in asserted(store.reports[ids[i]]):
            counts[names[code]] += int(weights[i])
    part = f" ({len(chosen):,} of {len(ids):,} distinct ones)" if len(chosen) < len(ids) else ""
    return {f"findings in reports{part}": _ordered(counts)}


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first, then by name; nothing that does not occur."""
    return {name: n for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n}


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
        return _ordered(Counter(code for code, _ in pairs))

    @property
    def suspicions(self) -> dict[str, int]:
        """:attr:`counts` without what is normal, such as another length or rate."""
        return {code: n for code, n in self.counts.items() if code not in NOTES}

    def by_detail(self, code: str) -> dict[str, int]:
        """Recordings with a code by what follows it (the lead), the most frequent first."""
        chosen = self.codes == code
        pairs = set(zip(self.details[chosen].tolist(), self.recordings[chosen].tolist(), strict=True))
        return _ordered(Counter(detail for detail, _ in pairs if detail))

    def rows_of(self, code: str) -> np.ndarray:
        """Rows with a code, ascending, the first of each recording."""
        chosen = self.codes == code
        _, first = np.unique(self.recordings[chosen], return_index=True)
        rows: np.ndarray = self.rows[chosen][first]
        return rows

    def suspicious(self) -> np.ndarray:
        """Recordings that have a flag beyond what is normal, ascending."""
        return np.unique(self.recordings[~np.isin(self.codes, list(NOTES))])
