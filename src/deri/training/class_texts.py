"""Prompts of a record's classes as its text: supervision in words, where a store has labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deri.reports.prompts import LABELS, prompts_for
from deri.reports.statements import finding_bits
from deri.store import Store

Class = tuple[str, str]
"""Task and code."""
_BITS = 62  # of a word; the sign is left alone


@dataclass(frozen=True)
class ClassTexts:
    """The classes of the rows of a store, and their prompts.

    Attributes:
        texts: all prompts.
        bits: (texts, 1 + words) int64, what each states: findings of the labeller, then classes.
        row_bits: (rows, words) int64, classes of each row.
        starts: (rows + 1,); ``ids[starts[i]:starts[i + 1]]`` are the classes of row i.
        ids: positions in ``prompts``.
        prompts: (classes, 2): the first prompt of a class, and how many it has.
    """

    texts: list[str]
    bits: np.ndarray
    row_bits: np.ndarray
    starts: np.ndarray
    ids: np.ndarray
    prompts: np.ndarray

    def draw(self, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """A prompt of one class of each row (b,), chosen by ``uniform`` (b,) in [0, 1); -1 where it has no class."""
        if not len(self.ids):
            return np.full(len(rows), -1)
        count = np.diff(self.starts)[rows]
        place = uniform * count
        chosen = np.minimum(place.astype(np.int64), np.maximum(count - 1, 0))
        first, several = self.prompts[self.ids[np.minimum(self.starts[rows] + chosen, len(self.ids) - 1)]].T
        prompt = first + np.minimum(((place - chosen) * several).astype(np.int64), several - 1)
        return np.where(count > 0, prompt, -1)


def classes_of(stores: Sequence[Store]) -> list[Class]:
    """The classes of all tasks of the stores; of free labels those whose code is no class of another task."""
    named = {(task, code) for store in stores for task, codes in store.tasks.items() for code in codes}
    known = {code.strip("_") for task, code in named if task != LABELS}
    return sorted((task, code) for task, code in named if task != LABELS or code.strip("_") not in known)


def read_class_texts(store: Store, classes: Sequence[Class]) -> ClassTexts:
    """The classes of a store among ``classes``, which are those of all stores that are trained on."""
    words = -(-len(classes) // _BITS)
    texts: list[str] = []
    prompts = np.empty((len(classes), 2), np.int64)
    bits = []
    for i, (task, code) in enumerate(classes):
        found = prompts_for(task, [code])[code]
        prompts[i] = len(texts), len(found)
        texts += found
        word = np.zeros(1 + words, np.int64)
        word[1 + i // _BITS] = 1 << i % _BITS
        for text in found:
            bits.append(word + np.eye(1, 1 + words, dtype=np.int64)[0] * finding_bits(text))
    marks = np.zeros((len(store), len(classes)), bool)
    for task, codes in store.tasks.items():
        rows = store.task_rows(task, windows=True)
        values = store.labels(task, rows)[1] > 0
        for column, code in enumerate(codes):
            if (task, code) in classes:
                marks[rows, classes.index((task, code))] = values[:, column]
    row_bits = np.zeros((len(store), words), np.int64)
    for i in range(len(classes)):
        row_bits[marks[:, i], i // _BITS] |= 1 << i % _BITS
    starts = np.concatenate([[0], marks.sum(axis=1).cumsum()])
    return ClassTexts(
        texts, np.array(bits, np.int64).reshape(-1, 1 + words), row_bits, starts, marks.nonzero()[1], prompts
    )
