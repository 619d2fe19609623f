"""Word metrics of generated reports against nltk, rouge-score and pycocoevalcap, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deri.errors import DeriError
from deri.generation import metrics
from deri.generation.metrics import cider_d, corpus_bleu, meteor_exact, pair_scores, rouge_l, sentence_bleu

PHRASES = (
    "sinus rhythm. | sinus bradycardia. | atrial fibrillation with rapid ventricular response. | normal ecg. | "
    "left axis deviation. | left anterior fascicular block. | st segments are depressed in i, avl, v5,6. | "
    "t waves are low or flat in limb leads. | premature ventricular contraction(s). | qrs(t) abnorm | "
    "inferiorer infarkt wahrscheinlich alt | unbestätigter bericht | this may be due to lv strain or ischaemia."
).split(" | ")


def make_pairs(n: int) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(7)

    def text(least: int) -> str:
        return " ".join(rng.choice(PHRASES, size=rng.integers(least, 7)))

    references = [text(1) for _ in range(n)]
    # Some generated texts are true, some are short or empty, some differ by a word.
    generated = [text(0) for _ in range(n)]
    generated[::10] = references[::10]
    generated[1::10] = [r.split()[0] for r in references[1::10]]
    generated[2::10] = [" ".join(r.split()[:-1]) for r in references[2::10]]
    return references, generated


REFERENCES, GENERATED = make_pairs(500)


def test_bleu_equals_nltk() -> None:
    nltk = pytest.importorskip("nltk.translate.bleu_score")
    smooth = nltk.SmoothingFunction().method1
    for reference, generated in zip(REFERENCES, GENERATED, strict=True):
        expected = [
            nltk.sentence_bleu([reference.split()], generated.split(), weights=(1 / k,) * k, smoothing_function=smooth)
            for k in (1, 2, 3, 4)
        ]
        assert sentence_bleu(reference, generated) == pytest.approx(expected, rel=1e-12, abs=0)


def test_bleu_by_hand() -> None:
    # "a b c" against "a b d e": precisions 2/3, 1/2, then no match: 0.1/1, and 0.1/1 for an order with no n-gram.
    brevity = math.exp(1 - 4 / 3)
    expected = [2 / 3, (2 / 3 / 2) ** 0.5, (2 / 3 / 2 * 0.1) ** (1 / 3), (2 / 3 / 2 * 0.1 * 0.1) ** 0.25]
    assert sentence_bleu("a b d e", "a b c") == pytest.approx([brevity * x for x in expected])


def test_rouge_equals_rouge_score() -> None:
    rouge_score = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_score.RougeScorer(["rougeL"], use_stemmer=True)
    for reference, generated in zip(REFERENCES, GENERATED, strict=True):
        assert rouge_l(reference, generated) == scorer.score(target=reference, prediction=generated)["rougeL"].fmeasure


def test_rouge_by_hand() -> None:
    pytest.importorskip("rouge_score")
    # Stems are equal; LCS 2 of 3 and of 2 words: F = 2·(1·2/3)/(1 + 2/3).
    assert rouge_l("inverted waves everywhere", "inverting wave") == pytest.approx(0.8)


def test_cider_equals_pycocoevalcap() -> None:
    scorer = pytest.importorskip("pycocoevalcap.cider.cider_scorer").CiderScorer(n=4, sigma=6.0)
    for reference, generated in zip(REFERENCES, GENERATED, strict=True):
        scorer += (generated, [reference])
    _, expected = scorer.compute_score()
    np.testing.assert_allclose(cider_d(REFERENCES, GENERATED), expected, rtol=1e-9, atol=1e-12)
    assert 1 < np.mean(expected) < 9


def test_cider_by_hand() -> None:
    # Two references without a common n-gram: every weight is log 2, the cosine is that of plain counts. The first
    # pair is equal in words 1 (of 2 each), has no bigram in common: mean over the four orders (1/2 + 0 + 0 + 0)/4.
    assert cider_d(["a b", "c d"], ["a e", "c d"]) == pytest.approx([10 * 0.5 / 4, 10 * 2 / 4])
    # One bigram more in the generated text: Gaussian penalty, and counts are clipped to the reference's.
    cosine = (2 / (2**0.5 * 5**0.5) + 1 / (1 * 2**0.5)) / 4
    assert cider_d(["a b", "c d"], ["a b b", "c d"])[0] == pytest.approx(10 * cosine * math.exp(-1 / 72))


class _Stub:
    """Neither stems nor synonyms: what is left of nltk's METEOR are the exact matches."""

    def stem(self, word: str) -> str:
        return word

    def synsets(self, word: str) -> list[str]:
        return []


