"""The figures of a set of generated reports: word metrics, and findings by the rule-based labeller, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.generation.metrics import PAIR_METRICS, corpus_bleu, pair_scores, sentence_bleu
from deri.reports import clean_report
from deri.reports.labeller import asserted, known_findings

FORMAT = "deri-report-evaluation"
_CHUNK = 64  # bootstrap draws at a time: memory stays at 64 weights per subject


def evaluate_reports(
    references: Sequence[str],
    generated: Sequence[str],
    subjects: Sequence[str] | None = None,
    *,
    clean: bool = True,
    uncertain: bool = True,
    min_count: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that ``deri report evaluate`` writes, as plain JSON values.

    Args:
        references: the true reports, n of them; pairs with an empty one are left out and counted.
        generated: one text each; an empty one scores 0 and is counted.
        subjects: whose report it is: the bootstrap draws subjects. None: every pair is drawn by itself.
        clean: bring both sides into the form of :func:`deri.reports.clean_report` first.
        uncertain: findings that a text holds possible count as asserted, on both sides.
        min_count: a finding enters the macro average if at least so many references assert it.
        draws: bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.

    Raises:
        DeriError: no pair has a reference.
    """
    total = len(references)
    references, generated, groups = kept_pairs(references, generated, subjects, clean=clean)
    left_out: dict[str, str] = {}
    bleu = _corpus(references, generated, left_out)
    rouge = _has_rouge(left_out)
    scores = pair_scores(references, generated, rouge=rouge)
    truth, called = (finding_matrix(texts, uncertain=uncertain) for texts in (references, generated))
    weights = Bootstrap(groups, draws, seed)
    return {
        "format": FORMAT,
        "version": 1,
        "deri_version": __version__,
        "pairs": len(references),
        "without_reference": total - len(references),
        "empty_generated": sum(not text.strip() for text in generated),
        "subjects": int(groups.max()) + 1,
        "drawn_by": "row" if subjects is None else "subject",
        "cleaned": clean,
        "bootstrap": {"draws": draws, "seed": seed},
        "metrics": {
            name: {"value": float(scores[name].mean()), "ci": weights.mean(scores[name])}
            for name in PAIR_METRICS
            if name in scores
        },
        "corpus_bleu": bleu,
        "left_out": left_out,
        "findings": _findings(truth, called, weights, min_count) | {"uncertain_counts": uncertain},
    }


def finding_scores(
    references: Sequence[str], generated: Sequence[str], *, uncertain: bool = True, min_count: int = 1
) -> dict[str, Any]:
    """Precision, recall and F1 per finding, macro and micro: the labeller on both sides, without intervals."""
    if len(references) != len(generated):
        raise ValueError(f"{len(references)} references but {len(generated)} generated texts")
    truth, called = (finding_matrix(texts, uncertain=uncertain) for texts in (references, generated))
    return _findings(truth, called, Bootstrap(np.arange(len(references)), 0, 0), min_count)


def kept_pairs(
    references: Sequence[str], generated: Sequence[str], subjects: Sequence[str] | None = None, *, clean: bool = True
) -> tuple[list[str], list[str], np.ndarray]:
    """The pairs that are scored: those with a reference, cleaned, and whose they are (int64, 0 … k - 1).

    Raises:
        DeriError: no pair has a reference.
    """
    if len(references) != len(generated) or (subjects is not None and len(subjects) != len(references)):
        raise ValueError("references, generated and subjects differ in length")
    if clean:
        references = [clean_report(text) for text in references]
        generated = [clean_report(text) for text in generated]
    kept = [row for row, text in enumerate(references) if text.strip()]
    if not kept:
        raise DeriError("no row has a reference report: there is nothing to compare with")
    if subjects is None:
        groups = np.arange(len(kept))
    else:
        groups = np.unique(np.array([str(subjects[row]) for row in kept]), return_inverse=True)[1]
    return [references[row] for row in kept], [generated[row] for row in kept], groups


def _corpus(references: Sequence[str], generated: Sequence[str], left_out: dict[str, str]) -> float | None:
    try:
        return corpus_bleu(references, generated)
    except DeriError as error:
        left_out["corpus_bleu"] = str(error)
        return None


def _has_rouge(left_out: dict[str, str]) -> bool:
    from deri.generation.metrics import rouge_l

    try:
        rouge_l("", "")
    except DeriError as error:
        left_out["rouge_l"] = str(error)
        return False
    return True


def finding_matrix(texts: Sequence[str], *, uncertain: bool = True) -> np.ndarray:
    """Which finding each text asserts, bool (n, findings), in the order of the labeller's table."""
    place = {code: column for column, code in enumerate(known_findings())}
    matrix = np.zeros((len(texts), len(place)), bool)
    for row, text in enumerate(texts):
        for code in asserted(text, uncertain=uncertain):
            matrix[row, place[code]] = True
    return matrix


