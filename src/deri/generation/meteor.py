"""METEOR 1.5 with the exact module alone (Denkowski and Lavie, WMT 2014), in Python: neither Java nor downloads.

Equal to the program that pycocoevalcap runs (``-l en -norm``) with ``-m exact``: its English parameters, its function
words (which count a third of a content word), its normalisation of text, and its search for an alignment, in which
chunks are few but not always fewest. Stems, synonyms and paraphrases are left out: their tables are English, and the
paraphrases are not clinical. The rules were found by watching what the program answers; how far the two agree, and
where they do not in long texts, is in docs/report-evaluation.md.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
"""Recall against precision; shape and weight of the fragmentation penalty; content against function words."""

BEAM = 40

_FUNCTION_TEXT = """
the , . to of and a in that for " is on 's it with was as said at he by be from have has are his but an this
not i will ’ they ) -rrb- ( -lrb- who their had we which were been more or s its would about new one after you
: also up when there than $ all out her people she year two - can if last first “ over other ” into some what
so -- no time years could ? 't — '
"""
_FUNCTION_WORDS = frozenset(_FUNCTION_TEXT.split())
"""The most frequent words of English text, as METEOR 1.5 has them; the rest are content words."""

_ABBREVIATION_TEXT = """
Adj Adm Adv Asst Bart Bldg Brig Bros Capt Cmdr Col Comdr Con Corp Cpl DR Dr Drs Ens Gen Gov Hon Hr Hosp Insp
Lt MM MR MRS MS Maj Messrs Mlle Mme Mr Mrs Ms Msgr Op Ord Pfc Ph Prof Pvt Rep Reps Res Rev Rt Sen Sens Sfc Sgt
Sr St Supt Surg v vs rev Nos Nr
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_TEXT.split())
"""A full stop after one of these, or after a capital letter, belongs to it."""

_NUMBERED = frozenset({"No", "Art", "pp"})
"""Abbreviations before a number."""

_LETTER = "A-Za-zÀ-ÖØ-öø-ž"
_QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "`": "'"})
_SYMBOL = re.compile(rf"([^{_LETTER}0-9\s.',-])")
# In this order. Each takes the characters beside the sign with it, so that of two signs with one letter between them
# the second is passed over, as there.
_SPLITS = (
    (re.compile(r"--+"), "-"),
    (re.compile(r"(\S)-([^\s.,'-])"), r"\1 \2"),
    (re.compile(r"(\.\.+)"), r" \1 "),
    (re.compile(r"([^0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile(r"([0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile(r"([^0-9]),([0-9])"), r"\1 , \2"),
    (re.compile(rf"([^{_LETTER}])'([^{_LETTER}])"), r"\1 ' \2"),
    (re.compile(rf"([^{_LETTER}0-9])'([{_LETTER}])"), r"\1 ' \2"),
    (re.compile(rf"([{_LETTER}])'([^{_LETTER}])"), r"\1 ' \2"),
    (re.compile(rf"([{_LETTER}])'([{_LETTER}])"), r"\1 '\2"),
    (re.compile(r"([0-9])'s"), r"\1 's"),
    (re.compile("–"), "-"),
)


def normalise(text: str) -> list[str]:
    """Tokens of a text as METEOR 1.5 makes them for English: signs apart, hyphens gone, lower case at last.

    A full stop stays with its word if the next word begins with a small letter from a to z; so in a cleaned report only
    the last one stands apart.
    """
    text = f" {text.strip()} ".translate(_QUOTES)
    text = _SYMBOL.sub(r" \1 ", text)
    for pattern, replacement in _SPLITS:
        text = pattern.sub(replacement, text)
    words = text.split()
    tokens: list[str] = []
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        stem = word[:-1]
        if not word.endswith(".") or not stem.strip("."):
            tokens.append(word)
        elif "." in stem and re.search(f"[{_LETTER}]", stem):
            tokens.append(word.replace(".", ""))
        elif (
            re.fullmatch("[A-Z]", stem)
            or stem in _ABBREVIATIONS
            or re.match("[a-z]", following)
            or (stem in _NUMBERED and re.match("[0-9]", following))
        ):
            tokens.append(word)
        else:
            tokens += [stem, "."]
    return [token.lower() for token in tokens]


def meteor_exact(reference: str, generated: str) -> float:
    """METEOR 1.5 of one pair by exact matches of words, 0 … 1; 0 if either text has no token.

    Precision and recall weigh content words ``DELTA`` and function words 1 - ``DELTA``; the score is their harmonic
    mean with ``ALPHA``, less a penalty for matches that lie in many chunks.
    """
    expected, actual = normalise(reference), normalise(generated)
    common = Counter(expected) & Counter(actual)
    matches = sum(common.values())
    if matches == 0:
        return 0.0
    chunks = count_chunks(expected, actual)
    weight = _weight(common)
    precision, recall = weight / _weight(Counter(actual)), weight / _weight(Counter(expected))
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    whole = matches == len(expected) == len(actual) and chunks == 1
    return mean if whole else mean * (1 - GAMMA * (chunks / matches) ** BETA)


def _weight(words: Counter[str]) -> float:
    return sum(n * (1 - DELTA if word in _FUNCTION_WORDS else DELTA) for word, n in words.items())


def count_chunks(expected: list[str], actual: list[str]) -> int:
    """Chunks of the alignment: runs of matched words that are adjacent and in order in both texts.

    The reference is read from left to right; each word is matched to a free equal word, or to none; the ``BEAM`` best
    partial alignments go on: most matches, then fewest chunks that have ended. A word that both texts have once is
    matched in any case. All words that have a partner are matched in the end.
    """
    where: dict[str, list[int]] = {}
    for place, word in enumerate(actual):
        where.setdefault(word, []).append(place)
    frequency = Counter(expected)
    # (matches, below 0; chunks; partner of the word before, or -2; places taken, as bits)
    states = [(0, 0, -2, 0)]
    for word in expected:
        places = where.get(word, ())
        following = []
        for matched, chunks, last, taken in states:
            for place in places:
                if not taken >> place & 1:
                    following.append((matched - 1, chunks + (last != place - 1), place, taken | 1 << place))
            if not frequency[word] == len(places) == 1:
                following.append((matched, chunks, -2, taken))
        states = sorted(following, key=lambda state: (state[0], state[1] - (state[2] >= 0)))[:BEAM]
    return min(states)[1]
