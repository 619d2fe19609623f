"""How far the ECG model itself agrees with what a report asserts, and with what it leaves out.

Each finding that a report asserts (by the rule-based labeller) gets the zero-shot score of the recording for that
finding's prompt. A score below the threshold of the validation split flags the finding: the text says it, the model
does not see it. The other way round, :mod:`deri.generation.completion` tells which findings a draft leaves out.
Calibration needs reports alone: a validation record has a finding if its own report asserts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.features import Features
from deri.evaluation.logistic import fit_logistic
from deri.evaluation.metrics import auroc
from deri.files import read_sealed, write_sealed
from deri.generation.completion import completion_threshold, fits
from deri.generation.data import rows_with_report, store_identity
from deri.generation.findings import finding_matrix, finding_prompts, score_findings
from deri.models import EcgTextModel
from deri.models.calibration import encoder_digest
from deri.progress import SILENT, Progress
from deri.reports.labeller import asserted, known_findings
from deri.store import Store

FORMAT = "deri-report-confidence"
VERSION = 2
MIN_POSITIVES = 5
"""With fewer validation reports that assert a finding it has no threshold, and is never flagged."""

DRAFTS = 2000
"""Most validation records whose drafts are written to learn what drafts leave out."""

_GRID = 101


@dataclass(frozen=True)
class Calibration:
    """What the validation split says of one finding.

    Attributes:
        n_pos: validation records whose report asserts it.
        auroc: of the score; None without positives or negatives.
        threshold: the score of highest F1.
        slope, intercept: probability = 1/(1 + exp(-(slope · score + intercept))).
        quantiles: the score at each percent of the validation records, 0 … 100.
        completion: the score from which a draft that does not name the finding leaves it out, see
            :func:`deri.generation.completion.completion_threshold`; None where no draft does.
    """

    n_pos: int
    auroc: float | None
    threshold: float | None
    slope: float | None
    intercept: float | None
    quantiles: list[float]
    completion: float | None = None

    def probability(self, score: float) -> float | None:
        """That the record's own report would assert the finding; None where it is too rare to say."""
        if self.slope is None or self.intercept is None:
            return None
        return float(1 / (1 + np.exp(-(self.slope * score + self.intercept))))

    def percentile(self, score: float) -> float:
        """The share of the validation records that score lower, 0 … 1."""
        return float(np.interp(score, self.quantiles, np.linspace(0, 1, len(self.quantiles))))


@dataclass(frozen=True)
class CheckedFinding:
    """One finding that a report asserts, or that it leaves out.

    Attributes:
        finding: code of the labeller.
        name: in words.
        score: cosine of the recording with the finding's prompt.
        percentile: share of the validation records that score lower, 0 … 1.
        probability: that the record's own report would assert the finding; None where it is too rare to say.
        threshold: below it an asserted finding is flagged, from it on one that is not named is left out; None where it
            is too rare to say.
        flag: asserted, but scored low. False where nothing can be said.
    """

    finding: str
    name: str
    score: float
    percentile: float
    probability: float | None
    threshold: float | None
    flag: bool


@dataclass(frozen=True)
class ReviewedReport:
    """A generated report and what the ECG model says to its findings.

    Attributes:
        text: the report.
        log_prob: log-probability (nats) of the text under the writer.
        finished: False where the longest length came before the end.
        findings: every finding that the text asserts or holds possible.
        left_out: findings that the model scores high and the text does not name.
    """

    text: str
    log_prob: float
    finished: bool
    findings: list[CheckedFinding]
    left_out: list[CheckedFinding]

    @property
    def flags(self) -> list[CheckedFinding]:
        """The findings that the text asserts and the model scores low."""
        return [item for item in self.findings if item.flag]