class Bootstrap:
    """Percentile intervals (95 %) over draws of groups of rows; None without draws or with fewer than two groups."""

    def __init__(self, groups: np.ndarray, draws: int, seed: int) -> None:
        self.groups = groups
        self.n = int(groups.max()) + 1 if len(groups) else 0
        self.draws = draws if self.n > 1 else 0
        self.seed = seed

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Column sums of ``values`` (rows, k) in every draw: (draws, k). The same draws at every call."""
        grouped = np.zeros((self.n, values.shape[1]))
        np.add.at(grouped, self.groups, values)
        rng = np.random.default_rng(self.seed)
        out = np.zeros((self.draws, values.shape[1]))
        for start in range(0, self.draws, _CHUNK):
            size = min(_CHUNK, self.draws - start)
            out[start : start + size] = rng.multinomial(self.n, np.full(self.n, 1 / self.n), size=size) @ grouped
        return out

    def mean(self, values: np.ndarray) -> list[float] | None:
        """The interval of the mean of ``values`` (rows,)."""
        sums = self.sums(np.column_stack([values, np.ones(len(values))]))
        return interval(sums[:, 0] / sums[:, 1]) if self.draws else None


def interval(drawn: np.ndarray) -> list[float] | None:
    """The 95 % percentile interval of the draws in which the figure exists; None if it exists in none."""
    known = drawn[~np.isnan(drawn)]
    return [float(x) for x in np.quantile(known, (0.025, 0.975))] if len(known) else None


def _findings(truth: np.ndarray, called: np.ndarray, weights: Bootstrap, min_count: int) -> dict[str, Any]:
    hits, positives, calls = (m.sum(0).astype(float) for m in (truth & called, truth, called))
    precision, recall, f1 = prf(hits, positives, calls)
    drawn = _drawn_f1(truth, called, weights) if weights.draws else None
    names = known_findings()
    table = {
        code: {
            "name": names[code].name,
            "n": int(positives[i]),
            "generated": int(calls[i]),
            "precision": float(precision[i]) if positives[i] else None,
            "recall": float(recall[i]) if positives[i] else None,
            "f1": float(f1[i]) if positives[i] else None,
            "ci": interval(drawn[:, i]) if drawn is not None and positives[i] else None,
        }
        for i, code in enumerate(names)
        if positives[i] or calls[i]
    }
    chosen = np.flatnonzero(positives >= max(1, min_count))
    macro = {
        name: float(values[chosen].mean()) if len(chosen) else None
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
    }
    ci = interval(_mean_of_known(drawn[:, chosen])) if drawn is not None and len(chosen) else None
    pooled = [float(x) for x in prf(hits.sum(), positives.sum(), calls.sum())] if positives.sum() else [None] * 3
    return {
        "macro": macro | {"ci": ci, "findings": len(chosen), "min_count": max(1, min_count)},
        "micro": dict(zip(("precision", "recall", "f1"), pooled, strict=True)),
        "per_finding": table,
    }


def _drawn_f1(truth: np.ndarray, called: np.ndarray, weights: Bootstrap) -> np.ndarray:
    """F1 of every finding in every draw: (draws, findings), NaN where a draw has it in neither text."""
    stacked = np.concatenate([truth & called, truth, called], axis=1).astype(float)
    return prf(*np.split(weights.sums(stacked), 3, axis=1))[2]


def _mean_of_known(drawn: np.ndarray) -> np.ndarray:
    """Row means over what is no NaN: a rare finding may be in neither text of a draw."""
    present = ~np.isnan(drawn)
    sums = np.where(present, drawn, 0).sum(1)
    return np.divide(sums, present.sum(1), out=np.full(len(sums), np.nan), where=present.any(1))


def paired_difference(
    references: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    subjects: Sequence[str] | None = None,
    *,
    clean: bool = True,
    uncertain: bool = True,
    min_count: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How much better ``first`` is than ``second`` on the same records: BLEU-4 and the macro-F1 of findings.

    Both are scored in the same draws of subjects, so that the interval is that of the difference. Options as in
    :func:`evaluate_reports`.

    Returns:
        ``bleu_4`` and ``finding_f1``, each with ``value`` (first less second) and ``ci`` (95 %, None without draws).
    """
    kept, left, groups = kept_pairs(references, first, subjects, clean=clean)
    _, right, _ = kept_pairs(references, second, subjects, clean=clean)
    weights = Bootstrap(groups, draws, seed)
    bleu = np.array([
        sentence_bleu(reference, a)[3] - sentence_bleu(reference, b)[3]
        for reference, a, b in zip(kept, left, right, strict=True)
    ])  # fmt: skip
    truth, one, other = (finding_matrix(texts, uncertain=uncertain) for texts in (kept, left, right))
    chosen = truth.sum(0) >= max(1, min_count)
    f1 = [prf((truth & m).sum(0), truth.sum(0), m.sum(0))[2][chosen] for m in (one, other)]
    ci = None
    if weights.draws and chosen.any():
        ci = interval(np.subtract(*(_mean_of_known(_drawn_f1(truth, m, weights)[:, chosen]) for m in (one, other))))
    value = float(f1[0].mean() - f1[1].mean()) if chosen.any() else None
    return {
        "bleu_4": {"value": float(bleu.mean()), "ci": weights.mean(bleu)},
        "finding_f1": {"value": value, "ci": ci, "findings": int(chosen.sum())},
    }


def prf(hits: Any, positives: Any, calls: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision (0 where nothing was called), recall, and F1 (NaN where nothing was there nor called)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(np.asarray(calls) > 0, np.divide(hits, calls), 0.0)
        return precision, np.divide(hits, positives), np.divide(2 * np.asarray(hits), np.add(positives, calls))
