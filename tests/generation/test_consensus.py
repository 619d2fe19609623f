from __future__ import annotations

import math

import pytest

from deri.generation.consensus import agreement, most_agreed


def test_agreement_is_bleu_and_the_f1_of_findings() -> None:
    text = "sinus rhythm. left bundle branch block. lvh."
    assert agreement(text, text) == pytest.approx(2)
    # All words agree but the last; findings: SR on both sides, AFIB and CLBBB on one each.
    one, other = "sinus rhythm with some words. lbbb", "sinus rhythm with some words. afib"
    bleu = math.exp(sum(math.log(p) for p in (5 / 6, 4 / 5, 3 / 4, 2 / 3)) / 4)
    assert agreement(one, other) == pytest.approx(bleu + 2 / 4)
    assert agreement("no words alike", "here or there") == 1  # no finding on either side: they agree in that


def test_the_draft_that_most_others_are_like_is_kept() -> None:
    normal = "sinus rhythm. normal ecg."
    drafts = ["pacemaker ecg.", normal, normal, "sinus rhythm. lvh. normal ecg."]
    assert most_agreed(drafts) == 1
    assert most_agreed(["a", "b"]) == 0
    # No draft is the commonest; one shares words with each of the others.
    assert most_agreed(["atrial fibrillation. lvh. a b c", "atrial fibrillation. lbbb. a b c", "lbbb. x y z"]) == 1
