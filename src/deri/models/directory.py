"""The model directory: ``config.json``, ``model.safetensors``, tokenizer, ``preprocessing.json``, ``README.md``.

Nothing is pickled. The text encoder's weights are in ``model.safetensors`` as well, so that a directory needs no hub;
only the unmodified encoder of the ``offline`` package is named instead, and its fingerprint checked on loading.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from deri._version import __version__
from deri.ecg.leads import LEADS
from deri.errors import DeriError
from deri.files import atomic_path, write_json, write_text
from deri.models.base import EcgTextModel
from deri.models.build import FAMILIES, build_model
from deri.models.builtin import builtin_directory, builtin_names
from deri.models.text import TextEncoder, build_text_encoder
from deri.recipes import load_recipe, schema
from deri.recipes.load import explain

FORMAT = "deri-model"
VERSION = 1
_TEXT = "text_encoder.model."


def save_model(model: EcgTextModel, directory: str | Path, *, card: str | None = None) -> None:
    """Write ``model`` into ``directory``; each file appears whole or not at all."""
    directory = Path(directory)
    if directory.is_file():
        raise DeriError(f"{directory} is a file; name a directory to save the model in")
    directory.mkdir(parents=True, exist_ok=True)
    text = model.text_encoder
    by_name = text.config.encoder == "minilm" and not text.trained
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not (by_name and name.startswith(_TEXT))
    }
    with atomic_path(directory / "model.safetensors") as path:
        save_file(weights, path, metadata={"format": "pt"})
    hf_config: Any = text.model.config
    tokenizer = _save_tokenizer(text, directory)
    write_json(
        directory / "preprocessing.json",
        {**model.config.signal.model_dump(), "leads": list(LEADS), "unit": "mV"},
    )
    write_text(directory / "README.md", card or model_card(model))
    write_json(
        directory / "config.json",
        {
            "format": FORMAT,
            "version": VERSION,
            "deri_version": __version__,
            "recipe": model.recipe_name,
            "model": model.config.model_dump(),
            "text_encoder": {
                "included": not by_name,
                "tokenizer": tokenizer,
                "fingerprint": text.fingerprint if by_name else None,
                "config": json.loads(hf_config.to_json_string(use_diff=False)),
            },
        },
    )


def load_model(name: str | Path, *, device: str = "cpu") -> EcgTextModel:
    """Load a model directory, a run, a hub id, a built-in name or ``random:RECIPE[@SEED]``, in eval mode."""
    name = str(name)
    if name.startswith("random:"):
        recipe, _, seed = name[len("random:") :].partition("@")
        if seed and not seed.isdigit():
            raise DeriError(f"model {name!r}: the seed behind @ must be a whole number")
        content = load_recipe(recipe)
        model = build_model(content.model, seed=int(seed or 0))
        model.recipe_name = content.name
    else:
        model = _load_directory(resolve_model(name))
    return model.to(device).eval()


def resolve_model(name: str | Path) -> Path:
    """The directory of the model ``name``: itself, the ``model`` folder of a run, a built-in one, or a hub download."""
    path = Path(name).expanduser()
    if (path / "config.json").is_file():
        return path
    if (path / "model" / "config.json").is_file():
        return path / "model"
    if path.is_dir():
        if (path / "run.json").is_file():
            raise DeriError(f"{path} is a run without a model yet: finish it with deri pretrain --resume --out {path}")
        raise DeriError(f"{path} holds no deri model (no config.json); released checkpoints: deri convert")
    if built_in := builtin_directory(str(name)):
        return built_in
    if path.is_file():
        raise DeriError(f"{path} is a file, not a model directory; released checkpoints: deri convert {path} --out DIR")
    text = str(name)
    if path.is_absolute() or text.startswith(".") or text.count("/") != 1:
        known = ", ".join(["a hub id OWNER/NAME", "random:RECIPE", *builtin_names()])
        raise DeriError(f"model {name}: no such directory or run; also accepted: {known}")
    return hub_snapshot(f"model {name}", text)


def hub_snapshot(what: str, hub_id: str) -> Path:
    """The files of OWNER/NAME on the model hub, downloaded unless cached; ``what`` begins the DeriError."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.md"]))
    except Exception as error:  # the hub client raises a dozen unrelated types when it is offline
        raise DeriError(
            f"{what}: no such directory, and the hub did not give it ({type(error).__name__}); "
            "check the name, or download it where there is a network and pass the directory"
        ) from error


