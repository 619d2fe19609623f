"""A text encoder that a package installs, and what it makes of the prompts of this package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import RLock
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from deri.errors import DeriError
from deri.models.device import to_device
from deri.models.output import TextFeatures
from deri.models.tensors import load_tensors, save_tensors
from deri.models.text import TextEncoder, build_text_encoder
from deri.recipes import schema
from deri.reports.prompts import LABELS, TASKS, load_prompts

KNOWN_TEXTS = Path(__file__).parent / "pretrained" / "known_texts.safetensors"
_LOADING = RLock()


class InstalledTextEncoder(TextEncoder):
    """The frozen encoder of a package, which a saved model names: it is loaded when the first text is read.

    Embedding ECGs needs none, and transformers takes longer to import than a recording to read. The features of the
    package's own prompts lie in a file beside the built-in models (tools/known_texts.py): these need none either.

    Args:
        config: pooling, length and switches.
        architecture: what the directory says of the encoder (hidden size, longest text).
        fingerprint: of the encoder that the model was trained with.
        where: names the model in messages.
    """

    _place: Tensor

    def __init__(self, config: schema.Text, architecture: dict[str, Any], fingerprint: str, where: str) -> None:
        nn.Module.__init__(self)
        self._describe(SimpleNamespace(**architecture), config, None)
        self._fingerprint, self._architecture, self._where = fingerprint, architecture, where
        self.register_buffer("_place", torch.zeros(1), persistent=False)  # goes along to a device or number format

    def __getattr__(self, name: str) -> Any:
        if name == "model" and "_architecture" in self.__dict__:
            with _LOADING:
                if "model" not in self._modules:
                    self._load()
            return self._modules["model"]
        return super().__getattr__(name)

    def _load(self) -> None:
        # Its weights are those of the package: no draw may move others, and training may follow an inference.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            loaded = build_text_encoder(self.config)
            if loaded.fingerprint != self._fingerprint:
                raise DeriError(
                    f"{self._where}: was trained with another version of text encoder {self.config.encoder!r} than is "
                    "installed; install the version that requirements of its deri version name"
                )
            self._tokenizer = loaded.tokenizer
            self.model = loaded.model.to(self._place).train(self.training)

    def read(self, texts: Sequence[str]) -> TextFeatures:
        """See :meth:`TextEncoder.read`; where all texts are known they are not computed, but for rounding the same."""
        known = {} if self.training else known_texts(self.fingerprint)
        if not texts or any(text not in known for text in texts):
            return super().read(texts)
        tokens, pooled = zip(*(known[text] for text in texts), strict=True)
        mask = torch.arange(max(map(len, tokens))) < torch.tensor([[len(one)] for one in tokens])
        padded = nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
        features = TextFeatures(pooled=torch.stack(pooled), tokens=padded, mask=mask)
        return to_device(features, self._place.device)

    def architecture(self) -> dict[str, Any] | None:
        """See :meth:`TextEncoder.architecture`."""
        return dict(self._architecture)


@cache
def known_texts(fingerprint: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Token features (T, w) and pooled feature (w,) of the package's prompts by an encoder; empty for another one."""
    if not KNOWN_TEXTS.is_file():
        return {}
    tensors, about = load_tensors(KNOWN_TEXTS, "install deri again")
    if about["fingerprint"] != fingerprint:
        return {}
    tokens = tensors["tokens"].split(tensors["lengths"].tolist())
    return dict(zip(json.loads(about["texts"]), zip(tokens, tensors["pooled"], strict=True), strict=True))


def save_known_texts(encoder: TextEncoder, path: Path = KNOWN_TEXTS) -> None:
    """Write the features of all prompts of the package by ``encoder``, each computed alone."""
    texts = package_prompts()
    tokens, pooled = zip(*(encoder.encode([text])[0] for text in texts), strict=True)
    tensors = {
        "tokens": torch.cat([torch.from_numpy(one) for one in tokens]),
        "lengths": torch.tensor([len(one) for one in tokens]),
        "pooled": torch.stack([torch.from_numpy(one) for one in pooled]),
    }
    save_tensors(path, tensors, {"fingerprint": encoder.fingerprint, "texts": json.dumps(texts)})


def package_prompts() -> list[str]:
    """All texts that the package asks with, of all tasks, sorted."""
    return sorted({text for task in (*TASKS, LABELS) for texts in load_prompts(task).values() for text in texts})
