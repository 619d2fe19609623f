from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.errors import DeriError
from deri.evaluation.retrieval import recall_at_k


def brute(ecg: np.ndarray, text: np.ndarray, ids: np.ndarray, k: int) -> tuple[float, float]:
    texts = sorted(set(ids.tolist()))
    vectors = {t: text[ids.tolist().index(t)] for t in texts}
    hits = [0, 0]
    for i in range(len(ids)):
        right = ecg[i] @ vectors[ids[i]]
        hits[0] += sum(ecg[i] @ vectors[t] >= right for t in texts if t != ids[i]) < k
        best = max(text[i] @ ecg[j] for j in range(len(ids)) if ids[j] == ids[i])
        hits[1] += sum(text[i] @ ecg[j] >= best for j in range(len(ids)) if ids[j] != ids[i]) < k
    return hits[0] / len(ids), hits[1] / len(ids)


@settings(max_examples=30)
@given(n=st.integers(1, 12), kinds=st.integers(1, 6), seed=st.integers(0, 500), chunk=st.sampled_from([1, 3, 64]))
def test_equals_brute_force(n: int, kinds: int, seed: int, chunk: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, kinds, n)
    # Small integers: exact sums, and ties.
    by_report = rng.integers(-2, 3, (kinds, 3)).astype(float)
    ecg, text = rng.integers(-2, 3, (n, 3)).astype(float), by_report[ids]
    result = recall_at_k(ecg, text, ids, (1, 2), chunk)
    for k in (1, 2):
        expected = brute(ecg, text, ids, k)
        assert (result[f"ecg_to_text_r{k}"], result[f"text_to_ecg_r{k}"]) == pytest.approx(expected)


def test_identical_reports_are_both_right() -> None:
    ecg = np.array([[1.0, 0], [0.9, 0.1], [0, 1.0]])
    text = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    result = recall_at_k(ecg, text, np.array([7, 7, 3]))
    assert result["ecg_to_text_r1"] == result["text_to_ecg_r1"] == 1.0


def test_median_rank_by_hand() -> None:
    ecg = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    text = np.array([[1.0, 0.5, 0.2], [1.0, 0.5, 0.2], [0.9, 0, 0.1]])
    # Ranks of ECG → text: report 0 is tied with its twin, report 1 likewise, report 2 comes third of three.
    result = recall_at_k(ecg, text, np.array([0, 1, 2]))
    assert result["ecg_to_text_median"] == 3.0 - 1.0
    assert result["text_to_ecg_median"] == 2.0


def test_a_constant_encoder_does_not_look_perfect() -> None:
    same = np.ones((10, 4))
    assert recall_at_k(same, same, np.arange(10))["ecg_to_text_r1"] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("side", ["ECG", "text"])
def test_embeddings_that_are_not_finite_are_refused(bad: float, side: str) -> None:
    good = np.eye(3)
    broken = good.copy()
    broken[1, 0] = bad
    pair = (broken, good) if side == "ECG" else (good, broken)
    with pytest.raises(DeriError, match=f"1 of 3 {side} embeddings"):
        recall_at_k(*pair, np.arange(3))