def read_config(directory: Path) -> dict[str, Any]:
    """The validated ``config.json`` of a model directory."""
    path = directory / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeriError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DeriError(f"{path} is not of a deri model (no format {FORMAT!r}); released checkpoints: deri convert")
    if content.get("version") != VERSION:
        raise DeriError(
            f"{path} is of model format {content.get('version')}, this deri {__version__} reads {VERSION}; "
            "use the deri version that wrote it"
        )
    return content


def _load_directory(directory: Path) -> EcgTextModel:
    content = read_config(directory)
    try:
        config = schema.Model.model_validate(content["model"])
    except ValidationError as error:
        raise DeriError(f"{directory / 'config.json'}: {explain(error, schema.Model)}") from None
    text = _load_text(directory, content["text_encoder"], config.text)
    model = FAMILIES[config.family](config, text)
    model.recipe_name = content.get("recipe")
    path = directory / "model.safetensors"
    try:
        weights = load_file(path)
    except Exception as error:  # safetensors raises its own error type and OSError
        raise DeriError(f"{path} cannot be read ({error}); copy or train the model again") from None
    load_weights(model, weights, str(path), optional=() if content["text_encoder"]["included"] else (_TEXT,))
    return model


def load_weights(
    model: torch.nn.Module, weights: dict[str, torch.Tensor], source: str, optional: tuple[str, ...] = ()
) -> None:
    """Load ``weights``; an unknown, missing or misshapen tensor is an error that names it.

    Tensors whose names start with one of ``optional`` may be missing.
    """
    own = model.state_dict()
    unknown = [name for name in weights if name not in own]
    missing = [name for name in own if name not in weights and not name.startswith(optional or ("\0",))]
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    problems = [
        f"{what} {_some(names)}"
        for what, names in (("unknown tensors", unknown), ("missing tensors", missing), ("shapes:", shapes))
        if names
    ]
    if problems:
        raise DeriError(f"{source} does not fit the model: {'; '.join(problems)}")
    model.load_state_dict(weights, strict=False)


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _load_text(directory: Path, content: dict[str, Any], config: schema.Text) -> TextEncoder:
    if not content["included"]:
        text = build_text_encoder(config)
        if text.fingerprint != content["fingerprint"]:
            raise DeriError(
                f"{directory}: was trained with another version of text encoder {config.encoder!r} than is installed; "
                "install the version that requirements of its deri version name"
            )
        return text
    from transformers import AutoConfig, AutoModel

    hf = dict(content["config"])
    model = AutoModel.from_config(AutoConfig.for_model(hf.pop("model_type"), **hf))
    tokenizer = str(directory) if content["tokenizer"] == "included" else content["tokenizer"]
    return TextEncoder(model, config, tokenizer)


def _save_tokenizer(text: TextEncoder, directory: Path) -> str:
    """Save the tokenizer; where it is not at hand (an imported checkpoint, offline) say where to get it."""
    try:
        text.tokenizer.save_pretrained(str(directory))
    except DeriError:
        return text.config.encoder
    return "included"


def model_card(model: EcgTextModel) -> str:
    """A short model card: what it is, how to use it, what it is not."""
    config = model.config
    text, signal = config.text, config.signal
    millions = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("text_encoder.")) / 1e6
    return f"""---
library_name: deri
tags: [ecg, electrocardiogram, contrastive-learning]
---

# {config.family.upper()} {config.backbone}

A 12-lead ECG encoder trained with clinical reports ({config.family.upper()}): {millions:.2f} M parameters outside its
text encoder (`{text.encoder}`, {text.pooling} pooling), embeddings of {config.dim} dimensions.

Input: {signal.samples} samples at {signal.fs:g} Hz, 12 leads in mV, normalised as `{signal.normalise}`.

```python
import deri
model = deri.{type(model).__name__}.from_pretrained("DIRECTORY")
model.classify([deri.read_ecg("record.hea")], ["atrial fibrillation", "normal ecg"])
```

For research only. It is not a medical device, and its scores are not a diagnosis.
Written by deri {__version__}.
"""