class Confidence:
    """Calibrated scores of findings for one encoder. Made by :func:`calibrate`, kept as ``confidence.json``."""

    def __init__(self, weights: np.ndarray, findings: dict[str, Calibration], about: dict[str, Any]) -> None:
        if weights.shape[0] != len(findings):
            raise ValueError(f"{weights.shape[0]} prompts but {len(findings)} findings")
        self.weights = weights
        self.findings = findings
        self.about = about

    def check(self, embedding: np.ndarray, text: str) -> list[CheckedFinding]:
        """The findings that ``text`` asserts or holds possible, each with its score, in the order of the table.

        Args:
            embedding: (d,) inference embedding of the recording, of any length above 0.
            text: the report, raw or cleaned.
        """
        said = asserted(text)
        return [
            _checked(code, known, score, known.threshold)
            for code, known, score in self._scored(embedding)
            if code in said
        ]

    def left_out(self, embedding: np.ndarray, text: str) -> list[CheckedFinding]:
        """The findings that the model scores high and ``text`` does not name; arguments as in :meth:`check`."""
        said = asserted(text)
        return [
            _checked(code, known, score, known.completion)
            for code, known, score in self._scored(embedding)
            if known.completion is not None and score >= known.completion and fits(code, said)
        ]

    def _scored(self, embedding: np.ndarray) -> list[tuple[str, Calibration, float]]:
        """Each finding with its calibration and the recording's score."""
        embedding = np.asarray(embedding, np.float64).reshape(-1)
        if embedding.shape[0] != self.weights.shape[1]:
            raise ValueError(f"embedding of width {embedding.shape[0]}, the prompts have {self.weights.shape[1]}")
        scores = (self.weights @ (embedding / np.linalg.norm(embedding))).tolist()
        return [(code, known, score) for (code, known), score in zip(self.findings.items(), scores, strict=True)]

    def flags(self, embeddings: np.ndarray, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The flagged findings of n reports, as the plain values of :class:`CheckedFinding` without ``flag``."""
        found = [self.check(e, text) for e, text in zip(embeddings, texts, strict=True)]
        return [[_plain(item) for item in one if item.flag] for one in found]

    def gaps(self, embeddings: np.ndarray, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The findings that n reports leave out, as plain values as in :meth:`flags`."""
        found = [self.left_out(e, text) for e, text in zip(embeddings, texts, strict=True)]
        return [[_plain(item) for item in one] for one in found]

    def save(self, path: str | Path) -> None:
        """Write it as JSON, atomically."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "deri_version": __version__,
            **self.about,
            "findings": {
                code: {**asdict(known), "prompt": [float(x) for x in np.round(row.astype(float), 7)]}
                for (code, known), row in zip(self.findings.items(), self.weights, strict=True)
            },
        }
        write_sealed(path, content)

    @classmethod
    def load(cls, path: str | Path, *, digest: str | None = None) -> Confidence:
        """Read what :meth:`save` wrote.

        Raises:
            DeriError: missing, broken, of another version, or (with ``digest``) made with another encoder.
        """
        path = Path(path)
        if not path.is_file():
            raise DeriError(f"{path} is missing: make it with deri report calibrate")
        again = "make it again with deri report calibrate"
        try:
            content = read_sealed(path, again)
            if content["format"] != FORMAT or content["version"] != VERSION:
                raise DeriError(f"{path} is {content['format']} {content['version']}, not {FORMAT} {VERSION}; {again}")
            entries = content.pop("findings")
            weights = np.array([entry.pop("prompt") for entry in entries.values()], np.float32)
            findings = {code: Calibration(**entry) for code, entry in entries.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DeriError(f"{path} cannot be read ({error}); {again}") from None
        if unknown := [code for code in findings if code not in known_findings()]:
            raise DeriError(f"{path} has a finding that the labeller does not know: {unknown[0]}; {again}")
        if digest is not None and content.get("encoder_digest") != digest:
            raise DeriError(f"{path} was made with another encoder than the writer has; {again}")
        about = {key: value for key, value in content.items() if key not in ("format", "version", "deri_version")}
        return cls(weights, findings, about)


def _plain(item: CheckedFinding) -> dict[str, Any]:
    return {name: value for name, value in asdict(item).items() if name != "flag"}


def _checked(code: str, known: Calibration, score: float, threshold: float | None) -> CheckedFinding:
    return CheckedFinding(
        finding=code,
        name=known_findings()[code].name,
        score=score,
        percentile=known.percentile(score),
        probability=known.probability(score),
        threshold=threshold,
        flag=threshold is not None and score < threshold,
    )


def calibrate(
    model: EcgTextModel,
    store: Store,
    *,
    split: str = "val",
    drafts: Callable[[np.ndarray], list[str]] | None = None,
    progress: Progress = SILENT,
) -> Confidence:
    """Calibrate the findings' scores on the records of ``split`` that have a report.

    Args:
        model: the ECG model that scores, e.g. a writer's encoder.
        store: holds the records.
        split: the writer's validation split.
        drafts: writes reports of rows of the store; with it, what a draft leaves out is learnt from those of up to
            ``DRAFTS`` records.
        progress: is told how many recordings are embedded.

    Raises:
        DeriError: no record of the split has a report.
    """
    rows, _ = rows_with_report(store, split)
    if not len(rows):
        raise DeriError(f"split {split} of {store.path} has no record with a report: nothing to calibrate on")
    found = score_findings(Features(model, store), split, progress)
    some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), DRAFTS)).astype(int))
    said = None if drafts is None else finding_matrix(drafts(rows[some]))
    known = {}
    for c, code in enumerate(finding_prompts()):
        score, label = found.scores[:, c].astype(np.float64), found.labels[:, c]
        known[code] = _calibration(score, label, found.thresholds[c])
        if said is not None and label[some].sum() >= MIN_POSITIVES:
            completion = completion_threshold(label[some], score[some], said[:, c])
            known[code] = replace(known[code], completion=completion)
    about = {
        "encoder_digest": encoder_digest(model),
        "store": store_identity(store),
        "split": split,
        "records": len(found.scores),
        "min_positives": MIN_POSITIVES,
    }
    return Confidence(found.weights, known, about)


def _calibration(score: np.ndarray, label: np.ndarray, threshold: float | None) -> Calibration:
    """Of one finding, from the scores (n,) and what the reports assert (n,) of the validation records."""
    n_pos = int(label.sum())
    value = auroc(label, score)
    slope = intercept = None
    told = MIN_POSITIVES <= n_pos < len(label)
    if told:
        centre, scale = float(score.mean()), float(score.std()) or 1.0
        fit = fit_logistic(((score - centre) / scale)[:, None], label[:, None].astype(np.uint8), (1e-3,))
        slope = float(fit.weight[0, 0, 0]) / scale
        intercept = float(fit.bias[0, 0]) - slope * centre
    return Calibration(
        n_pos=n_pos,
        auroc=None if np.isnan(value) else value,
        threshold=threshold if told else None,
        slope=slope,
        intercept=intercept,
        quantiles=[float(q) for q in np.quantile(score, np.linspace(0, 1, _GRID))],
    )


def flag_scores(references: Sequence[str], generated: Sequence[str], flags: Sequence[Any]) -> dict[str, Any]:
    """Whether flags tell: how often flagged and other assertions of generated reports are in the true report.

    Precision of both against the references that there are; None without any.

    Args:
        references: true reports; pairs with an empty one are left out.
        generated: the reports.
        flags: per report the flagged findings, each a mapping with the key ``finding``; or None.
    """
    right, total = Counter[bool](), Counter[bool]()
    for reference, text, found in zip(references, generated, flags, strict=True):
        if not reference.strip():
            continue
        marked = {item["finding"] for item in (found if found is not None else ())}
        truth = asserted(reference)
        for code in asserted(text):
            total[code in marked] += 1
            right[code in marked] += code in truth
    return {
        "flagged": total[True],
        "unflagged": total[False],
        "precision_flagged": right[True] / total[True] if total[True] else None,
        "precision_unflagged": right[False] / total[False] if total[False] else None,
    }
