from __future__ import annotations

from pathlib import Path

import pytest

from deri.errors import DeriError
from deri.recipes import Model, Recipe, Text, load_recipe, parse_overrides, recipe_names


def test_shipped_recipes_are_those_of_the_docs_and_all_load() -> None:
    assert recipe_names() == ["demo", "deri", "deri-open", "deri-paper", "deri-reference", "deri-sim", "merl"]
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_the_default_is_the_corrected_method() -> None:
    assert load_recipe() == Recipe()


def test_reference_has_every_released_flaw_switched_on() -> None:
    r = load_recipe("deri-reference")
    assert (r.model.text.frozen_dropout, r.model.text.pad_to_max, r.model.mask_padding) == (True, True, False)
    assert r.model.init == load_recipe("merl").model.init == "released"
    assert (r.model.views.order, r.model.views.mask_ratio) == ("shuffled", 0.1)
    assert (r.model.inference.normalise_tokens, r.model.inference.text) == (False, "aligned")
    assert (r.objective.text_reconstruction, r.objective.duplicates) == (0.0, "negative")
    assert (r.train.shuffle, r.train.schedule, r.train.weight_decay, r.train.seed) == ("once", "restarts", 1e-8, 42)
    assert (r.model.signal.normalise, r.model.signal.lead_order) == ("minmax", "mimic")
    paper = load_recipe("deri-paper")
    assert paper.objective.text_reconstruction == 1.0
    assert paper.model == r.model
    assert paper.train == r.train


def test_files_with_a_base_and_overrides_on_top(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: deri-reference\nname: mine\ntrain: {lr: 5e-4}\n")
    recipe = load_recipe(str(path), ["train.epochs=3", "model.text.encoder=minilm"])
    assert (recipe.name, recipe.train.lr, recipe.train.epochs) == ("mine", 5e-4, 3)
    assert recipe.model.text.encoder == "minilm"
    assert recipe.objective == load_recipe("deri-reference").objective


def test_overrides_are_read_as_yaml() -> None:
    assert parse_overrides(["a.b=1", "a.c=true", "a.d=1e-3", "e=null", "f=text", "g="]) == {
        "a": {"b": 1, "c": True, "d": 1e-3},
        "e": None,
        "f": "text",
        "g": "",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=1", "did you mean 'train.epochs'"),
        ("modle.dim=1", "did you mean"),
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=many", "train.epochs"),
        ("model.heads=3", "not divisible"),
        ("model.text.pad_to_max=true", "max_tokens"),
        ("=1", "KEY=VALUE"),
        ("a..b=1", "KEY=VALUE"),
        ("train.lr=[1", "YAML"),
    ],
)
def test_bad_overrides_are_refused_with_a_cure(override: str, message: str) -> None:
    with pytest.raises(DeriError, match=message) as error:
        load_recipe("deri", [override])
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", "unknown_section: 1\n", "base: nothing\n"])
def test_bad_files(content: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(DeriError):
        load_recipe(str(path))
    with pytest.raises(DeriError, match="does not exist"):
        load_recipe(str(tmp_path / "none.yaml"))


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Model().dim = 3  # type: ignore[misc]


def test_features_are_cached_only_where_they_cannot_change() -> None:
    assert Text().cacheable
    assert not Text(train_layers=1).cacheable
    assert not Text(frozen_dropout=True).cacheable
