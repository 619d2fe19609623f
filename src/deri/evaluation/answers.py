"""What a model says of recordings: findings with scores and, where it is calibrated, probabilities; and intervals.

``deri classify`` and all else that answers ask here: :func:`ask` makes a :class:`Question` of labels, which is put to
embeddings of recordings; :func:`answer` does it for recordings themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np

from deri.ecg import ECG
from deri.ecg.intervals import intervals
from deri.errors import DeriError, some
from deri.evaluation.features import unit
from deri.models import EcgTextModel
from deri.models.base import WindowEmbeddings, pool_windows
from deri.models.calibration import log_odds
from deri.models.head import Head
from deri.reports.prompts import LABELS, TASKS, class_names, load_prompts
from deri.reports.words import label_texts

Map = Callable[[np.ndarray], np.ndarray]

ALL = "*"
"""The key of a prevalence that holds for every finding."""


def read_priors(given: Sequence[str], option: str = "prevalence") -> dict[str, float]:
    """``["0.05", "AFIB=0.02"]`` → {"*": 0.05, "AFIB": 0.02}; DeriError where one is no number."""
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            raise DeriError(f"{option} {text}: give a share such as 0.05, or NAME=0.05 for one finding") from None
        key = name.strip() or ALL
        if found.setdefault(key, share) != share:
            raise DeriError(f"{option} {text}: {found[key]:g} was given before; give one share")
    return found


@dataclass(frozen=True)
class Finding:
    """One finding of a recording.

    Attributes:
        label: as it was asked for.
        score: cosine in [-1, 1], which ranks recordings for this label; of a model with a head its own probability.
        probability: at the prevalence of the calibration or the given one; None where there is no calibration.
        likelihood_ratio: how many times as often recordings with the finding score so as those without; None likewise.
    """

    label: str
    score: float
    probability: float | None
    likelihood_ratio: float | None


@dataclass(frozen=True)
class Answer:
    """Findings, and the intervals of :func:`deri.ecg.intervals.intervals`, None where one cannot be measured."""

    findings: tuple[Finding, ...]
    measurements: dict[str, float | None]


class Scores(NamedTuple):
    """Of n recordings and k labels, (n, k) each; NaN where a label has no calibration."""

    score: np.ndarray
    probability: np.ndarray
    likelihood_ratio: np.ndarray


@dataclass(frozen=True)
class Question:
    """Labels, and how embeddings are scored for them.

    Attributes:
        labels: k of them.
        notes: what is not as it seems, in sentences.
        ordered: the labels were given, so that findings keep their order.
        weight, bias: (k, d) and (k,); without a bias embeddings are compared at unit length.
        maps: of each label from scores to log likelihood ratios; None where there is none.
        prevalence: (k,) of the probabilities; NaN where it is not known.
        sign: (k,) -1 for a label that denies its finding.
    """

    labels: tuple[str, ...]
    notes: tuple[str, ...]
    ordered: bool
    weight: np.ndarray
    bias: np.ndarray | None
    maps: tuple[Map | None, ...]
    prevalence: np.ndarray
    sign: np.ndarray

    @property
    def calibrated(self) -> np.ndarray:
        """(k,) bool: which labels have probabilities."""
        return ~np.isnan(self.prevalence)

    def of_windows(self, parts: Sequence[WindowEmbeddings], *, per_window: bool = False) -> Scores:
        """Scores of recordings, from the mean embedding of their windows, or of every window."""
        if per_window:
            vectors = np.concatenate([part.embedding for part in parts])
            return self._scores(unit(vectors) if self.bias is None else vectors)
        return self._scores(pool_windows(parts, normalise=self.bias is None))

    def _scores(self, vectors: np.ndarray) -> Scores:
        from scipy.special import expit

        raw = (vectors @ self.weight.T).astype(np.float64)
        if self.bias is not None:
            raw += self.bias
        ratio = np.full(raw.shape, np.nan)
        for k, of_label in enumerate(self.maps):
            if of_label is not None:
                ratio[:, k] = self.sign[k] * of_label(self.sign[k] * raw[:, k])
        probability = expit(ratio + self.sign * log_odds(self.prevalence))
        if self.bias is None:
            return Scores(raw, probability, np.exp(ratio))
        return Scores(expit(raw), np.where(np.isnan(probability), expit(raw), probability), np.exp(ratio))

    def answer(self, model: EcgTextModel, ecgs: Sequence[ECG]) -> list[Answer]:
        """What :func:`answer` says, for a question that is put to ``model`` more than once."""
        if not ecgs:
            return []
        scores = self.of_windows(list(model.window_embeddings(ecgs)))
        return [Answer(self.findings(scores, i), intervals(ecg)) for i, ecg in enumerate(ecgs)]

    def findings(self, scores: Scores, record: int) -> tuple[Finding, ...]:
        """The findings of one recording: in the order of the labels, or the most probable first where all are asked."""
        found = [
            Finding(label, float(score), _known(probability), _known(ratio))
            for label, score, probability, ratio in zip(self.labels, *(part[record] for part in scores), strict=True)
        ]
        if not self.ordered:
            found.sort(key=lambda one: (-1.0 if one.probability is None else one.probability, one.score), reverse=True)
        return tuple(found)


def answer(
    model: EcgTextModel,
    ecgs: Sequence[ECG],
    labels: Sequence[str] | None = None,
    *,
    prevalence: Mapping[str, float] | None = None,
) -> list[Answer]:
    """Findings and intervals of recordings; texts are embedded anew, :func:`ask` does it once for many calls.

    Args:
        model: a model; one with a head answers for the classes of the head.
        ecgs: recordings of any rate and length.
        labels: what to look for, see :func:`ask`; None: all that is known, the most probable first.
        prevalence: see :func:`ask`.

    Raises:
        DeriError: see :func:`ask`.
        ReadError: a recording cannot be used.
    """
    return ask(model, labels, prevalence).answer(model, ecgs)


def ask(
    model: EcgTextModel, labels: Sequence[str] | None = None, prevalence: Mapping[str, float] | None = None
) -> Question:
    """Prepare to score embeddings of ``model`` for labels.

    Args:
        model: where it has a head, labels are classes of the head, by code or name; else texts, codes or findings, see
            :func:`deri.reports.words.label_texts`. A label whose texts are those of a calibrated finding has
            probabilities.
        labels: None: the classes of the head; or the findings that are calibrated; or, where none is, all that the
            package has prompts for.
        prevalence: of labels, instead of the one of the calibration; that of ``"*"`` holds for all others.

    Raises:
        DeriError: a label that cannot be, a prevalence for a label without probabilities, or two for one finding.
    """
    question = _of_texts(model, labels) if model.head is None else _of_head(model.head, labels)
    for key, share in (prevalence or {}).items():
        if not 0 < share < 1:
            raise DeriError(f"prevalence {key}={share:g}: give a share between 0 and 1, such as 0.02")
    return _at(question, prevalence or {}, model.head)


def _of_texts(model: EcgTextModel, labels: Sequence[str] | None) -> Question:
    found = {} if model.calibration is None else model.calibration.findings()
    asked = _known_labels(found) if labels is None else list(labels)
    weight, notes = model.encode_labels(asked)
    if labels is None:
        notes = _unlisted(found)
    meant = label_texts(asked)
    known = [found.get(one.texts) for one in meant]
    maps = tuple(None if one is None else one.log_ratio for one in known)
    prevalence = np.array([np.nan if one is None else one.prevalence for one in known])
    sign = np.array([one.sign for one in meant])
    return Question(tuple(asked), tuple(notes), labels is not None, weight, None, maps, prevalence, sign)


def _known_labels(found: Mapping[tuple[str, ...], object]) -> list[str]:
    """Labels of the findings that are calibrated, or of all of the package where none is."""
    known = _package_labels()
    if not found:
        return list(known.values())
    own = [texts[0] for texts in found if texts not in known and label_texts(texts[:1])[0].texts == texts]
    return [label for texts, label in known.items() if texts in found] + own


def _unlisted(found: Mapping[tuple[str, ...], object]) -> list[str]:
    """A note on the findings that are not among those of all, because they have no calibration; rhythms first."""
    rhythms = {tuple(prompts) for prompts in load_prompts("ptbxl-rhythm").values()}
    rest = sorted((texts for texts in _package_labels() if texts not in found), key=lambda texts: texts not in rhythms)
    if not found or not rest:
        return []
    names = some([_package_labels()[texts] for texts in rest])
    return [f"not listed, because their probability is not known: {names}; ask for them by name"]


@cache
def _package_labels() -> dict[tuple[str, ...], str]:
    """A label for every class that has prompts of its own: its name, or its code where the name means another one."""
    names, labels = class_names(LABELS), {}
    for code, prompts in load_prompts(LABELS).items():
        texts = tuple(prompts)
        if texts not in labels:
            labels[texts] = names[code] if label_texts([names[code]])[0].texts == texts else code
    return labels


def _of_head(head: Head, labels: Sequence[str] | None) -> Question:
    asked = head.classes if labels is None else list(labels)
    rows = [_class_of(head, label) for label in asked]
    prevalence = np.full(len(rows), np.nan) if head.prevalence is None else np.array(head.prevalence)[rows]
    maps = tuple(_less(prior) for prior in log_odds(prevalence))
    sign = np.ones(len(rows), int)
    weight, bias = head.weight[rows], head.bias[rows]
    return Question(tuple(asked), (), labels is not None, weight, bias, maps, prevalence, sign)


def _less(prior: float) -> Map:
    return lambda logits: logits - prior


def _class_of(head: Head, label: str) -> int:
    """The position of the class that a label names, by its code or its name."""
    names = class_names(head.task) if head.task in (*TASKS, LABELS) else {}
    for i, code in enumerate(head.classes):
        if label.strip().casefold() in (code.casefold(), names.get(code, code).casefold()):
            return i
    raise DeriError(
        f"label {label!r}: the model has a head with the classes {some(head.classes, 30)}; name one of them, or give a "
        "model without a head for other texts"
    )


def _at(question: Question, prevalence: Mapping[str, float], head: Head | None) -> Question:
    """The question at other prevalences; DeriError for one that no label has a use for."""
    chosen = question.prevalence.copy()
    if ALL in prevalence:
        chosen[question.calibrated] = prevalence[ALL]
    meant = [_meaning(label, head) for label in question.labels] if prevalence else []
    given: dict[object, float] = {}
    for key, share in prevalence.items():
        if key == ALL:
            used = question.calibrated
        else:
            texts, sign = _meaning(key, head)
            used = question.calibrated & np.array([one[0] == texts for one in meant])
            positive = share if sign > 0 else 1 - share
            if abs(given.setdefault(texts, positive) - positive) > 1e-9:
                raise DeriError(f"prevalence {key}={share:g}: {given[texts]:g} was given for the same finding before")
            chosen[used] = positive
        if not used.any():
            raise DeriError(
                f"prevalence {key}={share:g}: no label of this name has a probability here; deri info lists the "
                "findings that the model is calibrated for"
            )
    return replace(question, prevalence=chosen)


def _meaning(label: str, head: Head | None) -> tuple[object, int]:
    """What is the same for labels that mean the same finding, and -1 where the label denies it."""
    if head is not None:
        return _class_of(head, label), 1
    texts = label_texts([label])[0]
    return texts.texts, texts.sign


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