def test_meteor_equals_nltk_where_no_word_repeats() -> None:
    # nltk's aligner is greedy by word, so it agrees only where one alignment exists.
    nltk = pytest.importorskip("nltk.translate.meteor_score")
    rng = np.random.default_rng(3)
    words = [f"w{i}" for i in range(14)]
    for _ in range(300):
        reference = list(rng.permutation(words)[: rng.integers(1, 14)])
        generated = list(rng.permutation(words)[: rng.integers(1, 14)])
        if rng.random() < 0.5:
            generated = [*reference[2:], *reference[:2]]
        expected = nltk.meteor_score([reference], generated, stemmer=_Stub(), wordnet=_Stub())
        assert meteor_exact(" ".join(reference), " ".join(generated)) == pytest.approx(expected, abs=1e-12)


def test_meteor_by_hand() -> None:
    # 3 matches of 4 and 3 words in 2 chunks: P 1, R 3/4, F = P·R/(0.9·P + 0.1·R), penalty 0.5·(2/3)³.
    mean = 0.75 / (0.9 + 0.075)
    assert meteor_exact("Sinus rhythm normal ecg", "rhythm sinus normal".replace("sinus", "ecg")) == pytest.approx(
        # chunks: "rhythm", "ecg", "normal" are 3 runs
        mean * (1 - 0.5 * (3 / 3) ** 3)
    )
    assert meteor_exact("sinus rhythm normal ecg", "sinus rhythm ecg") == pytest.approx(mean * (1 - 0.5 * (2 / 3) ** 3))


def test_meteor_takes_the_longest_run_of_repeated_words() -> None:
    # "b" of the generated text may be matched at two places; only one of them gives a single chunk.
    assert meteor_exact("b x a b", "a b") == pytest.approx(0.5 / (0.9 + 0.05) * (1 - 0.5 * (1 / 2) ** 3))
    # Each word is matched once: the second "a" has no partner. P 1/2, R 1, one chunk of one.
    assert meteor_exact("a", "a a") == pytest.approx(0.5 / (0.45 + 0.1) * 0.5)


def test_corpus_bleu_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    expected = sacrebleu.BLEU().corpus_score(GENERATED, [REFERENCES]).score
    assert corpus_bleu(REFERENCES, GENERATED) == pytest.approx(expected)
    assert corpus_bleu([], []) == 0


@pytest.mark.parametrize(("reference", "generated"), [("", ""), ("sinus rhythm", ""), ("", "sinus rhythm"), (" ", "a")])
def test_an_empty_text_scores_nothing(reference: str, generated: str) -> None:
    pytest.importorskip("rouge_score")
    scores = pair_scores([reference, "normal ecg"], [generated, "normal ecg"])
    assert tuple(scores) == metrics.PAIR_METRICS
    assert {name: float(values[0]) for name, values in scores.items()} == dict.fromkeys(scores, 0.0)


def test_a_single_pair_has_no_cider() -> None:
    assert cider_d(["sinus rhythm today"], ["sinus rhythm today"]).tolist() == [0.0]
    assert cider_d([], []).shape == (0,)


def test_long_reports() -> None:
    words = " ".join(f"w{i % 500}" for i in range(2000))
    assert sentence_bleu(words, words)[3] == pytest.approx(1)
    assert meteor_exact(words[:2000], words[:2000]) == pytest.approx(1, abs=1e-6)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    with pytest.raises(DeriError, match=r"sacrebleu: pip install 'deri\[report\]'"):
        corpus_bleu(["a"], ["a"])


def test_unequal_lengths_are_a_defect() -> None:
    with pytest.raises(ValueError, match="2 references but 1"):
        cider_d(["a", "b"], ["a"])
