"""Linear probing: how much of a task a frozen encoder's embedding holds, as a linear layer finds it.

``corrected``: L2-regularised logistic regression to convergence on standardised features, its strength picked on
validation. ``published``: the papers' linear layer by AdamW (:mod:`deri.evaluation.sgd_probe`). docs/evaluation.md
states both in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from deri._version import __version__
from deri.errors import DeriError
from deri.evaluation.embed import Features, Show, encoder_digest
from deri.evaluation.logistic import fit_logistic
from deri.evaluation.metrics import MIN_POS, aurocs, best_threshold, score_runs
from deri.evaluation.result import macro_notes, result_json, some
from deri.evaluation.sgd_probe import fit_published
from deri.models import EcgTextModel
from deri.store import Store

Protocol = Literal["corrected", "published"]
Sampling = Literal["random", "patient"]

STRENGTHS = tuple(float(10 ** (k / 2)) for k in range(2, -11, -1))
"""Of the L2 penalty, 10 to 1e-5, strongest first, for the mean cross-entropy on standardised features."""

DEFAULT_SEED = 42


@dataclass(frozen=True)
class Split:
    """Features (n, d), labels (n, classes) and patients (n,) of one split of a task."""

    features: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray


@dataclass(frozen=True)
class TaskData:
    """A task with its features, ready for any number of probes."""

    classes: list[str]
    train: Split
    val: Split
    test: Split


@dataclass(frozen=True)
class Probe:
    """A trained probe's probabilities on validation and test, and what was chosen on validation."""

    val: np.ndarray  # (m, classes)
    test: np.ndarray  # (n, classes)
    chosen: dict[str, Any]


def sample_training(subjects: np.ndarray, percent: float, seed: int, sampling: Sampling = "random") -> np.ndarray:
    """Positions of ``percent`` % of the training records, ascending; at least one.

    Smaller samples of a seed lie within its larger ones. ``patient`` takes whole patients in random order until there
    are enough records; ``random`` takes records, as the papers do.
    """
    n = len(subjects)
    target = max(1, round(n * percent / 100))
    if target >= n:
        return np.arange(n)
    rng = np.random.default_rng(seed)
    if sampling == "random":
        return np.sort(rng.permutation(n)[:target])
    patients, patient = np.unique(np.asarray(subjects).astype(str), return_inverse=True)
    order = rng.permutation(len(patients))
    count = np.bincount(patient, minlength=len(patients))[order]
    taken = int(np.searchsorted(np.cumsum(count), target)) + 1
    return np.flatnonzero(np.isin(patient, order[:taken]))


def fit_probe(
    train: Split, val: Split, test: Split, *, protocol: Protocol = "corrected", seed: int = DEFAULT_SEED
) -> Probe:
    """Train one probe on ``train``, choose on ``val``, and give probabilities for ``val`` and ``test``."""
    if protocol == "published":
        fit = fit_published(train.features, train.labels, val.features, val.labels, seed=seed)
        weight, bias, chosen = fit.weight.astype(np.float64), fit.bias.astype(np.float64), {"epoch": fit.epoch}
    else:
        weight, bias, chosen = fit_corrected(train, val)
    val_logits, test_logits = (part.features @ weight.T + bias for part in (val, test))
    return Probe(_sigmoid(val_logits), _sigmoid(test_logits), chosen)


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


def probe_task(
    model: EcgTextModel,
    store: Store,
    task: str,
    *,
    model_name: str,
    fractions: Sequence[float] = (100.0,),
    protocol: Protocol = "corrected",
    sampling: Sampling = "random",
    seed: int = DEFAULT_SEED,
    seeds: int = 1,
    draws: int = 1000,
    min_pos: int = MIN_POS,
    features: Features | None = None,
    show: Show | None = None,
) -> dict[str, Any]:
    """Probe a model on a task of a store; returns the JSON result that ``deri probe`` writes.

    Trained on ``train``, chosen on ``val``, scored on ``test``. One fraction gives its figures at the top level;
    several give ``fractions``: {"1": {…}, "10": {…}}.

    Args:
        model: the frozen encoder, put in eval mode; that its weights and statistics did not move is checked.
        store: with the task and all three splits.
        task: its name.
        model_name: for the result.
        fractions: percentages of the training records, in (0, 100].
        protocol: ``corrected`` or ``published``.
        sampling: of a fraction, by record or by patient.
        seed: the first seed (of sampling, the published training, and the bootstrap).
        seeds: how many; figures are means over them.
        draws: bootstrap samples, 0 for no intervals.
        min_pos: classes with fewer test positives are marked.
        features: of this model and store, where they are used again for other tasks.
        show: receives (recordings embedded, recordings in all).
    """
    for fraction in fractions:
        if not 0 < fraction <= 100:
            raise DeriError(f"--fraction {fraction:g}: percentages of the training records lie in (0, 100]")
    features = features or Features(model, store)
    before = encoder_digest(model)
    data = load_task(features, task, show)
    after = encoder_digest(model)
    if before != after:
        raise RuntimeError(f"embedding {store.path} changed the weights or statistics of the frozen encoder")
    per_fraction = {
        f"{fraction:g}": probe_fraction(
            data,
            fraction,
            protocol=protocol,
            sampling=sampling,
            seed=seed,
            seeds=seeds,
            draws=draws,
            min_pos=min_pos,
        )
        for fraction in fractions
    }
    about = {
        "task": task,
        "model": model_name,
        "split": "test",
        "n": len(data.test.labels),
        "n_patients": _count(data.test.subjects),
        "n_val": len(data.val.labels),
        "protocol": protocol,
        "sampling": sampling,
        "seed": seed,
    }
    made_by = {
        "deri_version": __version__,
        "recipe": model.recipe_name,
        "store": store.provenance,
        "encoder": {"mode": "eval", "features": "inference embedding, not normalised", "weights_sha256": after},
    }
    if len(per_fraction) == 1:
        return about | next(iter(per_fraction.values())) | made_by
    return about | {"fractions": per_fraction} | made_by


