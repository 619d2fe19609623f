"""How close a generated report is to the true one in its words: BLEU, ROUGE-L, METEOR, CIDEr-D.

All take the texts as they are (clean both sides alike first) and split them at white space, but for ROUGE-L and
METEOR, whose published implementations have their own tokens. A pair in which either text has no token scores 0 in
every metric, two empty texts included: nothing was generated. What each metric is exactly, and what it equals:
docs/report-evaluation.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from deri.errors import DeriError, install
from deri.generation.meteor import meteor_exact
from deri.registry import Registry

Metric = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""References and generated texts, n each, to scores (n,); a DeriError where a package is missing."""

BLEU_ORDER = 4
BLEU_EPSILON = 0.1
"""What smoothing method 1 puts in place of no match (Chen and Cherry, WMT 2014)."""

CIDER_ORDER = 4
CIDER_SIGMA = 6.0


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def sentence_bleu(reference: str, generated: str) -> tuple[float, float, float, float]:
    """BLEU-1 … BLEU-4 of one pair: white-space tokens, uniform weights, smoothing method 1.

    Smoothing method 1 gives an order without a match the precision 0.1/(number of n-grams, at least 1). Without
    any common word all four are 0.
    """
    expected, actual = reference.split(), generated.split()
    logs = []
    for order in range(1, BLEU_ORDER + 1):
        grams = _ngrams(actual, order)
        matches = sum((grams & _ngrams(expected, order)).values())
        if order == 1 and matches == 0:
            return (0.0, 0.0, 0.0, 0.0)
        logs.append(math.log((matches or BLEU_EPSILON) / max(1, sum(grams.values()))))
    brevity = 0.0 if len(actual) > len(expected) else 1 - len(expected) / len(actual)
    one, two, three, four = (math.exp(brevity + sum(logs[:k]) / k) for k in range(1, BLEU_ORDER + 1))
    return one, two, three, four


def corpus_bleu(references: Sequence[str], generated: Sequence[str]) -> float:
    """Corpus BLEU by sacrebleu (13a tokens, exponential smoothing), 0 … 100. DeriError where it is not installed."""
    try:
        import sacrebleu
    except ImportError as error:
        raise DeriError(f"corpus BLEU needs sacrebleu: {install('report')}") from error
    _same_length(references, generated)
    if not references:
        return 0.0
    return float(sacrebleu.corpus_bleu(list(generated), [list(references)]).score)


@cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise DeriError(f"ROUGE-L needs rouge-score: {install('report')}") from error
    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge_l(reference: str, generated: str) -> float:
    """ROUGE-L, F-measure with Porter stems, by rouge-score. DeriError where it is not installed.

    rouge-score keeps a-z and 0-9 alone, so an umlaut splits a German word; both texts alike.
    """
    return float(_rouge_scorer().score(reference, generated)["rougeL"].fmeasure)


def cider_d(references: Sequence[str], generated: Sequence[str]) -> np.ndarray:
    """CIDEr-D of every pair, float64 (n,), 0 … 10; one reference each.

    Vedantam et al. (2015): cosine of tf-idf vectors of n-grams (1 … 4) with clipped counts and a Gaussian penalty
    on the difference in length. Document frequencies are those of ``references``, so a score belongs to its set of
    references: of a single pair, or where all references are the same, it is 0. As in the reference
    implementation, tf is the count itself and the length is the number of bigrams.
    """
    _same_length(references, generated)
    truths = [_all_ngrams(text) for text in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for grams in truths:
        frequency.update(grams.keys())
    log_total = math.log(len(references)) if references else 0.0
    idf = {gram: log_total - math.log(count) for gram, count in frequency.items()}
    scores = np.zeros(len(references))
    for row, (truth, text) in enumerate(zip(truths, generated, strict=True)):
        hypothesis = _all_ngrams(text)
        dot = np.zeros(CIDER_ORDER)
        squares = np.zeros((2, CIDER_ORDER))
        lengths = [0, 0]
        for side, grams in enumerate((hypothesis, truth)):
            for gram, count in grams.items():
                squares[side, len(gram) - 1] += (count * idf.get(gram, log_total)) ** 2
                lengths[side] += count if len(gram) == 2 else 0
        for gram, count in hypothesis.items():
            weight = idf.get(gram, log_total)
            dot[len(gram) - 1] += min(count, truth[gram]) * truth[gram] * weight**2
        norms = np.sqrt(squares[0] * squares[1])
        cosine = np.divide(dot, norms, out=np.zeros(CIDER_ORDER), where=norms > 0)
        penalty = math.exp(-((lengths[0] - lengths[1]) ** 2) / (2 * CIDER_SIGMA**2))
        scores[row] = 10 * float(cosine.mean()) * penalty
    return scores


def _all_ngrams(text: str) -> Counter[tuple[str, ...]]:
    tokens = text.split()
    grams: Counter[tuple[str, ...]] = Counter()
    for order in range(1, CIDER_ORDER + 1):
        grams.update(_ngrams(tokens, order))
    return grams


def _of_pairs(metric: Callable[[str, str], float]) -> Metric:
    """A metric of one pair as a metric of many."""
    return lambda references, generated: np.array(list(map(metric, references, generated)), float)


def _bleu(order: int) -> Metric:
    return _of_pairs(lambda reference, generated: sentence_bleu(reference, generated)[order - 1])


METRICS: Registry[Metric] = Registry(
    "report metric",
    "deri.report_metrics",
    {
        **{f"bleu_{order}": _bleu(order) for order in range(1, BLEU_ORDER + 1)},
        "rouge_l": _of_pairs(rouge_l),
        "meteor": _of_pairs(meteor_exact),
        "cider_d": cider_d,
    },
)
"""The metrics of pairs, in the order of the tables; all in 0 … 1 but CIDEr-D, which is in 0 … 10."""


def pair_scores(references: Sequence[str], generated: Sequence[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every metric of ``METRICS`` for every pair, float64 (n,) each; and why others are left out."""
    _same_length(references, generated)
    scores: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for name in METRICS:
        try:
            scores[name] = METRICS[name](references, generated)
        except DeriError as error:  # a package is not installed
            left_out[name] = str(error)
    return scores, left_out


def _same_length(references: Sequence[str], generated: Sequence[str]) -> None:
    if len(references) != len(generated):
        raise ValueError(f"{len(references)} references but {len(generated)} generated texts")
