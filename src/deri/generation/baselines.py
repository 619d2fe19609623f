"""Baselines of report generation: what a report costs that no writer wrote.

``frequent`` gives every record the commonest report of the training split, ``neighbour`` the report of the nearest
training record by the model's ECG embedding, ``template`` a sentence for each finding that the model's zero-shot scores
call. All three use the training and validation splits alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from deri.errors import DeriError
from deri.evaluation.features import Features, unit
from deri.files import parse_yaml, shipped_text
from deri.generation.data import asked_languages, report_texts, row_languages, rows_with_report
from deri.generation.findings import score_findings
from deri.models import EcgTextModel
from deri.progress import SILENT, Progress
from deri.reports import clean_report
from deri.reports.labeller import known_findings
from deri.store import Store

_CHUNK = 1024
Languages = Sequence[str | None]


def baseline_reports(
    model: EcgTextModel,
    store: Store,
    rows: np.ndarray,
    kinds: Sequence[str] | None = None,
    *,
    language: str | None = None,
    features: Features | None = None,
    progress: Progress = SILENT,
) -> dict[str, list[str]]:
    """The reports of ``rows`` by each of ``kinds``, in the order of ``rows``.

    Args:
        model: the ECG model; ``frequent`` does not look at it.
        store: holds reports in its train split, and for ``template`` in its val split.
        rows: (n,) rows of the store.
        kinds: of ``KINDS``; all when not given.
        language: of all reports; ``"reference"``: of each that of the row's own; None: whichever comes.
        features: embeddings kept between calls.
        progress: is told how many recordings are embedded.

    Raises:
        DeriError: an unknown kind, a split without reports, or no training report in the language.
    """
    kinds = KINDS if kinds is None else kinds
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise DeriError(f"baseline {unknown[0]!r} is not known; there are {', '.join(KINDS)}")
    features = features or Features(model, store)
    languages = asked_languages(store, rows, language)
    return {kind: _WRITERS[kind](features, rows, languages, progress) for kind in kinds}


def frequent_reports(
    features: Features, rows: np.ndarray, languages: Languages, progress: Progress = SILENT
) -> list[str]:
    """For every row the report that most training records have; of equally frequent ones the first of the store."""
    store, texts = features.store, report_texts(features.store)
    frequent = {}
    for language in set(languages):
        counts = Counter(texts[i] for i in store.report_ids[_with_reports(store, "train", language)])
        frequent[language] = counts.most_common(1)[0][0]
    return [frequent[language] for language in languages]


def nearest_reports(
    features: Features, rows: np.ndarray, languages: Languages, progress: Progress = SILENT
) -> list[str]:
    """The report of the training record whose embedding has the highest cosine with the row's: exact search.

    Of equally near records the first in the store. A training record finds itself.
    """
    store, texts = features.store, report_texts(features.store)
    queries = torch.from_numpy(unit(features.rows(rows, progress)))
    found = [""] * len(rows)
    for language in set(languages):
        train = _with_reports(store, "train", language)
        bank = torch.from_numpy(unit(features.rows(train, progress)))
        at = [i for i, own in enumerate(languages) if own == language]
        for start in range(0, len(at), _CHUNK):
            chunk = at[start : start + _CHUNK]
            nearest = (queries[chunk] @ bank.T).argmax(dim=1).numpy()
            for i, report in zip(chunk, store.report_ids[train[nearest]], strict=True):
                found[i] = texts[report]
    return found


def template_reports(
    features: Features, rows: np.ndarray, languages: Languages, progress: Progress = SILENT
) -> list[str]:
    """A sentence for every finding that the zero-shot scores call; ``""`` where they call none.

    A finding is called at or above the score of highest F1 against what the validation reports assert; one that no
    validation report asserts is never called. German where German is asked for, else English.
    """
    _with_reports(features.store, "val")
    found = score_findings(features, "val", progress)
    scores = unit(features.rows(rows, progress)) @ found.weights.T
    thresholds = np.array([np.inf if t is None else t for t in found.thresholds])
    return [
        write_findings([c for c, on in zip(known_findings(), called, strict=True) if on], language)
        for called, language in zip(scores >= thresholds, languages, strict=True)
    ]


_WRITERS = {"frequent": frequent_reports, "neighbour": nearest_reports, "template": template_reports}
KINDS = tuple(_WRITERS)


def write_findings(codes: Sequence[str], language: str | None = "en") -> str:
    """A report of one sentence per finding, cleaned as all reports are: rhythm first, in the order of the templates."""
    return clean_report([sentence for code, sentence in templates(language).items() if code in codes])


@cache
def templates(language: str | None = "en") -> dict[str, str]:
    """The sentence of each finding, in German or English."""
    content = parse_yaml(shipped_text("deri.generation", "templates.yaml"))
    known = content["german" if language == "de" else "sentences"]
    return {str(code): known[code] for code in content["sentences"]}


def _with_reports(store: Store, split: str, language: str | None = None) -> np.ndarray:
    rows, _ = rows_with_report(store, split)
    if language is not None:
        rows = rows[np.array(row_languages(store, rows), dtype=object) == language]
    if not len(rows):
        which = "report" if language is None else f"report in language {language!r}"
        raise DeriError(f"the store {store.path} has no record with a {which} in split {split}, which baselines need")
    return rows
