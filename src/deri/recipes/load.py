"""Reading recipes: a shipped name or a YAML file, then ``a.b=c`` overrides."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from deri.errors import DeriError
from deri.files import parse_yaml, read_yaml
from deri.recipes.schema import Recipe

_FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(name_or_path: str = "deri", overrides: Iterable[str] = ()) -> Recipe:
    """Load a shipped recipe or a YAML file and apply overrides such as ``train.lr=3e-4``.

    A file may start from another recipe with ``base: NAME``. Raises :class:`DeriError` for an unknown recipe, an
    unknown key (with the nearest known one) or a value out of range.
    """
    content = _merge(_read(name_or_path), parse_overrides(overrides))
    return build_recipe(content, str(name_or_path))


def build_recipe(content: Mapping[str, Any], source: str) -> Recipe:
    """Validate ``content`` as a recipe; ``source`` names it in an error."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise DeriError(f"recipe {source}: {explain(error, Recipe)}") from None


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """``["train.lr=3e-4"]`` → ``{"train": {"lr": 3e-4}}``; values are read as YAML."""
    result: dict[str, Any] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        parts = key.strip().split(".")
        if not separator or not all(parts):
            raise DeriError(f"override {override!r} is not of the form KEY=VALUE, e.g. train.epochs=10")
        try:
            parsed = _numbers(parse_yaml(value)) if value.strip() else ""
        except yaml.YAMLError:
            raise DeriError(f"override {override!r}: the value is not valid YAML; quote it if it is a text") from None
        node: Any = {parts[-1]: parsed}
        for part in reversed(parts[:-1]):
            node = {part: node}
        result = _merge(result, node)
    return result


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error in one sentence, with the nearest known key for an unknown one."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    more = "" if error.error_count() == 1 else f" (and {error.error_count() - 1} more)"
    if problem["type"] == "extra_forbidden":
        known = sorted(_keys(model))
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        siblings = [k for k in known if k.rpartition(".")[0] == key.rpartition(".")[0]]
        hint = f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(siblings)}"
        return f"unknown key {key!r}; {hint}{more}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{key or 'content'}: {message}, got {problem['input']!r}{more}" if key else f"{message}{more}"


def _read(name_or_path: str) -> dict[str, Any]:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise DeriError(f"recipe file {path} does not exist; shipped recipes: {', '.join(recipe_names())}")
    elif name_or_path in recipe_names():
        path = _FOLDER / f"{name_or_path}.yaml"
    else:
        raise DeriError(
            f"unknown recipe {name_or_path!r}: give one of {', '.join(recipe_names())}, or a .yaml file of your own"
        )
    content = read_yaml(path, "recipe")
    if not isinstance(content, dict):
        raise DeriError(f"recipe {name_or_path} must be a mapping with the keys {', '.join(Recipe.model_fields)}")
    content = _numbers(content)
    base = content.pop("base", None)
    return _merge(_read(str(base)), content) if base else content


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _numbers(value: Any) -> Any:
    # YAML 1.1 reads 1e-3 (no dot) as a text; nobody who writes it means one.
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
