"""From scores to a result file: every metric per class and averaged, intervals, what has to be said, what made it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deri._version import __version__
from deri.errors import some
from deri.evaluation.calibration import calibrate
from deri.evaluation.contributions import auroc_contributions, patient_numbers
from deri.evaluation.intervals import METHOD, MIN_PATIENTS, Interval, as_list, auroc_intervals, macro_interval
from deri.evaluation.metrics import METRICS, measure, require_finite
from deri.evaluation.options import EvalOptions
from deri.models import EcgTextModel
from deri.store import Store

_MEAN_KEY = {"accuracy": "accuracy"}  # of the others: macro_NAME
_MEAN_ELSEWHERE = ("auroc", "ece")


@dataclass(frozen=True)
class ClassResult:
    """What is known of one class: ``metrics`` by their names in ``METRICS``; None where not defined."""

    n_pos: int
    few_positives: bool
    metrics: dict[str, float | None]
    ci: Interval | None  # of the AUROC
    threshold: float | None


@dataclass(frozen=True)
class Result:
    """Figures per class, and averaged over the classes that have an AUROC, where they are defined.

    ``reliable`` figures leave out the classes with fewer than ``min_pos`` positives. ``runs`` has the macro AUROC of
    every run (seed); the other figures are means over runs. ``unlearned`` classes have no figures, because no score of
    theirs means anything.
    """

    classes: dict[str, ClassResult]
    means: dict[str, float | None]
    macro_ci: Interval | None
    reliable_auroc: float | None
    reliable_ci: Interval | None
    ci_method: str | None
    min_pos: int
    runs: tuple[float | None, ...]
    unlearned: tuple[str, ...]
    calibration: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The metric part of a result file; docs/evaluation.md lists its keys."""
        scored = [c for c in self.classes.values() if _scored(c)]
        averaged = {name: value for name, value in self.means.items() if name not in _MEAN_ELSEWHERE}
        return {
            "macro_auroc": {"value": self.means["auroc"], "ci": as_list(self.macro_ci)},
            "macro_auroc_reliable": {
                "value": self.reliable_auroc,
                "ci": as_list(self.reliable_ci),
                "min_pos": self.min_pos,
                "n_classes": sum(not c.few_positives for c in scored),
            },
            "ci_method": self.ci_method,
            **{_MEAN_KEY.get(name, f"macro_{name}"): value for name, value in averaged.items()},
            "n_classes": len(self.classes),
            "n_classes_scored": len(scored),
            "n_classes_averaged": {name: sum(c.metrics[name] is not None for c in scored) for name in averaged},
            "classes": {
                name: {
                    "n_pos": c.n_pos,
                    "few_positives": c.few_positives,
                    **c.metrics,
                    "ci": as_list(c.ci),
                    "threshold": c.threshold,
                }
                for name, c in self.classes.items()
            },
            "calibration": self.calibration,
        }

    def notes(self) -> list[str]:
        """Which classes the averages leave out, and which have few positives."""
        undefined = [name for name, c in self.classes.items() if not _scored(c) and name not in self.unlearned]
        few = [name for name, c in self.classes.items() if c.few_positives and _scored(c)]
        untold = [name for name, c in self.classes.items() if c.ci is None and _scored(c)]
        notes = []
        if undefined:
            notes.append(f"no AUROC, left out of the mean (no positives or no negatives): {', '.join(undefined)}")
        if few:
            notes.append(
                f"fewer than {self.min_pos} positives, so in macro_auroc but not in macro_auroc_reliable: "
                f"{len(few)} classes: {some(few)}"
            )
        if self.ci_method and untold:
            notes.append(
                f"no interval (fewer than {MIN_PATIENTS} patients with a positive or with a negative): {some(untold)}"
            )
        if self.unlearned:
            notes.append(
                "no AUROC, left out of the mean (no positives or no negatives to train on in some fold): "
                f"{some(self.unlearned)}"
            )
        return notes


