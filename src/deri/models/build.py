"""From a recipe to a model."""

from __future__ import annotations

import torch

from deri.models.base import EcgTextModel
from deri.models.deri import DERI
from deri.models.merl import MERL
from deri.models.text import TextEncoder, build_text_encoder
from deri.recipes import schema

FAMILIES: dict[str, type[EcgTextModel]] = {"deri": DERI, "merl": MERL}


def build_model(config: schema.Model, *, seed: int = 0, text_encoder: TextEncoder | None = None) -> EcgTextModel:
    """A model with random weights outside its text encoder; the same seed gives the same weights.

    ``text_encoder`` is loaded as the recipe says when not given. Torch's global generator is left as it was.
    """
    text_encoder = text_encoder or build_text_encoder(config.text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[config.family](config, text_encoder)
