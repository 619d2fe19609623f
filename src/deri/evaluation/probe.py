"""Probing: how much of a task the features of a frozen encoder hold, as a linear layer finds it.

``corrected``: L2-regularised logistic regression to convergence on standardised features, its strength picked on
validation. ``published``: the papers' linear layer by AdamW (:mod:`deri.evaluation.sgd_probe`). ``boosting``: the trees
of the classical row (:mod:`deri.evaluation.classical`). docs/evaluation.md states all in full.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from deri.errors import some
from deri.evaluation import classical
from deri.evaluation.contributions import patient_numbers
from deri.evaluation.features import Features
from deri.evaluation.logistic import fit_logistic
from deri.evaluation.metrics import aurocs, best_thresholds
from deri.evaluation.options import DEFAULT_SEED, EvalOptions, Sampling
from deri.evaluation.result import count_patients, evaluate, provenance, scored_records
from deri.evaluation.sgd_probe import fit_published
from deri.evaluation.task import Split, TaskData, load_task, task_parts
from deri.models.calibration import log_odds, prevalence_of
from deri.models.head import Head

Method = Literal["corrected", "published", "boosting"]

STRENGTHS = tuple(float(10 ** (k / 2)) for k in range(2, -11, -1))
"""Of the L2 penalty, 10 to 1e-5, strongest first, for the mean cross-entropy on standardised features."""

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Probe:
    """A trained probe's probabilities on validation and test, and what was chosen on validation."""

    val: np.ndarray  # (m, classes)
    test: np.ndarray  # (n, classes)
    chosen: dict[str, Any]


def sample_training(subjects: np.ndarray, percent: float, seed: int, sampling: Sampling = "random") -> np.ndarray:
    """Positions of ``percent`` % of the training records, ascending; at least one.

    Smaller samples of a seed lie within its larger ones. ``patient`` takes whole patients in random order, as many as
    the records allow, at least one; ``random`` takes records, as the papers do.
    """
    n = len(subjects)
    target = max(1, round(n * percent / 100))
    if target >= n:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    if sampling == "random":
        return np.sort(rng.permutation(n)[:target])
    patient, n_patients = patient_numbers(subjects)
    order = rng.permutation(n_patients)
    count = np.bincount(patient, minlength=n_patients)[order]
    taken = max(1, int(np.searchsorted(np.cumsum(count), target, side="right")))
    return np.flatnonzero(np.isin(patient, order[:taken]))


def fit_probe(
    train: Split, val: Split, test: Split, *, protocol: Method = "corrected", seed: int = DEFAULT_SEED
) -> Probe:
    """Train one probe on ``train``, choose on ``val``, and give probabilities for ``val`` and ``test``."""
    from scipy.special import expit

    if protocol == "boosting":
        return Probe(*classical.fit_boosting(train, val, test, seed=seed))
    if protocol == "published":
        weight, bias, chosen = fit_published(train, val, seed=seed)
    else:
        train, val, test = _filled(train, val, test)
        weight, bias, chosen = fit_corrected(train, val)
    of_val, of_test = (expit(part.features @ weight.T + bias) for part in (val, test))
    return Probe(of_val, of_test, chosen)


