"""Statements of a store's reports, see :mod:`deri.reports.statements`."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources

import numpy as np

from deri.files import digest_of
from deri.progress import SILENT, Progress
from deri.reports.statements import Statements, split_statements
from deri.store.beside import arrays_beside
from deri.store.layout import REPORTS_FILE
from deri.store.reader import Store

_ARRAYS = ("bits", "report_bits", "starts", "ids")
_RULES = ("findings.yaml", "labeller.py", "statements.py")


def store_statements(store: Store, *, progress: Progress = SILENT) -> Statements:
    """The statements of ``store.reports``.

    Read once, about a millisecond a report, and kept beside the store, see :func:`deri.store.beside.keep_beside`.
    """

    def make() -> dict[str, np.ndarray]:
        found = split_statements(store.reports)
        texts = np.frombuffer("\n".join(found.texts).encode(), np.uint8)  # a line break ends a sentence
        return {"texts": texts} | {name: getattr(found, name) for name in _ARRAYS}

    name = digest_of([store.meta["files"][REPORTS_FILE], _rules()])
    kept = arrays_beside(store, f"statements/{name}", make, progress)
    texts = kept["texts"].tobytes().decode()
    return Statements(texts.split("\n") if texts else [], *(kept[name] for name in _ARRAYS))


@cache
def _rules() -> str:
    """Digest of what decides the findings of a text."""
    folder = resources.files("deri.reports")
    return hashlib.sha256(b"\0".join(folder.joinpath(file).read_bytes() for file in _RULES)).hexdigest()
