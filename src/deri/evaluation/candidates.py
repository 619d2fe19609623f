"""The rows of a benchmark: models, the same networks with random weights, and boosting on intervals and amplitudes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

from deri.ecg import measure
from deri.errors import DeriError
from deri.evaluation import classical
from deri.evaluation.features import model_identity
from deri.evaluation.probe import Method
from deri.models import EcgTextModel, build_model, load_model

Kind = Literal["model", "random", "classical"]


@dataclass(frozen=True)
class Candidate:
    """A row of the benchmark.

    ``digest`` stands for its weights, ``identity`` holds all of it that decides its scores, and ``about`` is what the
    results say of it.
    """

    name: str
    kind: Kind
    digest: str
    identity: dict[str, Any]
    model: EcgTextModel | None
    about: dict[str, Any]

    @property
    def method(self) -> Method | None:
        """How its probes are trained; None for that of the protocol."""
        return "boosting" if self.kind == "classical" else None

    @property
    def recipe(self) -> str | None:
        """Of the model."""
        return None if self.model is None else self.model.recipe_name


def model_candidate(model: EcgTextModel, name: str | None = None, kind: Kind = "model", **more: Any) -> Candidate:
    """The row of a model, named by its architecture where it has no name; ``more`` is what else the results say."""
    config = model.config
    about = {"family": config.family, "backbone": config.backbone, "dim": config.dim} | more
    name = name or f"{kind} {config.family} {config.backbone}, width {config.dim}"
    identity = model_identity(model)
    return Candidate(name, kind, identity["weights"], identity, model, about)


def random_candidate(model: EcgTextModel, *, seed: int = 0) -> Candidate:
    """The row of the same network with random weights; the text encoder, which is not under test, is the model's."""
    random = build_model(model.config, seed=seed, text_encoder=model.text_encoder).to(model.device).eval()
    random.recipe_name = model.recipe_name
    return model_candidate(random, kind="random", seed=seed)


def classical_candidate() -> Candidate:
    """The row of gradient boosting on intervals and amplitudes."""
    about = {"features": len(measure.FEATURE_NAMES), "boosting": dict(classical.BOOSTING)}
    digest = f"classical-{measure.VERSION}"
    identity = {"digest": digest, "scikit-learn": version("scikit-learn")} | about
    return Candidate("gradient boosting on intervals", "classical", digest, identity, None, about)


def candidates(models: Sequence[str], device: str | None) -> Iterator[Candidate]:
    """The rows one after the other, so that one trained model and one random are in memory at a time.

    Args:
        models: as :func:`deri.models.load_model` takes them, or ``NAME=MODEL``.
        device: of the models.
    """
    seen: list[dict[str, Any]] = []
    names = _names(models)
    taken = set(names)
    for name, target in names.items():
        model = load_model(target, device=device)
        own = model_candidate(model, name)
        yield own
        random = random_candidate(model)
        if random.identity == own.identity:  # a random: model was asked for
            seen.append(own.identity)
        if random.identity not in seen:
            seen.append(random.identity)
            if random.name in taken:  # the same architecture, configured differently
                random = replace(random, name=f"{random.name}, configured as {name}")
            taken.add(random.name)
            yield random
    yield classical_candidate()


def _names(models: Sequence[str]) -> dict[str, str]:
    """Name in the tables → what to load."""
    names: dict[str, str] = {}
    for model in models:
        name, separator, target = model.partition("=")
        if not separator or "/" in name:
            name = target = model
        if name in names:
            raise DeriError(f"--model {model}: two models are called {name}; name one of them: --model OTHER={target}")
        names[name] = target
    if not names:
        raise DeriError("--model: name at least one model")
    return names
