"""Recipes: typed, frozen configurations of a pre-training run, shipped as YAML."""

from deri.recipes.load import load_recipe, parse_overrides, recipe_names
from deri.recipes.schema import Model, Objective, Recipe, Signal, Text, Train

__all__ = [
    "Model",
    "Objective",
    "Recipe",
    "Signal",
    "Text",
    "Train",
    "load_recipe",
    "parse_overrides",
    "recipe_names",
]
