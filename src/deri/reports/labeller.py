"""A rule-based labeller of report text: which findings a report asserts, doubts or denies, and where it says so.

It shares nothing with any model: no prompts, no embeddings, no training. Report generation is scored with it, so
that no model marks its own homework. The rules are data (``findings.yaml`` beside this file): regular expressions
per finding and language, and the cue words of negation and uncertainty. All languages are applied to every text,
because real archives mix them within one report (docs/labeller.md).

How a text is read:

1. Every phrase of every finding is located. A phrase inside a longer one gives way ("right bundle branch block"
   in "incomplete right bundle branch block"); within masked spans nothing is named.
2. Cues are located; a cue inside a longer one gives way ("excluded" in "cannot be excluded").
3. A mention takes the nearest cue before it, else after it, in the same sentence, within ``REACH`` words and with
   neither another mention nor a stop word ("but", "aber") between; a negation does not reach over a comma either.
   The findings of a list share their cue ("no st depression, t wave inversion or q waves").
4. A report's finding has the strongest certainty of its mentions: present, uncertain, absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise
from typing import Literal

from deri.files import parse_yaml

Certainty = Literal["present", "uncertain", "absent"]

REACH = 5
"""Most words between a cue and the finding that it qualifies."""

_STRENGTH: dict[Certainty, int] = {"absent": 0, "uncertain": 1, "present": 2}
_LANGUAGES = ("en", "de", "sv")
# Reports write umlauts as such, as two letters, decomposed, or drop them.
_LETTERS = {
    "ä": "(?:ä|ae|a\u0308?)",
    "ö": "(?:ö|oe|o\u0308?)",
    "ü": "(?:ü|ue|u\u0308?)",
    "å": "(?:å|a\u030a?)",
    "ß": "(?:ß|ss)",
}
# What stands between two findings of a list; one word may follow ("or inferior infarct").
_AND = re.compile(r"\s*,?\s*(?:/|&|\b(?:or|and|nor|oder|und|noch|sowie|och|eller)\b)\s*(?:\w+\s+)?", re.IGNORECASE)
_COMMA = re.compile(r"\s*,\s*(?:\w+\s+)?")


@dataclass(frozen=True)
class Finding:
    """A finding that the labeller knows.

    ``scp``: the SCP statements of PTB-XL that name it or a special case of it; empty where PTB-XL has none.
    """

    code: str
    name: str
    scp: tuple[str, ...]


@dataclass(frozen=True)
class Mention:
    """One place of a text that names a finding: ``text == report[start:end]``; ``cue`` as the report wrote it."""

    finding: str
    certainty: Certainty
    start: int
    end: int
    text: str
    cue: str | None = None


@dataclass(frozen=True)
class _Cue:
    start: int
    end: int
    certainty: Certainty
    before: bool


@dataclass(frozen=True)
class _Span:
    start: int
    end: int
    finding: str


@dataclass(frozen=True)
class _Rules:
    findings: dict[str, Finding]
    phrases: dict[str, re.Pattern[str]]
    english: dict[str, re.Pattern[str]]
    keeps: dict[str, frozenset[str]]
    cues: tuple[tuple[Certainty, bool, re.Pattern[str]], ...]
    mask: re.Pattern[str]
    stop: re.Pattern[str]
    sentence: re.Pattern[str]


def _compile(patterns: Iterable[str], parts: Mapping[str, str]) -> re.Pattern[str]:
    """One expression for any of ``patterns``, at word boundaries, in the notation that findings.yaml explains."""
    expanded = []
    for pattern in patterns:
        for name, part in parts.items():
            pattern = pattern.replace("{" + name + "}", part)
        for letter, letters in _LETTERS.items():
            pattern = pattern.replace(letter, letters)
        expanded.append(pattern.replace(" ", r"(?:\s+)"))
    # A pattern may start or end with a sign ("?", "mögl."), where no word boundary is.
    return re.compile(rf"(?:(?<!\w)|(?=\W))(?:{'|'.join(expanded)})(?:(?!\w)|(?<=\W))", re.IGNORECASE)


@cache
def _rules() -> _Rules:
    data = parse_yaml(resources.files("deri.reports").joinpath("findings.yaml").read_text(encoding="utf-8"))
    parts: dict[str, str] = {}
    for name, part in data["parts"].items():
        for known, text in parts.items():
            part = part.replace("{" + known + "}", text)
        parts[name] = part
    findings, phrases, english, keeps = {}, {}, {}, {}
    for code, entry in data["findings"].items():
        findings[code] = Finding(code, entry["name"], tuple(entry.get("scp", ())))
        keeps[code] = frozenset(entry.get("keeps", ()))
        phrases[code] = _compile([p for language in _LANGUAGES for p in entry.get(language, ())], parts)
        english[code] = _compile(entry.get("en", ()), parts)
    cues: list[tuple[Certainty, bool, re.Pattern[str]]] = []
    # Uncertain first: of two cues with the same words the more careful one counts.
    for certainty in ("uncertain", "absent"):
        for side in ("before", "after"):
            patterns = data["cues"][certainty][side]
            cues.append((certainty, side == "before", _compile(patterns, {})))
    shortened = "".join(rf"(?<!\b{re.escape(a)})" for a in data["cues"]["abbreviations"])
    return _Rules(
        findings=findings,
        phrases=phrases,
        english=english,
        keeps=keeps,
        cues=tuple(cues),
        mask=_compile(data["mask"], parts),
        stop=_compile(data["cues"]["stop"], {}),
        sentence=re.compile(rf"{shortened}[.;!](?=\s|$)|\n", re.IGNORECASE),
    )


def known_findings() -> dict[str, Finding]:
    """The findings that the labeller knows, by code, in the order of its table."""
    return dict(_rules().findings)


def _locate(text: str, rules: _Rules) -> list[_Span]:
    """Where findings are named, by position; the longest phrase where one lies within another."""
    masked = [match.span() for match in rules.mask.finditer(text)]
    spans = {
        _Span(match.start(), match.end(), code)
        for code, pattern in rules.phrases.items()
        for match in pattern.finditer(text)
        if match.end() > match.start()
    }
    kept = []
    for span in spans:
        here = span.start, span.end
        if any(start <= span.start and span.end <= end and (start, end) != here for start, end in masked):
            continue
        inside = any(
            other.start <= span.start
            and span.end <= other.end
            and other.end - other.start > span.end - span.start
            and span.finding not in rules.keeps[other.finding]
            for other in spans
        )
        if not inside:
            kept.append(span)
    return sorted(kept, key=lambda s: (s.start, s.end, s.finding))


def _cues(text: str, spans: list[_Span], rules: _Rules) -> list[_Cue]:
    """Cues of negation and uncertainty outside of findings; the longest where one lies within another."""
    found = [
        _Cue(match.start(), match.end(), certainty, before)
        for certainty, before, pattern in rules.cues
        for match in pattern.finditer(text)
    ]
    taken = [(span.start, span.end) for span in spans] + [match.span() for match in rules.mask.finditer(text)]
    kept = []
    for i, cue in enumerate(found):
        shadowed = any(
            other.start <= cue.start
            and cue.end <= other.end
            and (other.end - other.start > cue.end - cue.start or (j < i and other.before == cue.before))
            for j, other in enumerate(found)
            if j != i
        )
        # Words of a phrase itself are no cue: "no definite pathology" is a normal ECG.
        within = any(start < cue.end and cue.start < end for start, end in taken)
        if not shadowed and not within:
            kept.append(cue)
    return kept


def _reaches(gap: str, rules: _Rules, *, comma: bool = True) -> bool:
    if "," in gap and not comma:
        return False
    return len(gap.split()) <= REACH and not rules.stop.search(gap) and not rules.sentence.search(gap)


def _listed(text: str, spans: list[_Span], i: int) -> bool:
    """Is span ``i`` joined to the one before it? By "or" …, or by a comma of a list that an "or" … closes."""
    for left, right in pairwise(spans[i - 1 :]):
        gap = text[left.end : right.start] if left.end <= right.start else ""
        if left.start == right.start or _AND.fullmatch(gap):
            return True
        if not _COMMA.fullmatch(gap):
            return False
    return False


def _cues_in_reach(
    text: str, spans: list[_Span], cues: list[_Cue], rules: _Rules
) -> tuple[list[_Cue | None], list[_Cue | None]]:
    """Of every span, the nearest cue before it and the nearest after it."""
    before: list[_Cue | None] = []
    after: list[_Cue | None] = []
    for span in spans:
        # Two findings of one phrase, or overlapping ones, do not stand between each other and their cue.
        low = max((s.end for s in spans if s.end <= span.start), default=0)
        high = min((s.start for s in spans if s.start >= span.end), default=len(text))
        ahead = [c for c in cues if c.before and low <= c.start and c.end <= span.start]
        behind = [c for c in cues if not c.before and span.end <= c.start and c.end <= high]
        ahead = [c for c in ahead if _reaches(text[c.end : span.start], rules, comma=c.certainty != "absent")]
        behind = [c for c in behind if _reaches(text[span.end : c.start], rules)]
        before.append(max(ahead, key=lambda c: c.end, default=None))
        after.append(min(behind, key=lambda c: c.start, default=None))
    return before, after


@lru_cache(maxsize=4096)
def _mentions(text: str) -> tuple[Mention, ...]:
    rules = _rules()
    spans = _locate(text, rules)
    before, after = _cues_in_reach(text, spans, _cues(text, spans, rules) if spans else [], rules)
    for i in range(1, len(spans)):  # the findings of a list share their cue
        if before[i] is None and _listed(text, spans, i):
            before[i] = before[i - 1]
    for i in reversed(range(len(spans) - 1)):
        if after[i] is None and _listed(text, spans, i + 1):
            after[i] = after[i + 1]
    mentions = []
    for span, ahead, behind in zip(spans, before, after, strict=True):
        cue = ahead or behind
        certainty: Certainty = cue.certainty if cue else "present"
        words = text[cue.start : cue.end] if cue else None
        mentions.append(Mention(span.finding, certainty, span.start, span.end, text[span.start : span.end], words))
    return tuple(mentions)


def find_mentions(text: str) -> list[Mention]:
    """Every place of ``text`` that names a finding, by position; spans index ``text`` as it was given.

    The text may be raw or cleaned, in English or German. Line breaks end sentences.
    """
    if not isinstance(text, str):
        raise TypeError(f"a report is {type(text).__name__}, expected str")
    return list(_mentions(text))


def denied_words(text: str) -> str | None:
    """What a text denies that is nothing but a denial ("no f waves" → "f waves"); None where it is not one."""
    rules = _rules()
    if rules.mask.search(text):
        return None
    for certainty, before, pattern in rules.cues:
        for cue in pattern.finditer(text) if certainty == "absent" else ():
            rest = text[cue.end() :] if before else text[: cue.start()]
            outside = text[: cue.start()] if before else text[cue.end() :]
            if rest.strip(" .") and not outside.strip(" ."):
                return rest.strip(" .")
    return None


def is_english(mention: Mention) -> bool:
    """Whether a mention is worded in English, as far as the table tells languages apart."""
    return _rules().english[mention.finding].fullmatch(mention.text) is not None


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of the sentences of ``text``, their full stop included; together they are the whole text.

    A full stop after a known abbreviation ends none; a line break does. The last may be empty.
    """
    ends = [match.end() for match in _rules().sentence.finditer(text)]
    return list(zip([0, *ends], [*ends, len(text)], strict=True))


def label_report(text: str) -> dict[str, Certainty]:
    """The findings that ``text`` names, each with its strongest certainty, in the order of the table.

    Findings that the text does not name are left out: silence is not denial.
    """
    found: dict[str, Certainty] = {}
    for mention in find_mentions(text):
        known = found.get(mention.finding)
        if known is None or _STRENGTH[mention.certainty] > _STRENGTH[known]:
            found[mention.finding] = mention.certainty
    return {code: found[code] for code in _rules().findings if code in found}


def asserted(text: str, *, uncertain: bool = True) -> frozenset[str]:
    """Codes of the findings that ``text`` asserts; with ``uncertain`` also those that it holds possible."""
    wanted = ("present", "uncertain") if uncertain else ("present",)
    return frozenset(code for code, certainty in label_report(text).items() if certainty in wanted)