def evaluate(
    scores: np.ndarray,
    labels: np.ndarray,
    subjects: np.ndarray,
    options: EvalOptions,
    *,
    classes: Sequence[str],
    thresholds: Sequence[Sequence[float | None]] | None = None,
    decided: np.ndarray | None = None,
    unlearned: Collection[str] = (),
    probabilities: bool = False,
) -> Result:
    """All figures of a task from the scores of one or several runs (seeds) on the same records: means over the runs.

    Intervals are those of :mod:`deri.evaluation.intervals`: by patient, of the mean over these runs; how far the runs
    differ is in ``runs``. The interval of a macro average is over the same classes as the average itself.

    Args:
        scores: (runs, n, classes), finite.
        labels: (n, classes) 0 or 1.
        subjects: (n,) patient of each record.
        options: ``draws`` (0: no intervals) and ``min_pos`` are read.
        classes: names.
        thresholds: per run and class, chosen elsewhere; None gives no F1 and no accuracy.
        decided: (runs, n, classes) what the thresholds apply to; the scores when not given.
        unlearned: classes whose scores mean nothing; their figures are null.
        probabilities: the scores are probabilities, so that calibration can be measured.

    Raises:
        ValueError: a score is not finite.
    """
    for c, name in enumerate(classes):
        require_finite(scores[..., c], f"of class {name} ")
    cuts = thresholds or [[None] * len(classes)] * len(scores)
    decided_on = scores if decided is None else decided
    found: dict[str, ClassResult] = {}
    per_run: list[list[float | None]] = [[] for _ in scores]
    for c, name in enumerate(classes):
        y = labels[:, c]
        values: dict[str, list[float | None]] = {metric: [] for metric in METRICS}
        for run, score in enumerate(scores if name not in unlearned else ()):
            for metric, several in values.items():
                several.append(
                    measure(
                        METRICS[metric],
                        y,
                        score[:, c],
                        decided=decided_on[run, :, c],
                        threshold=cuts[run][c],
                        probabilities=probabilities,
                    )
                )
            per_run[run].append(values["auroc"][-1])
        metrics = {metric: _mean(several) for metric, several in values.items()}
        n_pos = int(y.sum())
        found[name] = ClassResult(
            n_pos,
            n_pos < options.min_pos,
            metrics,
            None,
            cuts[0][c] if len(scores) == 1 and decided is None and name not in unlearned else None,
        )
    reliable = [name for name, c in found.items() if not c.few_positives]
    macro_ci, reliable_ci = None, None
    if options.draws and len(labels):
        contributions = auroc_contributions(labels, scores, subjects)
        of_classes = dict(zip(classes, auroc_intervals(contributions), strict=True))
        scored = {name: c for c, name in enumerate(classes) if _scored(found[name])}
        found |= {name: replace(found[name], ci=of_classes[name].ci) for name in scored}
        macro_ci = macro_interval(contributions, list(scored.values())).ci
        reliable_ci = macro_interval(contributions, [c for name, c in scored.items() if name in reliable]).ci
    return Result(
        classes=found,
        means={metric: _mean([c.metrics[metric] for c in found.values() if _scored(c)]) for metric in METRICS},
        macro_ci=macro_ci,
        reliable_auroc=_mean([found[name].metrics["auroc"] for name in reliable]),
        reliable_ci=reliable_ci,
        ci_method=METHOD if options.draws else None,
        min_pos=options.min_pos,
        runs=tuple(_mean(values) for values in per_run),
        unlearned=tuple(name for name in classes if name in unlearned),
        calibration=calibrate(np.concatenate([labels] * len(scores)), np.concatenate(scores))
        if probabilities
        else None,
    )


def scored_records(
    task: str, model_name: str | None, subjects: np.ndarray, options: EvalOptions, *, protocol: str | None = None
) -> dict[str, Any]:
    """The head of a result file: what was scored, on which records, and how; ``protocol`` if not of the options."""
    return {
        "task": task,
        "model": model_name,
        "split": options.split,
        "n": len(subjects),
        "n_patients": count_patients(subjects),
        "protocol": protocol or options.protocol,
        "seed": options.seed,
    }


def provenance(model: EcgTextModel | None, store: Store) -> dict[str, Any]:
    """What made a result: version, recipe of the model (None without one) and store."""
    return {
        "deri_version": __version__,
        "recipe": None if model is None else model.recipe_name,
        "store": store.provenance,
    }


def count_patients(subjects: np.ndarray) -> int:
    """How many different patients there are."""
    return patient_numbers(subjects)[1]


def _scored(c: ClassResult) -> bool:
    return c.metrics["auroc"] is not None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
