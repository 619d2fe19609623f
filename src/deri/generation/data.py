"""Reports of a store as training examples, in batches of similar length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from deri.errors import DeriError
from deri.generation.tokenizer import ReportTokenizer, padded
from deri.reports import without_stamps
from deri.reports.language import LANGUAGES, Language, report_language
from deri.store import Store

_RARE = 0.01  # of the training reports: a language with fewer is not told apart
_POOL = 32  # batches whose reports are sorted by length together


@lru_cache(maxsize=2)
def report_texts(store: Store) -> list[str]:
    """The distinct reports of a store without the stamps of devices and editors; ``""`` where nothing is left."""
    return [without_stamps(text) for text in store.reports]


def report_languages(texts: Iterable[str]) -> dict[Language, int]:
    """How many of ``texts`` are in each language that at least one in a hundred is in, the commonest first."""
    counts = Counter(map(report_language, texts))
    least = _RARE * counts.total()
    return {name: n for name, n in counts.most_common() if name is not None and n >= least}


def tagged(text: str, languages: Container[Language]) -> str:
    """``text`` behind the tag of its language, ``"de: …"``, where that is one of ``languages``."""
    language = report_language(text)
    return f"{language}: {text}" if language is not None and language in languages else text


def untagged(text: str) -> str:
    """``text`` without its tag."""
    tag, _, rest = text.partition(": ")
    return rest if tag in LANGUAGES else text


def row_languages(store: Store, rows: np.ndarray) -> list[Language | None]:
    """The language of the report of each row; None where there is none, or it cannot be told."""
    texts = report_texts(store)
    return [report_language(texts[i]) if i >= 0 else None for i in store.report_ids[rows]]


def asked_languages(store: Store, rows: np.ndarray, language: str | None) -> list[str | None]:
    """The language that a report is to be in, for each row; ``"reference"`` asks for that of its own report."""
    return list(row_languages(store, rows)) if language == "reference" else [language] * len(rows)


def rows_with_report(store: Store, split: str) -> tuple[np.ndarray, int]:
    """Rows of ``split`` whose report has text, int64 ascending, and how many rows have none."""
    rows = store.rows(split)
    blank = np.array([not text for text in report_texts(store)] or [True])
    ids = store.report_ids[rows]
    kept = (ids >= 0) & ~blank[np.maximum(ids, 0)]
    return rows[kept], int((~kept).sum())


def store_identity(store: Store) -> dict[str, str]:
    """Which store something was made of, without its path: name, data set and fingerprint."""
    known = {name: value for name, value in store.provenance.items() if name != "path"}
    return {"name": store.name, **known}


def training_rows(store: Store) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows to train on, rows to select by, and how many of both splits have no report.

    Raises:
        DeriError: there are no reports, or none in one of the two splits.
    """
    if not len(store):
        raise DeriError(f"the store {store.path} is empty: nothing to train a report writer on")
    if not any(report_texts(store)):
        raise DeriError(f"the store {store.path} has no reports: a report writer is trained on ECGs with reports")
    (train, lost), (val, lost_val) = rows_with_report(store, "train"), rows_with_report(store, "val")
    for split, rows in (("train", train), ("val", val)):
        if not len(rows):
            raise DeriError(
                f"the store {store.path} has no record with a report in split {split}, which "
                f"{'training' if split == 'train' else 'the choice of the best weights'} needs: "
                "give it one when the data are prepared (docs/store.md, splits)"
            )
    return train, val, lost + lost_val


@dataclass
class Targets:
    """The reports of a store as tokens: ``ids[report_id]``; ``cut`` marks those that were longer."""

    ids: list[list[int]]
    cut: np.ndarray
    report_ids: np.ndarray
    fill: int

    @classmethod
    def encode(cls, store: Store, texts: list[str], tokenizer: ReportTokenizer, rows: np.ndarray, most: int) -> Targets:
        """Encode those of the store's ``texts`` that ``rows`` have, each cut to ``most`` tokens."""
        report_ids = store.report_ids
        ids: list[list[int]] = [[] for _ in texts]
        cut = np.zeros(len(ids), bool)
        for report in np.unique(report_ids[rows]):
            ids[report] = tokenizer.encode(texts[report], most)
            cut[report] = ids[report][-1] != tokenizer.eos
        return cls(ids, cut, report_ids, tokenizer.pad)

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of the reports of rows, int64."""
        return np.array([len(self.ids[i]) for i in self.report_ids[rows]], np.int64)

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (B, T) and lengths (B,) of rows."""
        return padded([self.ids[i] for i in self.report_ids[rows]], self.fill)


def epoch_batches(rows: np.ndarray, lengths: np.ndarray, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """All ``rows`` in batches of similar length, in an order that depends on ``seed`` and ``epoch`` alone.

    Rows are shuffled, sorted by length within pools of 32 batches, and the batches are shuffled: little is spent on
    padding, and no two epochs have the same batches.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(rows))
    batches = []
    for start in range(0, len(order), size * _POOL):
        pool = order[start : start + size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [rows[pool[i : i + size]] for i in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]
