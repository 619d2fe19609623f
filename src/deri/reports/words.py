"""What is made of a label that a person typed: a code, a finding, a finding in German, or words of no finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deri.errors import DeriError
from deri.reports.labeller import Mention, find_mentions, is_english, known_findings
from deri.reports.prompts import LABELS, load_prompts, prompts_for


@dataclass(frozen=True)
class LabelTexts:
    """The ``texts`` that stand for a label, whose mean embedding counts; ``note`` tells what is not as it seems."""

    texts: tuple[str, ...]
    note: str | None = None


def label_texts(labels: Sequence[str]) -> list[LabelTexts]:
    """What is scored for each label.

    A code of a shipped task (``AFIB``) has the prompts of that class; a finding in German has the English ones. All
    other labels are scored as they are written, with a note where that misleads: a denied finding scores like the
    finding, and words without one score as well.

    Raises:
        DeriError: no label, an empty one, or a code that means different things in different archives.
    """
    if not labels:
        raise DeriError("no labels given: name at least one, e.g. 'atrial fibrillation'")
    if not all(label.strip() for label in labels):
        raise DeriError("a label is empty: name a text to score, e.g. 'atrial fibrillation'")
    return [_understood(label) for label in labels]


def _understood(label: str) -> LabelTexts:
    prompts = prompts_for(LABELS, [label])[label]
    if prompts != [label]:
        return LabelTexts(tuple(prompts))
    mentions = find_mentions(label)
    if not mentions:
        return LabelTexts((label,), f"{label!r} names no finding that the labeller knows: scored as it is written")
    names = " and ".join(dict.fromkeys(known_findings()[m.finding].name for m in mentions))
    if any(m.certainty == "absent" for m in mentions):
        return LabelTexts(
            (label,),
            f"{label!r} denies {names}, and scores do not understand that: take a low score of {names} instead",
        )
    if all(map(is_english, mentions)):
        return LabelTexts((label,))
    return LabelTexts(_english(mentions), f"{label!r} is scored as {names}: the model was trained on English")


def _english(mentions: list[Mention]) -> tuple[str, ...]:
    """The prompts of the finding; of several findings the main ones, as one text."""
    findings, known = known_findings(), load_prompts(LABELS)
    texts = [known.get(code, [findings[code].name]) for code in dict.fromkeys(m.finding for m in mentions)]
    return tuple(texts[0]) if len(texts) == 1 else (" ".join(prompts[0] for prompts in texts),)