def _filled(train: Split, *others: Split) -> list[Split]:
    """The parts with the mean of the training records where a feature is NaN, which cannot be measured."""
    known = np.isfinite(train.features)
    if known.all() and all(np.isfinite(part.features).all() for part in others):
        return [train, *others]
    mean = np.where(known, train.features, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return [
        replace(part, features=np.where(np.isfinite(part.features), part.features, mean).astype(np.float32))
        for part in (train, *others)
    ]


def fit_corrected(train: Split, val: Split) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The corrected probe: weights (classes, d) and biases (classes,) on raw features, and what was chosen."""
    mean = train.features.mean(axis=0, dtype=np.float64)
    spread = train.features.std(axis=0, dtype=np.float64)
    # A feature that is constant up to the rounding of float32 carries nothing; its noise is not blown up.
    spread[spread <= 1e-6 * np.abs(mean)] = np.inf
    fits = fit_logistic((train.features - mean) / spread, train.labels, STRENGTHS)
    best = choose_strength(fits.logits((val.features - mean) / spread), val.labels)
    chosen = {
        "strength": fits.strengths[best],
        "strength_at_limit": best == len(STRENGTHS) - 1,  # the strong end is one: no more changes there
        "converged": bool(fits.converged[best].all()),
    }
    weight = fits.weight[best] / spread
    return weight, fits.bias[best] - weight @ mean, chosen


def train_head(data: TaskData, task: str) -> Head:
    """The corrected probe on all training records of a task with splits, as a head; thresholds are from validation."""
    from scipy.special import expit

    weight, bias, _ = fit_corrected(data.train, data.val)
    thresholds = best_thresholds(data.val.labels, expit(data.val.features @ weight.T + bias))
    prevalence = prevalence_of(data.train.labels).tolist()
    return Head(weight.astype(np.float32), bias.astype(np.float32), task, data.classes, thresholds, prevalence)


def choose_strength(logits: np.ndarray, labels: np.ndarray) -> int:
    """The strength, one for all classes, of the highest validation macro AUROC; the strongest of equals.

    Where no class has an AUROC on validation, the lowest validation cross-entropy decides.

    Args:
        logits: (strengths, m, classes), strongest first.
        labels: (m, classes) 0 or 1.
    """
    values = np.stack([aurocs(labels, one) for one in logits])
    defined = np.isfinite(values).all(axis=0)
    if defined.any():
        quality = values[:, defined].mean(axis=1)
    else:
        quality = -np.array([(np.logaddexp(0, one) - labels * one).mean() for one in logits])
    return int(np.flatnonzero(quality >= quality.max() - 1e-9)[0])


def log_likelihood_ratio(probability: np.ndarray, train_labels: np.ndarray) -> np.ndarray:
    """Logit of probabilities (n, classes) less that of the share of positives in training.

    The scores of folds are put together in this form. Probabilities would not do: a fold that happens to hold many
    positives has a training set with few, so that even a probe that has learned nothing would rank its records too low
    (AUROC below 0.5). Where all or none were positive the share is (n_pos + ½) / (n + 1), as probes have it. Rounded to
    six decimals, so that what is 0 but for the tolerance of a fit is 0 in every fold.
    """
    prior = prevalence_of(train_labels)
    p = np.clip(probability, _SMALLEST, 1 - _SMALLEST)
    return np.round(log_odds(p) - log_odds(prior), 6)


def probe_task(
    features: Features, task: str, options: EvalOptions | None = None, *, model_name: str | None
) -> dict[str, Any]:
    """Probe features on a task of their store; returns the JSON result that ``deri probe`` writes.

    Trained on ``train``, chosen on ``val``, scored on ``test``; with ``options.folds`` by cross-validation over all
    records, where each is scored by a probe that saw none of its patient's. One fraction gives its figures at the top
    level; several give ``fractions``: {"1": {…}, "10": {…}}.

    Args:
        features: of a model, whose frozen encoder they leave as it is, or of intervals and amplitudes.
        task: its name.
        options: all but ``split`` are read.
        model_name: for the result.

    Raises:
        DeriError: no such task, a split of it is empty, or there are fewer patients than folds.
    """
    options = options or EvalOptions()
    data = load_task(features, task, whole=options.folds > 0)
    found = {f"{fraction:g}": score_probes(data, fraction, options)[0] for fraction in options.fractions}
    return (
        scored_records(task, model_name, data.test.subjects, replace(options, split="all" if options.folds else "test"))
        | {"n_val": len(data.val.labels), "sampling": options.sampling}
        | ({"folds": options.folds} if options.folds else {})
        | (next(iter(found.values())) if len(found) == 1 else {"fractions": found})
        | provenance(features.encoder, features.store)
        | {
            "encoder": {
                "mode": None if features.encoder is None else "eval",
                "features": features.content,
                "weights_sha256": features.digest,
            }
        }
    )


@dataclass(frozen=True)
class _Run:
    """The probes of one seed: their scores, and what is told of them."""

    scores: np.ndarray  # (n, classes)
    decided: np.ndarray  # (n, classes) what the thresholds apply to
    thresholds: list[float | None]
    n_train_pos: np.ndarray  # (classes,) of the fold with the fewest
    trained: np.ndarray  # (classes,) bool: the training records of every part had positives and negatives
    about: dict[str, Any]
    chosen: list[dict[str, Any]]  # per part


def score_probes(
    data: TaskData, fraction: float, options: EvalOptions, method: Method | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Train a probe per seed and part on a fraction of the training records, and score them.

    Args:
        data: of splits, or whole for ``options.folds``.
        fraction: percent of the training records.
        options: all but ``split`` and ``fractions`` are read.
        method: what is trained; that of the protocol when not given.

    Returns:
        The part of a result that depends on the fraction, and the scores (seeds, n, classes): probabilities, or with
        folds log likelihood ratios.
    """
    method = method or options.protocol
    # With all records only the published training and the folds draw anything; other seeds would repeat the first.
    n_train = len(data.train.labels)
    repeats = not options.folds and method != "published" and round(n_train * fraction / 100) >= n_train
    runs: list[_Run] = []
    for seed in options.seeds_of(fraction):
        if runs and repeats:
            runs.append(replace(runs[0], about=runs[0].about | {"seed": seed}))
        else:
            runs.append(_probe_run(data, fraction, options, method, seed))
    scores = np.stack([run.scores for run in runs])
    n_train_pos = np.stack([run.n_train_pos for run in runs])
    trained = np.stack([run.trained for run in runs])
    untrained = [name for name, of_class in zip(data.classes, trained.T, strict=True) if not of_class.all()]
    result = evaluate(
        scores,
        data.test.labels,
        data.test.subjects,
        options,
        classes=data.classes,
        thresholds=[run.thresholds for run in runs],
        decided=np.stack([run.decided for run in runs]) if options.folds else None,
        # A fold that learned nothing of a class scores its records 0 beside the graded scores of other folds.
        unlearned=untrained if options.folds else (),
        probabilities=not options.folds,
    )
    content = result.to_json()
    for name, counts in zip(data.classes, n_train_pos.T, strict=True):
        content["classes"][name]["n_train_pos"] = counts.tolist()
    known = [value for value in result.runs if value is not None]
    content["macro_auroc"]["sd_over_seeds"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    first = {key: runs[0].about[key] for key in ("n_train", "n_train_patients")}
    seeds = []
    for run, value in zip(runs, result.runs, strict=True):
        of_parts = {"folds": run.chosen} if options.folds else run.chosen[0]
        chosen = {} if options.folds else {"thresholds": dict(zip(data.classes, run.thresholds, strict=True))}
        seeds.append(run.about | of_parts | {"macro_auroc": value} | chosen)
    return {
        "fraction": fraction,
        **first,
        **content,
        "macro_auroc_trained": _over_trained(data, scores, trained),
        "seeds": seeds,
        "notes": [*_protocol_notes(data, options), *result.notes(), *_training_notes(runs, untrained, options)],
    }, scores


def _probe_run(data: TaskData, fraction: float, options: EvalOptions, method: Method, seed: int) -> _Run:
    shape = data.test.labels.shape
    scores, decided = np.empty(shape), np.zeros(shape)
    cuts, n_train_pos, both, about, chosen = [], [], [], [], []
    for part in task_parts(data, options.folds, seed):
        train = part.train.take(sample_training(part.train.subjects, fraction, seed, options.sampling))
        probe = fit_probe(train, part.val, part.test, protocol=method, seed=seed)
        cuts.append(best_thresholds(part.val.labels, probe.val))
        # Where there is no threshold nothing is called, and the comparison with NaN is false.
        decided[part.positions] = probe.test >= np.array(cuts[-1], float)
        scores[part.positions] = log_likelihood_ratio(probe.test, train.labels) if options.folds else probe.test
        n_train_pos.append(train.labels.sum(axis=0, dtype=np.int64))
        both.append(train.labels.any(axis=0) & ~train.labels.all(axis=0))
        about.append({"n_train": len(train.labels), "n_train_patients": count_patients(train.subjects)})
        chosen.append(probe.chosen)
    thresholds = cuts[0]
    if options.folds:
        # A class without a positive in some choosing fold has no threshold there, so no F1 over all records.
        thresholds = [None if None in of_class else 0.5 for of_class in zip(*cuts, strict=True)]
    fewest, trained = np.min(n_train_pos, axis=0), np.all(both, axis=0)
    return _Run(scores, decided, thresholds, fewest, trained, {"seed": seed, **about[0]}, chosen)


def _over_trained(data: TaskData, scores: np.ndarray, trained: np.ndarray) -> dict[str, Any]:
    """Macro AUROC over the classes that a seed's training sample had both kinds of records of, mean over seeds."""
    values, counts = [], []
    for score, of_seed in zip(scores, trained, strict=True):
        one = aurocs(data.test.labels, score)[of_seed]
        one = one[np.isfinite(one)]
        counts.append(len(one))
        if len(one):
            values.append(float(one.mean()))
    return {"value": float(np.mean(values)) if values else None, "n_classes": counts}


def _protocol_notes(data: TaskData, options: EvalOptions) -> list[str]:
    if not options.folds:
        return [f"F1 and accuracy: thresholds of highest F1 on the {len(data.val.labels)} validation records"]
    return [
        f"{options.folds}-fold cross-validation by patient; folds are pooled as log likelihood ratios",
        "F1 and accuracy: thresholds of highest F1 on each fold's choosing fold",
    ]


def _training_notes(runs: list[_Run], untrained: list[str], options: EvalOptions) -> list[str]:
    notes = []
    if untrained and not options.folds:
        constant = all(np.ptp(run.scores[:, c]) == 0 for run in runs for c in np.flatnonzero(~run.trained))
        counted = "; their 0.5 is in macro_auroc, not in macro_auroc_trained" * constant
        notes.append(
            f"no training positives or no negatives (in at least one seed), {len(untrained)} classes: "
            f"{some(untrained)}{counted}"
        )
    every = [chosen for run in runs for chosen in run.chosen]
    if not all(chosen.get("converged", True) for chosen in every):
        notes.append("not all logistic regressions converged")
    if any(chosen.get("strength_at_limit") for chosen in every):
        notes.append(
            f"the chosen strength is the weakest of the grid ({STRENGTHS[-1]:g}): a weaker one might be better"
        )
    return notes
