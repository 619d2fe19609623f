"""Word metrics of generated reports against nltk, rouge-score and pycocoevalcap, and by hand."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deri.errors import DeriError, install
from deri.generation import metrics
from deri.generation.meteor import count_chunks, normalise
from deri.generation.metrics import cider_d, corpus_bleu, meteor_exact, pair_scores, rouge_l, sentence_bleu
from deri.reports import clean_report

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


def test_rouge_against_a_restatement() -> None:
    pytest.importorskip("rouge_score")
    stem = pytest.importorskip("nltk.stem.porter").PorterStemmer().stem

    def words(text: str) -> list[str]:
        found = re.split(r"[^a-z0-9]+", text.lower())
        return [stem(word) if len(word) > 3 else word for word in found if word]

    for reference, generated in zip(REFERENCES[:200], GENERATED[:200], strict=True):
        a, b = words(reference), words(generated)
        length = np.zeros((len(a) + 1, len(b) + 1), int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                length[i + 1, j + 1] = length[i, j] + 1 if x == y else max(length[i, j + 1], length[i + 1, j])
        common = length[-1, -1]
        expected = 2 * common / (len(a) + len(b)) if common else 0.0
        assert rouge_l(reference, generated) == pytest.approx(expected)


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


def _meteor_of_the_program(references: list[str], generated: list[str], tmp_path: Path) -> list[float]:
    """METEOR 1.5 as pycocoevalcap calls it, its program with the exact module alone."""
    jar = Path(pytest.importorskip("pycocoevalcap.meteor.meteor").__file__).with_name("meteor-1.5.jar")
    if not jar.is_file() or shutil.which("java") is None:
        pytest.skip("METEOR 1.5 needs java")
    lines = [f"SCORE ||| {reference} ||| {text}" for reference, text in zip(references, generated, strict=True)]
    command = ["java", "-Xmx1G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm", "-m", "exact"]

    def ask(asked: list[str]) -> list[str]:
        given = "\n".join(asked) + "\n"
        return subprocess.run(
            command, input=given, capture_output=True, text=True, encoding="utf-8", check=True, cwd=tmp_path
        ).stdout.splitlines()

    # The program gives counts for a pair, and for counts the score of each pair and, at last, of all together.
    return [float(line) for line in ask([f"EVAL ||| {' ||| '.join(ask(lines))}"])][:-1]


def test_meteor_equals_pycocoevalcap(tmp_path: Path) -> None:
    expected = _meteor_of_the_program(REFERENCES, GENERATED, tmp_path)
    ours = [meteor_exact(reference, text) for reference, text in zip(REFERENCES, GENERATED, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    assert len(expected) == 500
    assert 0.1 < np.mean(expected) < 0.9


def test_meteor_equals_what_pycocoevalcap_gave() -> None:
    # The same, from a file that the test above would write: for machines without Java.
    expected = json.loads(Path(__file__).with_name("meteor_500.json").read_text(encoding="utf-8"))
    ours = [meteor_exact(reference, text) for reference, text in zip(REFERENCES, GENERATED, strict=True)]
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_meteor_of_real_reports_equals_pycocoevalcap(shared: Path, tmp_path: Path) -> None:
    path = shared / "text" / "ptbxl_database_union.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with open(path, encoding="utf-8", newline="") as handle:
        texts = sorted({clean_report(row["report"]) for row in csv.DictReader(handle)} - {""})
    rng = np.random.default_rng(5)
    references = [str(text) for text in rng.choice(texts, size=1500)]
    # The program holds "v1" and "to", which share a 32-bit hash, for one word; ours does not.
    generated = [str(text) for text in rng.choice(texts, size=1500)]
    generated[::3] = [" ".join(np.roll(text.split(), 3)) for text in references[::3]]
    pairs = [(r, g) for r, g in zip(references, generated, strict=True) if not {"v1", "to"} <= _words(r, g)]
    expected = np.array(_meteor_of_the_program(*map(list, zip(*pairs, strict=True)), tmp_path))
    ours = np.array([meteor_exact(*pair) for pair in pairs])
    # The search for few chunks is cut short where words repeat; rarely at another place than in the program.
    assert (np.abs(ours - expected) > 1e-9).sum() <= 2
    np.testing.assert_allclose(ours, expected, rtol=0, atol=0.02)


def _words(*texts: str) -> set[str]:
    return {token for text in texts for token in normalise(text)}


def test_meteor_tokens_by_hand() -> None:
    tokens = normalise("Sinus rhythm, 1,5 s. A-V block (1°); t-wave v.a. low. Patient's ECG: v5,6 --")
    assert tokens == [
        "sinus", "rhythm", ",", "1,5", "s", ".", "a", "v", "block", "(", "1", "°", ")", ";", "t", "wave", "va", "low",
        ".", "patient", "'s", "ecg", ":", "v5,6", "-",
    ]  # fmt: skip
    assert normalise("sinus rhythm. normal ecg. ") == ["sinus", "rhythm.", "normal", "ecg", "."]
    assert normalise(" ") == []


def test_meteor_by_hand() -> None:
    # 2 content words match, of 3 and a function word, and of 2 and a function word; one chunk.
    precision, recall = 2 * 0.75 / (3 * 0.75 + 0.25), 2 * 0.75 / (2 * 0.75 + 0.25)
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert meteor_exact("the sinus rhythm", "sinus rhythm is normal") == pytest.approx(
        mean * (1 - 0.6 * (1 / 2) ** 0.2)
    )
    # Equal texts are 1: their one chunk costs nothing. In another order each word is a chunk of its own.
    assert meteor_exact("sinus rhythm", "Sinus rhythm") == 1
    assert meteor_exact("sinus rhythm", "rhythm sinus") == pytest.approx(1 - 0.6)


def test_meteor_takes_few_chunks() -> None:
    # "b" of the generated text may be matched at two places; only one of them gives a single chunk.
    assert count_chunks("b x a b".split(), "a b".split()) == 1
    # Each word is matched once: the second "e" has no partner.
    assert meteor_exact("e", "e e") == pytest.approx(0.5 / (0.85 * 0.5 + 0.15) * (1 - 0.6 * 1))
    assert count_chunks("a b c d".split(), "c d a b".split()) == 2


def test_corpus_bleu_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    expected = sacrebleu.BLEU().corpus_score(GENERATED, [REFERENCES]).score
    assert corpus_bleu(REFERENCES, GENERATED) == pytest.approx(expected)
    assert corpus_bleu([], []) == 0


@pytest.mark.parametrize(("reference", "generated"), [("", ""), ("sinus rhythm", ""), ("", "sinus rhythm"), (" ", "a")])
def test_an_empty_text_scores_nothing(reference: str, generated: str) -> None:
    pytest.importorskip("rouge_score")
    scores, _ = pair_scores([reference, "normal ecg"], [generated, "normal ecg"])
    assert list(scores) == list(metrics.METRICS)
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
    with pytest.raises(DeriError, match=re.escape(f"sacrebleu: {install('report')}")):
        corpus_bleu(["a"], ["a"])


def test_unequal_lengths_are_a_defect() -> None:
    with pytest.raises(ValueError, match="2 references but 1"):
        cider_d(["a", "b"], ["a"])
