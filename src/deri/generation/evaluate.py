"""The figures of a set of generated reports: word metrics, and findings by the rule-based labeller, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.bootstrap import Bootstrap, interval
from deri.evaluation.contributions import f1_contributions, patient_numbers
from deri.evaluation.intervals import METHOD, as_list, macro_interval, mean_interval, paired_macro_difference
from deri.generation.agreement import drawn_f1, precision_recall_f1
from deri.generation.efficacy import TextSpace, model_efficacy
from deri.generation.findings import finding_matrix
from deri.generation.metrics import corpus_bleu, pair_scores, sentence_bleu
from deri.reports import without_stamps
from deri.reports.labeller import known_findings

FORMAT = "deri-report-evaluation"


@dataclass(frozen=True)
class ReportOptions:
    """How reports are scored.

    Attributes:
        clean: bring both sides into the form of :func:`deri.reports.without_stamps` first.
        uncertain: findings that a text holds possible count as asserted, on both sides.
        min_count: a finding enters the macro average if at least so many references assert it.
        draws: bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.
    """

    clean: bool = True
    uncertain: bool = True
    min_count: int = 1
    draws: int = 1000
    seed: int = 0


def evaluate_reports(
    references: Sequence[str],
    generated: Sequence[str],
    subjects: Sequence[str] | None = None,
    space: TextSpace | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Everything that ``deri report evaluate`` writes, as plain JSON values.

    Args:
        references: the true reports, n of them; pairs with an empty one are left out and counted.
        generated: one text each; an empty one scores 0 and is counted.
        subjects: whose report it is: the bootstrap draws subjects. None: every pair is drawn by itself.
        space: with it also ``clinical_efficacy``, in this text space.
        options: those of :class:`ReportOptions`.

    Raises:
        DeriError: no pair has a reference.
    """
    wanted = ReportOptions(**options)
    total = len(references)
    references, (generated,), bootstrap = _scored_rows(references, [generated], subjects, wanted)
    left_out: dict[str, str] = {}
    try:
        bleu = corpus_bleu(references, generated)
    except DeriError as error:
        bleu, left_out["corpus_bleu"] = None, str(error)
    scores, others = pair_scores(references, generated)
    truth, called = (finding_matrix(texts, uncertain=wanted.uncertain) for texts in (references, generated))
    return {
        "format": FORMAT,
        "version": 1,
        "deri_version": __version__,
        "pairs": len(references),
        "without_reference": total - len(references),
        "empty_generated": sum(not text.strip() for text in generated),
        "subjects": bootstrap.n_groups,
        "drawn_by": "row" if subjects is None else "subject",
        "cleaned": wanted.clean,
        "bootstrap": {"draws": wanted.draws, "seed": wanted.seed},
        "ci_method": METHOD if wanted.draws else None,
        "metrics": {
            name: {"value": float(values.mean()), "ci": _mean_ci(values, bootstrap)} for name, values in scores.items()
        },
        "corpus_bleu": bleu,
        "left_out": left_out | others,
        "findings": _findings(truth, called, bootstrap, wanted.min_count) | {"uncertain_counts": wanted.uncertain},
        **({} if space is None else {"clinical_efficacy": model_efficacy(space, references, generated, bootstrap)}),
    }


def paired_difference(
    references: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    subjects: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """How much better ``first`` is than ``second`` on the same records: BLEU-4 and the macro-F1 of findings.

    Both are scored in the same draws of subjects, so that the interval is that of the difference. Options are those of
    :class:`ReportOptions`.

    Returns:
        ``bleu_4`` and ``finding_f1``, each with ``value`` (first less second) and ``ci`` (95 %, None without draws).
    """
    wanted = ReportOptions(**options)
    references, systems, bootstrap = _scored_rows(references, [first, second], subjects, wanted)
    bleu = np.array([
        sentence_bleu(reference, a)[3] - sentence_bleu(reference, b)[3]
        for reference, a, b in zip(references, *systems, strict=True)
    ])  # fmt: skip
    truth, *called = (finding_matrix(texts, uncertain=wanted.uncertain) for texts in (references, *systems))
    chosen = truth.sum(axis=0) >= max(1, wanted.min_count)
    value = ci = None
    if chosen.any():
        f1 = [precision_recall_f1(truth, own)[2][chosen].mean() for own in called]
        value = float(f1[0] - f1[1])
        if bootstrap.draws:
            a, b = (f1_contributions(truth, own, bootstrap.groups) for own in called)
            ci = as_list(paired_macro_difference(a, b, np.flatnonzero(chosen).tolist()).ci)
    return {
        "bleu_4": {"value": float(bleu.mean()), "ci": _mean_ci(bleu, bootstrap)},
        "finding_f1": {"value": value, "ci": ci, "findings": int(chosen.sum())},
    }


def _scored_rows(
    references: Sequence[str], systems: Sequence[Sequence[str]], subjects: Sequence[str] | None, wanted: ReportOptions
) -> tuple[list[str], list[list[str]], Bootstrap]:
    """Of the rows with a reference: references, the texts of each system, and draws of the subjects whose they are.

    Raises:
        DeriError: no row has a reference.
    """
    if any(len(column) != len(references) for column in (*systems, *([] if subjects is None else [subjects]))):
        raise ValueError("references, generated and subjects differ in length")
    columns = [[without_stamps(text) for text in texts] if wanted.clean else texts for texts in (references, *systems)]
    kept = [row for row, text in enumerate(columns[0]) if text.strip()]
    if not kept:
        raise DeriError("no row has a reference report: there is nothing to compare with")
    references, *systems = ([texts[row] for row in kept] for texts in columns)
    names = kept if subjects is None else [str(subjects[row]) for row in kept]
    return references, systems, Bootstrap(patient_numbers(np.array(names))[0], wanted.draws, wanted.seed)


def _findings(truth: np.ndarray, called: np.ndarray, bootstrap: Bootstrap, min_count: int) -> dict[str, Any]:
    n, calls = truth.sum(axis=0), called.sum(axis=0)
    figures = dict(zip(("precision", "recall", "f1"), precision_recall_f1(truth, called), strict=True))
    drawn = drawn_f1(bootstrap, truth, called)
    table = {
        code: {
            "name": finding.name,
            "n": int(n[i]),
            "generated": int(calls[i]),
            **{name: float(values[i]) if n[i] else None for name, values in figures.items()},
            "ci": as_list(interval(drawn[:, i])) if n[i] > 1 else None,
        }
        for i, (code, finding) in enumerate(known_findings().items())
        if n[i] or calls[i]
    }
    chosen = np.flatnonzero(n >= max(1, min_count)).tolist()
    macro = {name: float(values[chosen].mean()) if len(chosen) else None for name, values in figures.items()}
    of = f1_contributions(truth, called, bootstrap.groups)
    ci = as_list(macro_interval(of, chosen).ci if bootstrap.draws else None)
    pooled = precision_recall_f1(truth.reshape(-1, 1), called.reshape(-1, 1))
    return {
        "macro": macro | {"ci": ci, "findings": len(chosen), "min_count": max(1, min_count)},
        "micro": {name: float(value[0]) if n.any() else None for name, value in zip(figures, pooled, strict=True)},
        "per_finding": table,
    }


def _mean_ci(values: np.ndarray, bootstrap: Bootstrap) -> list[float] | None:
    return as_list(mean_interval(values, bootstrap.groups).ci) if bootstrap.draws else None
