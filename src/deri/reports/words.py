"""What is made of a label that a person typed: a code, a finding, a finding in German, or words of no finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deri.errors import DeriError
from deri.reports.labeller import Mention, find_mentions, is_english, known_findings
from deri.reports.prompts import LABELS, class_names, load_prompts, prompts_for


@dataclass(frozen=True)
class LabelTexts:
    """The ``texts`` that stand for a label: ``sign`` times their mean embedding.

    ``note`` tells what is not as it seems.
    """

    texts: tuple[str, ...]
    note: str | None = None
    sign: int = 1


def label_texts(labels: Sequence[str]) -> list[LabelTexts]:
    """What is scored for each label.

    A code of a shipped task (``AFIB``), the name of its class, another word for a finding and its German names all have
    the prompts of that class, so that their scores are equal. A denied finding is scored as the opposite of it. All
    other labels are scored as they are written, with a note where they name no finding.

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
    mentions, plain = find_mentions(label), label.strip(" .").casefold()
    # Another word for one class. A part of a joined finding (an anteroseptal infarct of AMI) keeps its own words.
    alone = len(mentions) == 1 and mentions[0].text.casefold() == plain
    if alone and len(known_findings()[mentions[0].finding].scp) == 1 and is_english(mentions[0]):
        return LabelTexts(_prompts(mentions))
    named = next((code for code, name in class_names(LABELS).items() if name.casefold() == plain), None)
    if named:
        return LabelTexts(tuple(load_prompts(LABELS)[named]))
    if not mentions:
        return LabelTexts((label,), f"{label!r} names no finding that the labeller knows: scored as it is written")
    denied = [mention for mention in mentions if mention.certainty == "absent"]
    held = [mention for mention in mentions if mention.certainty != "absent"]
    if denied and held:
        return LabelTexts(
            _prompts(held), f"{label!r} denies {_names(denied)}, which is left out: scored as {_names(held)}"
        )
    if denied:
        note = f"{label!r} denies {_names(denied)}: scored as the opposite, high where {_names(denied)} is low"
        return LabelTexts(_prompts(denied), note, sign=-1)
    if not all(map(is_english, mentions)):
        return LabelTexts(_prompts(mentions), f"{label!r} is scored as {_names(mentions)}: the model knows English")
    return LabelTexts((label,))


def _names(mentions: list[Mention]) -> str:
    return " and ".join(dict.fromkeys(known_findings()[mention.finding].name for mention in mentions))


def _prompts(mentions: list[Mention]) -> tuple[str, ...]:
    """The prompts of the finding; of several findings the main ones, as one text."""
    codes = list(dict.fromkeys(mention.finding for mention in mentions))
    found = prompts_for(LABELS, codes)  # a code without prompts is its own text there
    texts = [[known_findings()[code].name] if found[code] == [code] else found[code] for code in codes]
    return tuple(texts[0]) if len(texts) == 1 else (" ".join(prompts[0] for prompts in texts),)
