"""The text encoder: a BERT-like model of a hub, a directory or a package, frozen or partly trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deri.errors import DeriError, install
from deri.models.device import to_device
from deri.models.hub import load_pretrained, warn_of_folder
from deri.models.layers import masked_mean
from deri.models.output import TextFeatures
from deri.recipes import schema
from deri.registry import Registry


class TextEncoder(nn.Module):
    """A Hugging Face encoder with its tokenizer, pooling and freezing rule.

    Args:
        model: the encoder; its output has ``last_hidden_state`` (B, T, w).
        config: pooling, length and training switches.
        tokenizer: a Hugging Face tokenizer, or where to load one from when it is first needed.

    A text longer than the encoder's limit is read in windows of that limit whose hidden states are concatenated;
    ``cls`` and ``pooler`` take the first window, ``mean`` the mean over all real tokens.
    """

    def __init__(self, model: nn.Module, config: schema.Text, tokenizer: Any = None) -> None:
        super().__init__()
        self.model = model
        self._describe(model.config, config, tokenizer)
        if config.pooling == "pooler" and getattr(model, "pooler", None) is None:
            raise DeriError(
                f"text encoder {config.encoder}: pooling 'pooler' needs a pooling layer, which this model lacks; "
                "set model.text.pooling=cls or mean"
            )
        self._freeze()

    def _describe(self, architecture: Any, config: schema.Text, tokenizer: Any) -> None:
        self.config = config
        self._tokenizer = config.encoder if tokenizer is None else tokenizer
        self._fingerprint: str | None = None
        self.width = int(architecture.hidden_size)
        self.limit = int(getattr(architecture, "max_position_embeddings", 512))
        if getattr(architecture, "model_type", "") in ("roberta", "xlm-roberta", "camembert"):
            self.limit -= 2  # their positions start behind the padding index

    def _freeze(self) -> None:
        k = self.config.train_layers
        self.model.requires_grad_(k < 0)
        if k <= 0:
            return
        layers = _layers(self.model)
        if layers is None or k > len(layers):
            have = "no list of layers that deri knows" if layers is None else f"{len(layers)} layers"
            raise DeriError(f"model.text.train_layers={k}: text encoder {self.config.encoder} has {have}")
        layers[-k:].requires_grad_(True)
        if self.config.pooling == "pooler":
            self.model.pooler.requires_grad_(True)  # type: ignore[union-attr]

    @property
    def trained(self) -> bool:
        """Whether any of its weights are trained."""
        return self.config.train_layers != 0

    def train(self, mode: bool = True) -> TextEncoder:
        """Keep a frozen encoder in eval mode: dropout noise in it would be noise in the targets."""
        return super().train(mode and (self.trained or self.config.frozen_dropout))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, loaded when first needed."""
        if isinstance(self._tokenizer, str | Path):
            self._tokenizer = load_tokenizer(str(self._tokenizer))
        return self._tokenizer

    @property
    def fingerprint(self) -> str:
        """Identity of what :meth:`encode` computes: weights, architecture, vocabulary, pooling and length limit."""
        if self._fingerprint is None or self.trained:
            digest = hashlib.sha256()
            identity = [self.config.pooling, self.config.max_tokens, self.config.pad_to_max, self.limit]
            vocabulary = hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()
            digest.update(json.dumps([*identity, vocabulary]).encode())
            for name, value in sorted(self.model.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def architecture(self) -> dict[str, Any] | None:
        """What transformers needs to build it anew; None where only the row of ``TEXT_ENCODERS`` can."""
        from transformers import CONFIG_MAPPING

        config: Any = self.model.config
        if getattr(config, "model_type", None) in CONFIG_MAPPING:
            return dict(json.loads(config.to_json_string(use_diff=False)))
        if self.config.encoder in TEXT_ENCODERS:
            return None
        raise DeriError(
            f"text encoder {self.config.encoder} is no model of transformers and cannot be saved by itself; register "
            "it (deri.models.text.TEXT_ENCODERS) under that name"
        )

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, (B, T) int64 each, padded to the longest text (or to ``max_tokens`` where so set)."""
        tokenizer = self.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        batch = tokenizer(
            list(texts),
            padding="max_length" if self.config.pad_to_max else True,
            truncation=self.config.max_tokens is not None,
            max_length=self.config.max_tokens,
            return_tensors="pt",
            verbose=False,
        )
        return batch["input_ids"], batch["attention_mask"]

    def read(self, texts: Sequence[str], *, padding_counts: bool = False) -> TextFeatures:
        """Features of texts, on the encoder's device, padded as :meth:`tokenize` does.

        ``padding_counts``: states over the padding are used, and must be those that the encoder makes there.
        """
        features: TextFeatures = self(*to_device(self.tokenize(texts), next(self.model.parameters()).device))
        return features

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextFeatures:
        """input_ids, attention_mask: (B, T) → pooled (B, w), tokens (B, T, w), mask (B, T)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained):
            tokens, pooled = self._windows(input_ids, attention_mask)
            mask = attention_mask.bool()
            if self.config.pooling == "mean":
                pooled = masked_mean(tokens, mask)
            elif self.config.pooling == "cls":
                pooled = tokens[:, 0]
        return TextFeatures(pooled=pooled, tokens=tokens, mask=mask)

    def _windows(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        first = self.model(input_ids=ids[:, : self.limit], attention_mask=mask[:, : self.limit])
        pooled = first.pooler_output if self.config.pooling == "pooler" else first.last_hidden_state[:, 0]
        hidden = [first.last_hidden_state]
        for start in range(self.limit, ids.shape[1], self.limit):
            part = slice(start, start + self.limit)
            rows = mask[:, part].any(dim=1)
            out = hidden[0].new_zeros(ids.shape[0], ids[:, part].shape[1], self.width)
            if rows.any():  # a row without real tokens has no keys to attend to
                window = self.model(input_ids=ids[rows, part], attention_mask=mask[rows, part])
                out = out.index_put((rows.nonzero()[:, 0],), window.last_hidden_state.to(out.dtype))
            hidden.append(out)
        return torch.cat(hidden, dim=1), pooled

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 64) -> list[tuple[np.ndarray, np.ndarray]]:
        """Features without padding: per text (tokens (T, w), pooled (w,)), float32, in the order given.

        Texts of similar length share a batch, so that little is computed on padding.
        """
        was_training = self.training
        self.eval()
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        result: list[Any] = [None] * len(texts)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            features = self.read([texts[i] for i in rows])
            tokens = features.tokens.float().cpu().numpy()
            pooled = features.pooled.float().cpu().numpy()
            # With padding switched on, the reference decoder reads the padded states too.
            mask = features.mask.cpu().numpy()
            keep = np.ones_like(mask) if self.config.pad_to_max else mask
            for j, i in enumerate(rows):
                result[i] = (tokens[j][keep[j]], pooled[j].copy())
        self.train(was_training)
        return result


