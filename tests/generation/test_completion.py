"""What drafts leave out, and drafts with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from deri.generation.completion import completed, completion_threshold, fits

RECORDS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.booleans()), min_size=1, max_size=25)


@given(RECORDS)
def test_the_threshold_is_the_best_of_all(records: list[tuple[bool, int, bool]]) -> None:
    label, score, said = (np.array(column) for column in zip(*records, strict=True))

    def f1(threshold: float) -> float:
        return float(f1_score(label, said | (score >= threshold), zero_division=0))

    found = completion_threshold(label, score.astype(float), said)
    best = max(f1(x) for x in [*score, np.inf])
    if found is None:
        assert f1(np.inf) == pytest.approx(best)
    else:
        assert f1(found) == pytest.approx(best)
        assert f1(found) > f1(np.inf)


def test_by_hand() -> None:
    label = np.array([1, 1, 1, 0, 0], bool)
    said = np.array([1, 0, 0, 0, 0], bool)
    # The drafts alone: 2 · 1 / (3 + 1) = 0.5; with the records of 0.9 and 0.7: 2 · 3 / (3 + 3) = 1.
    assert completion_threshold(label, np.array([0.1, 0.9, 0.7, 0.5, 0.2]), said) == 0.7
    assert completion_threshold(label, np.array([0.1, 0.9, 0.7, 0.5, 0.2]), label) is None
    assert completion_threshold(label, np.zeros(5), np.ones(5, bool)) is None


def test_what_can_be_missing() -> None:
    assert fits("LVH", {"SR"})
    assert not fits("LVH", {"LVH"})
    assert not fits("NORM", {"SR"})  # that something is normal is never missing
    assert not fits("AFIB", {"SR"})  # nor is a second rhythm
    assert fits("AFIB", {"LVH"})


def test_sentences_are_added_in_the_language_of_the_draft() -> None:
    assert completed("sinus rhythm.", ["LVH"]) == "sinus rhythm. left ventricular hypertrophy."
    german = completed("sinusrhythmus lagetyp normal.", ["CLBBB"])
    assert german == "sinusrhythmus lagetyp normal. linksschenkelblock."
    assert completed("sinus rhythm.", ["CLBBB"], "de").endswith("linksschenkelblock.")
    assert completed("sinus rhythm.", []) == "sinus rhythm."
    # A draft of a normal ECG would contradict itself.
    assert completed("sinus rhythm. normal ecg.", ["LVH"]) == "sinus rhythm. normal ecg."
