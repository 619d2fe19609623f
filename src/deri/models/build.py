"""From a recipe, a name or a directory to a model, and from a model to its directory.

A model's directory holds ``config.json``, ``model.safetensors``, the tokenizer, ``preprocessing.json`` and
``README.md``; beside them ``classes.json`` and ``head.safetensors`` where it has a head, and ``calibration.json`` where
it is calibrated. The text encoder's weights are in ``model.safetensors`` as well, so that a directory needs no hub;
only the unmodified encoder of the ``offline`` package is named instead, and its fingerprint checked when the first text
is read that is no prompt of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from deri._version import __version__
from deri.ecg.leads import LEADS
from deri.errors import DeriError
from deri.files import atomic_files, write_json
from deri.models import directory as files
from deri.models.backbones import BACKBONES
from deri.models.base import EcgTextModel
from deri.models.builtin import builtin_directory
from deri.models.calibration import CALIBRATION, read_calibration, save_calibration
from deri.models.device import choose_device
from deri.models.directory import HEAD, MODEL
from deri.models.head import read_head
from deri.models.hub import warn_of_folder
from deri.models.installed_text import Installed, InstalledTextEncoder, check_version
from deri.models.text import TEXT_ENCODERS, TextEncoder, build_text_encoder, is_installed, portable_name
from deri.recipes import load_recipe, schema
from deri.recipes.load import explain
from deri.registry import Registry

FAMILIES: Registry[type[EcgTextModel]] = Registry(
    "model family", "deri.families", {"deri": "deri.models.deri:DERI", "merl": "deri.models.merl:MERL"}
)
_TEXT = "text_encoder.model."


def build_model(config: schema.Model, *, seed: int = 0, text_encoder: TextEncoder | None = None) -> EcgTextModel:
    """A model with random weights outside its text encoder; the same seed gives the same weights.

    With ``init: released`` the modules that have a method ``init_released`` draw theirs as the released code does.

    ``text_encoder`` is loaded as the recipe says when not given. Torch's global generator is left as it was.
    """
    check_names(config)
    text_encoder = text_encoder or build_text_encoder(config.text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FAMILIES[config.family](config, text_encoder)
        if config.init == "released":
            for module in model.modules():
                draw: Any = getattr(module, "init_released", None)
                if draw is not None:
                    draw()
        return model


def check_names(config: schema.Model) -> None:
    """Raise :class:`DeriError` for a family or backbone that nobody registered; recipes stand below the tables."""
    for key, table, name in (("family", FAMILIES, config.family), ("backbone", BACKBONES, config.backbone)):
        if name not in table:
            raise DeriError(
                f"model.{key}={name}: there are {', '.join(table.names())}; one of your own is registered by a package "
                "that must be installed (docs/models.md)"
            )


def load_model(name: str | Path, *, device: str | None = "cpu") -> EcgTextModel:
    """Load a model directory, a run, a hub id, a built-in name or ``random:RECIPE[@SEED]``, in eval mode.

    ``device`` None: the GPU where there is one.
    """
    name, where = str(name), choose_device(device)
    if name.startswith("random:"):
        recipe, _, seed = name[len("random:") :].partition("@")
        if seed and not seed.isdigit():
            raise DeriError(f"model {name!r}: the seed behind @ must be a whole number")
        content = load_recipe(recipe)
        model = build_model(content.model, seed=int(seed or 0))
        model.recipe_name = content.name
    else:
        model = _load(model_folder(name))
    return model.to(where).eval()


def model_folder(name: str | Path) -> Path:
    """The directory that :func:`load_model` loads for a name, which is no ``random:RECIPE``."""
    if built_in := builtin_directory(str(name)):
        warn_of_folder("model", str(name))
        return built_in
    return files.find(MODEL, name)


def _load(folder: Path) -> EcgTextModel:
    content = files.read_manifest(MODEL, folder)
    try:
        config = schema.Model.model_validate(content["model"])
        check_names(config)
    except ValidationError as error:
        raise DeriError(f"{folder / MODEL.manifest}: {explain(error, schema.Model)}") from None
    except DeriError as error:
        raise DeriError(f"{folder / MODEL.manifest}: {error}") from None
    model = FAMILIES[config.family](config, _load_text(folder, content["text_encoder"], config.text))
    model.recipe_name = content.get("recipe")
    optional = () if content["text_encoder"]["included"] else (_TEXT,)
    files.load_weights(model, files.read_weights(MODEL, folder), folder / MODEL.weights, optional)
    if (folder / HEAD.manifest).is_file():
        model.head = read_head(folder, config.dim)
    model.calibration = read_calibration(folder, model)
    return model


def _load_text(folder: Path, content: dict[str, Any], config: schema.Text) -> TextEncoder:
    if not content["included"]:
        if isinstance(TEXT_ENCODERS.get(config.encoder), Installed):
            return InstalledTextEncoder(config, content["config"], content["fingerprint"], str(folder))
        text = build_text_encoder(config)
        check_version(text, content["fingerprint"], str(folder))
        return text
    if content["config"] is None:
        return build_text_encoder(config)
    from transformers import AutoConfig, AutoModel

    hf = dict(content["config"])
    model = AutoModel.from_config(AutoConfig.for_model(hf.pop("model_type"), **hf))
    tokenizer = str(folder) if content["tokenizer"] == "included" else content["tokenizer"]
    return TextEncoder(model, config, tokenizer)


def save_model(model: EcgTextModel, directory: str | Path, *, card: str | None = None) -> None:
    """Write ``model`` into ``directory``; each file appears whole or not at all."""
    folder = files.new_folder(MODEL, directory)
    text, config = model.text_encoder, model.config
    named = config.text.model_copy(update={"encoder": portable_name(config.text.encoder)})
    by_name = is_installed(text.config.encoder) and not text.trained
    weights = files.weights_of(model)
    if by_name:
        weights = {name: value for name, value in weights.items() if not name.startswith(_TEXT)}
    tokenizer, names = _save_tokenizer(text, folder)
    content = {
        "deri_version": __version__,
        "recipe": model.recipe_name,
        "model": config.model_copy(update={"text": named}).model_dump(),
        "text_encoder": {
            "included": not by_name,
            "tokenizer": tokenizer,
            "fingerprint": text.fingerprint if by_name else None,
            "config": text.architecture(),
        },
    }
    write_json(folder / "preprocessing.json", {**config.signal.model_dump(), "leads": list(LEADS), "unit": "mV"})
    for stale in (HEAD.manifest, CALIBRATION):  # a killed run leaves no head or calibration of other weights
        (folder / stale).unlink(missing_ok=True)
    names.append("preprocessing.json")
    files.save(MODEL, folder, weights, content, files=names, card=card or model_card(model))
    if model.head is not None:
        model.head.save(folder)
    save_calibration(folder, model)


def _save_tokenizer(text: TextEncoder, folder: Path) -> tuple[str, list[str]]:
    """Save the tokenizer, and name its files; where it is not at hand (an import, offline) say where to get it."""
    try:
        if (fast := getattr(text.tokenizer, "backend_tokenizer", None)) is not None:
            fast.no_truncation()  # else its file tells how the last call cut and padded, and equal models differ
            fast.no_padding()
        with atomic_files(folder) as aside:
            text.tokenizer.save_pretrained(str(aside))
            names = [file.name for file in aside.iterdir()]
    except (DeriError, AttributeError):  # one from outside may have nothing to save
        return portable_name(text.config.encoder), []
    return "included", names


def model_card(model: EcgTextModel) -> str:
    """A short model card: what it is, how to use it, what it is not."""
    config = model.config
    text, signal, family = config.text, config.signal, config.family.upper()
    millions = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("text_encoder.")) / 1e6
    content = f"""\
A 12-lead ECG encoder trained with clinical reports ({family}): {millions:.2f} M parameters outside its
text encoder (`{portable_name(text.encoder)}`, {text.pooling} pooling), embeddings of {config.dim} dimensions.

Input: {signal.samples} samples at {signal.fs:g} Hz, 12 leads in mV, normalised as `{signal.normalise}`.

```python
import deri
model = deri.{type(model).__name__}.from_pretrained("DIRECTORY")
model.classify([deri.read_ecg("record.hea")], ["atrial fibrillation", "normal ecg"])
```

For research only. It is not a medical device, and its scores are not a diagnosis."""
    return files.card(f"{family} {config.backbone}", ["ecg", "electrocardiogram", "contrastive-learning"], content)