@dataclass(frozen=True)
class Pretrained:
    """A text encoder that transformers loads.

    Attributes:
        hub_id: on the model hub.
        directory: gives the directory of one that a package installs, instead. A model names it instead of holding it.
    """

    hub_id: str = ""
    directory: Callable[[], Path] | None = None

    @property
    def source(self) -> str:
        """Directory or hub id."""
        return str(self.directory()) if self.directory else self.hub_id

    def __call__(self, config: schema.Text) -> TextEncoder:
        """The encoder."""
        return self.load(config)

    def load(self, config: schema.Text) -> TextEncoder:
        """Load it."""
        from transformers import AutoModel

        return TextEncoder(load_of_encoder(self.source, AutoModel), config)


TEXT_ENCODERS: Registry[Callable[[schema.Text], TextEncoder]] = Registry(
    "text encoder",
    "deri.text_encoders",
    {"medcpt": Pretrained("ncbi/MedCPT-Query-Encoder"), "minilm": "deri.models.installed_text:MINILM"},
)
"""Encoders by name. A row makes one from the text section of a recipe; other names are hub ids or directories.

The module that a row wraps needs ``config.hidden_size``, and an output with ``last_hidden_state``; the tokenizer is
called as those of transformers are.
"""


def build_text_encoder(config: schema.Text) -> TextEncoder:
    """Load the encoder that a recipe names: one of ``TEXT_ENCODERS``, a hub id or a directory."""
    row = TEXT_ENCODERS.get(config.encoder)
    if row is None:
        return Pretrained(config.encoder)(config)
    warn_of_folder("text encoder", config.encoder)
    return row(config)


def portable_name(encoder: str) -> str:
    """``encoder`` as in a recipe, but of a directory its last part alone, which says nothing about this machine."""
    path = Path(encoder).expanduser()
    return path.resolve().name if encoder not in TEXT_ENCODERS and path.is_dir() else encoder


def is_installed(encoder: str) -> bool:
    """Whether a package installs the encoder of this name, so that a model need not hold its weights."""
    row = TEXT_ENCODERS.get(encoder)
    return isinstance(row, Pretrained) and row.directory is not None


def source_of(encoder: str) -> str:
    """The directory or hub id of a text encoder named as in a recipe."""
    row = TEXT_ENCODERS.get(encoder)
    if row is None:
        return encoder
    if not isinstance(row, Pretrained):
        raise DeriError(f"text encoder {encoder} has no files of its own here; name a hub id or a directory")
    warn_of_folder("text encoder", encoder)
    return row.source


def load_tokenizer(encoder: str) -> Any:
    """The tokenizer of a text encoder named as in a recipe."""
    from transformers import AutoTokenizer

    return load_of_encoder(source_of(encoder), AutoTokenizer, weights=False)


def load_of_encoder(source: str, auto_class: Any, *, weights: bool = True) -> Any:
    """What a class of transformers makes of a text encoder's directory or hub id, see :func:`load_pretrained`."""
    cure = (
        f"offline choices: model.text.encoder=minilm model.text.pooling=mean ({install('offline')}), or "
        "model.text.encoder=DIR with a saved transformers model"
    )
    return load_pretrained("text encoder", source, auto_class, cure, weights=weights)


def _layers(model: nn.Module) -> nn.ModuleList | None:
    for path in ("encoder.layer", "encoder.layers", "transformer.layer", "layers", "h"):
        node: Any = model
        for part in path.split("."):
            node = getattr(node, part, None)
        if isinstance(node, nn.ModuleList):
            return node
    return None
