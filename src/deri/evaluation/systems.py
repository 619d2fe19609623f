"""What a benchmark is made of: its options, the tasks of its stores, and the systems that are its rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from deri.errors import DeriError
from deri.evaluation import classical
from deri.evaluation.embed import Show, embed_store, encoder_digest
from deri.evaluation.metrics import MIN_POS
from deri.evaluation.probe import DEFAULT_SEED, Protocol, Sampling
from deri.models import EcgTextModel, build_model
from deri.store import Store

Kind = Literal["model", "random", "classical"]


@dataclass(frozen=True)
class Options:
    """What is computed of every model and task.

    ``fractions``: percent of the training records; ``seeds``: how many, from ``seed`` on; ``draws``: of the bootstrap;
    ``min_pos``: classes with fewer positives are marked; ``folds``: 0 for the splits of the stores, else that many
    folds by patient, over all records.
    """

    fractions: tuple[float, ...] = (1.0, 10.0, 100.0)
    protocol: Protocol = "corrected"
    sampling: Sampling = "random"
    seed: int = DEFAULT_SEED
    seeds: int = 1
    draws: int = 1000
    min_pos: int = MIN_POS
    folds: int = 0

    @property
    def split(self) -> str:
        """Which records are scored: test, or with folds all."""
        return "all" if self.folds else "test"


@dataclass(frozen=True)
class Task:
    """A task of a store; ``label`` is its name, with the store's where several stores have it."""

    store: Store
    name: str
    label: str

    @property
    def classes(self) -> list[str]:
        """Names of its classes."""
        return self.store.tasks[self.name]


@dataclass
class System:
    """A row of the benchmark: a model, the same network with random weights, or the classical features."""

    name: str
    kind: Kind
    digest: str
    recipe: str | None = None
    model: EcgTextModel | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Number of features."""
        return len(classical.FEATURE_NAMES) if self.model is None else self.model.config.dim

    def features(self, store: Store, rows: np.ndarray, show: Show | None = None) -> np.ndarray:
        """Features (n, d) float32 that probes are trained on."""
        if self.model is None:
            return classical.extract_features(store, rows, show)
        return embed_store(self.model, store, rows, normalise=False, show=show)


def model_system(model: EcgTextModel, name: str) -> System:
    """The row of a model."""
    return System(name, "model", encoder_digest(model), model.recipe_name, model, _architecture(model))


def random_system(model: EcgTextModel, *, seed: int = 0) -> System:
    """The row of the same network with random weights; the text encoder, which is not under test, is the model's."""
    random = build_model(model.config, seed=seed, text_encoder=model.text_encoder).to(model.device).eval()
    random.recipe_name = model.recipe_name
    about = _architecture(random)
    name = f"random {about['family']} {about['backbone']}, width {about['dim']}"
    return System(name, "random", encoder_digest(random), model.recipe_name, random, about | {"seed": seed})


def classical_system() -> System:
    """The row of gradient boosting on intervals and amplitudes."""
    about = {"features": len(classical.FEATURE_NAMES), "boosting": asdict(classical.Boosting())}
    return System("gradient boosting on intervals", "classical", f"classical-{classical.VERSION}", about=about)


def _architecture(model: EcgTextModel) -> dict[str, Any]:
    config = model.config
    return {"family": config.family, "backbone": config.backbone, "dim": config.dim}


def lacking_splits(task: Task, *, training: bool, folds: int = 0) -> str | None:
    """Why a cell cannot be: which splits of the task hold no records; None where all that are needed do."""
    if folds:
        subjects = task.store.index["subject_id"].to_numpy().astype(str)[task.store.task_rows(task.name)]
        patients = len(np.unique(subjects))
        enough = patients >= (folds if training else 1)
        return None if enough else f"{patients} patients in {task.store.path}, too few for {folds} folds"
    needed = ("train", "val", "test") if training else ("test",)
    empty = [split for split in needed if not len(task.store.task_rows(task.name, split))]
    return f"no {' and no '.join(empty)} records in {task.store.path}" if empty else None


def choose_tasks(stores: list[Store], wanted: list[str] | None) -> list[Task]:
    """The tasks of the stores, or those of them that are ``wanted`` (by name or by STORE/TASK).

    Raises:
        DeriError: no store has a wanted task, or there are two stores of the same name with the same task.
    """
    names = [name for store in stores for name in store.tasks]
    tasks = [
        Task(store, name, name if names.count(name) == 1 else f"{store.path.resolve().name}/{name}")
        for store in stores
        for name in store.tasks
    ]
    labels = [task.label for task in tasks]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise DeriError(f"--data: two stores of the same folder name have the task {twice[0]}; rename one of them")
    for one in wanted or []:
        if one not in labels and one not in names:
            raise DeriError(f"--tasks {one}: no such task in the stores given; there are {', '.join(labels) or 'none'}")
    return [task for task in tasks if not wanted or task.label in wanted or task.name in wanted]
