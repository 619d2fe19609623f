"""A model on a task of a store, in one call: what ``deri zeroshot`` and ``deri probe`` compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deri.evaluation.features import Features, FeaturesAndMeasurements
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import probe_task
from deri.evaluation.zero_shot import zero_shot_task
from deri.models import EcgTextModel, load_model
from deri.progress import SILENT, Progress
from deri.store import Store


def zero_shot(
    model: EcgTextModel | str | Path,
    store: Store | str | Path,
    task: str,
    options: EvalOptions | None = None,
    *,
    prompts: str | Path | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Classify without training: the score of a class is the cosine of a recording and the class's texts.

    Args:
        model: a model, or a name as for ``from_pretrained``.
        store: a store, or its folder.
        task: of the store.
        options: which records are scored and how, see :class:`deri.evaluation.options.EvalOptions`.
        prompts: a file of class texts instead of the shipped ones.
        progress: told while recordings are embedded.

    Returns:
        The result that ``deri zeroshot`` writes as JSON: ``macro_auroc``, ``classes`` and what made them.

    Raises:
        DeriError: no such model, store or task, no records in the split, or a class without a text.
    """
    features, name = _features(Features, model, store, progress)
    return zero_shot_task(features, task, options, model_name=name, prompts=prompts)


def probe(
    model: EcgTextModel | str | Path,
    store: Store | str | Path,
    task: str,
    options: EvalOptions | None = None,
    *,
    measurements: bool = False,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train a linear layer on the embeddings of a frozen model, choose on validation, score on test.

    Args:
        model: see :func:`zero_shot`, as for the rest.
        store: with train, val and test records, unless ``options`` ask for folds.
        task: of the store.
        options: fractions of the training records, seeds, folds and protocol.
        measurements: measured intervals and amplitudes beside the embedding.
        progress: told while recordings are embedded.

    Returns:
        The result that ``deri probe`` writes as JSON.
    """
    features, name = _features(FeaturesAndMeasurements if measurements else Features, model, store, progress)
    return probe_task(features, task, options or EvalOptions(), model_name=name)


def _features(
    kind: type[Features], model: EcgTextModel | str | Path, store: Store | str | Path, progress: Progress
) -> tuple[Features, str | None]:
    """The embeddings of a store by a model, and the model's name where it has one."""
    loaded = model if isinstance(model, EcgTextModel) else load_model(str(model))
    return kind(loaded, Store.open(store), progress=progress), None if loaded is model else str(model)
