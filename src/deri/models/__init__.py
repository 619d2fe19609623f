"""Models: backbones, text encoder, token attention, cross-modal decoders, DERI and MERL."""

from deri.models.base import EcgTextModel
from deri.models.build import build_model, load_model
from deri.models.checkpoint import import_checkpoint
from deri.models.deri import DERI
from deri.models.merl import MERL
from deri.models.output import Output, TextFeatures
from deri.models.text import TextEncoder, build_text_encoder

__all__ = [
    "DERI",
    "MERL",
    "EcgTextModel",
    "Output",
    "TextEncoder",
    "TextFeatures",
    "build_model",
    "build_text_encoder",
    "import_checkpoint",
    "load_model",
]