def load_task(features: Features, task: str, show: Show | None = None) -> TaskData:
    """Features and labels of the three splits of a task; an empty one is an error."""
    store = features.store
    rows = {split: store.task_rows(task, split) for split in ("train", "val", "test")}
    for split, those in rows.items():
        if not len(those):
            why = {"train": "to train on", "val": "to choose strength, epoch and thresholds on", "test": "to score"}
            raise DeriError(
                f"task {task}: {store.path} has no {split} records {why[split]}; see deri info {store.path}, "
                "and prepare it with a split"
            )
    subjects = store.index["subject_id"].to_numpy().astype(str)
    features.rows(np.concatenate(list(rows.values())), show)
    parts = {
        split: Split(features.rows(those), store.labels(task, those)[1], subjects[those])
        for split, those in rows.items()
    }
    return TaskData(store.tasks[task], parts["train"], parts["val"], parts["test"])


def probe_fraction(
    data: TaskData,
    fraction: float,
    *,
    protocol: Protocol = "corrected",
    sampling: Sampling = "random",
    seed: int = DEFAULT_SEED,
    seeds: int = 1,
    draws: int = 1000,
    min_pos: int = MIN_POS,
) -> dict[str, Any]:
    """The figures of one cell of the table: probes of ``seeds`` samples of the training records, scored on test.

    Arguments as for :func:`probe_task`; returns the part of the result that depends on the fraction.
    """
    names, probes, entries, n_train_pos = data.classes, [], [], []
    for one in range(seed, seed + seeds):
        kept = sample_training(data.train.subjects, fraction, one, sampling)
        train = Split(data.train.features[kept], data.train.labels[kept], data.train.subjects[kept])
        probe = fit_probe(train, data.val, data.test, protocol=protocol, seed=one)
        probes.append(probe)
        n_train_pos.append(train.labels.sum(axis=0, dtype=np.int64))
        entries.append({"seed": one, "n_train": len(kept), "n_train_patients": _count(train.subjects)} | probe.chosen)
    thresholds = [
        [best_threshold(data.val.labels[:, c], probe.val[:, c]) for c in range(len(names))] for probe in probes
    ]
    scores = score_runs(
        names,
        data.test.labels,
        np.stack([probe.test for probe in probes]),
        data.test.subjects,
        thresholds=thresholds,
        draws=draws,
        seed=seed,
        min_pos=min_pos,
        probabilities=True,
    )
    for entry, value, cuts in zip(entries, scores.runs, thresholds, strict=True):
        entry |= {"macro_auroc": value, "thresholds": dict(zip(names, cuts, strict=True))}
    known = [value for value in scores.runs if value is not None]
    content = result_json(scores)
    for c, name in enumerate(names):
        content["classes"][name]["n_train_pos"] = [int(counts[c]) for counts in n_train_pos]
    content["macro_auroc_trained"] = _over_trained(data, probes, n_train_pos)
    content["macro_auroc"]["sd_over_seeds"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    notes = [
        f"F1 and accuracy: thresholds of highest F1 on the {len(data.val.labels)} validation records",
        *macro_notes(scores),
    ]
    unseen = [name for c, name in enumerate(names) if any(counts[c] == 0 for counts in n_train_pos)]
    if unseen:
        counted = "; their 0.5 is in macro_auroc, not in macro_auroc_trained" * (protocol == "corrected")
        notes.append(f"no training positives (in at least one seed), {len(unseen)} classes: {some(unseen)}{counted}")
    if not all(entry.get("converged", True) for entry in entries):
        notes.append("not all logistic regressions converged")
    if any(entry.get("strength_at_limit") for entry in entries):
        notes.append(
            f"the chosen strength is the weakest of the grid ({STRENGTHS[-1]:g}): a weaker one might be better"
        )
    first = entries[0]
    shared = {"fraction": fraction, "n_train": first["n_train"], "n_train_patients": first["n_train_patients"]}
    return shared | content | {"seeds": entries, "notes": notes}


def _over_trained(data: TaskData, probes: list[Probe], n_train_pos: list[np.ndarray]) -> dict[str, Any]:
    """Macro AUROC over the classes that a seed's training sample had positives of, mean over seeds."""
    values, counts = [], []
    for probe, n_pos in zip(probes, n_train_pos, strict=True):
        one = aurocs(data.test.labels, probe.test)[n_pos > 0]
        one = one[np.isfinite(one)]
        counts.append(len(one))
        if len(one):
            values.append(float(one.mean()))
    return {"value": float(np.mean(values)) if values else None, "n_classes": counts}


def _count(subjects: np.ndarray) -> int:
    return len(np.unique(np.asarray(subjects).astype(str)))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(logits)
