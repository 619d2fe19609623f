"""Reading released DERI and MERL checkpoints: their tensor names → ours, every tensor accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deri.errors import DeriError
from deri.models.base import EcgTextModel
from deri.models.build import FAMILIES
from deri.models.directory import load_weights
from deri.models.resnet import BOTTLENECKS, DEPTHS
from deri.models.text import TextEncoder, build_text_encoder, load_of_encoder, source_of
from deri.models.vit import SIZES
from deri.recipes import load_recipe, schema

_TRANSFORMER = [
    (r"block(\d+)\.attn\.norm\.", r"blocks.\1.norm1."),
    (r"block(\d+)\.attn\.fn\.to_out\.0\.", r"blocks.\1.attention.to_out."),
    (r"block(\d+)\.attn\.fn\.", r"blocks.\1.attention."),
    (r"block(\d+)\.ff\.norm\.", r"blocks.\1.norm2."),
]
_ATTENTION = [
    (r"positional_embedding$", "positions"),
    (r"sep_embedding$", "separator"),
    (r"mhsa\.", "attention."),
]
_VIT = [
    *_TRANSFORMER,
    (r"block(\d+)\.ff\.fn\.net\.0\.", r"blocks.\1.fc1."),
    (r"block(\d+)\.ff\.fn\.net\.3\.", r"blocks.\1.fc2."),
    (r"pos_embedding$", "positions"),
    (r"to_patch_embedding\.", "patches."),
]
_DECODER = [
    *_TRANSFORMER,
    (r"block(\d+)\.ff\.fn\.", r"blocks.\1.mlp."),
    (r"pos_embedding$", "positions"),
    (r"sep_embedding$", "separator"),
    (r"to_patch\.", "embed."),
]
_Rules = list[tuple[str, str]]
# Prefix in a checkpoint → prefix here, and the rules for what follows it.
_COMMON: dict[str, tuple[str, _Rules]] = {
    "lm_model.": ("text_encoder.model.", []),
    "proj_t.": ("text_projection.", []),
    "downconv.": ("token_conv.", []),
}
_PREFIXES: dict[str, dict[str, tuple[str, _Rules]]] = {
    "deri": {
        "att_pool_head.": ("token_attention.", _ATTENTION),
        "linear1.": ("view_attention.0.", _ATTENTION),
        "linear2.": ("view_attention.1.", _ATTENTION),
        "decode_t.": ("ecg_to_text.", _DECODER),
        "decode_e.": ("text_to_ecg.", _DECODER),
    },
    "merl": {
        "att_pool_head.": ("attention_pool.", [*_ATTENTION, (r"c_proj\.", "projection.")]),
        "linear1.": ("view_projection.0.", []),
        "linear2.": ("view_projection.1.", []),
        "proj_e.": ("ecg_projection.", []),
    },
}
_RECIPES = {"deri": "deri-reference", "merl": "merl"}
# Tensors that released models carry and never use.
_UNUSED = {
    "deri": r"ecg_encoder\.linear\.(weight|bias)|(att_pool_head|linear[12])\.c_proj\.(weight|bias)",
    "merl": r"ecg_encoder\.linear\.(weight|bias)",
}
_POSITION_IDS = r"lm_model\.embeddings\.(position_ids|token_type_ids)"


def import_checkpoint(
    checkpoint: str | Path | Mapping[str, Tensor],
    text_encoder: str | Path | nn.Module | Any | None = None,
    *,
    backbone: str | None = None,
) -> EcgTextModel:
    """A released DERI or MERL checkpoint as a model in the ``deri-reference`` or ``merl`` recipe, in eval mode.

    Args:
        checkpoint: a ``.pth``/``.pt`` file (read with ``weights_only=True``), a ``.safetensors`` file, or a state dict.
        text_encoder: a name, directory, transformers config or model, or :class:`TextEncoder`. With none given, a
            BERT is built to fit the checkpoint's own ``lm_model.`` tensors (heads of 64, as all common sizes have).
        backbone: if given, the backbone that the checkpoint must have.

    Raises:
        DeriError: an unreadable file, another backbone than asked for, or an unknown, missing or misshapen tensor.
    """
    source = "checkpoint" if isinstance(checkpoint, Mapping) else str(checkpoint)
    tensors = _tensors(checkpoint, source)
    family = "deri" if any(name.startswith("decode_") for name in tensors) else "merl"
    found = _backbone(tensors, source)
    if backbone is not None and backbone != found:
        raise DeriError(f"{source} has backbone {found}, not {backbone}; leave the backbone out or name {found}")
    config = _config(tensors, family, found, source)
    own = {name.removeprefix("lm_model."): value for name, value in tensors.items() if name.startswith("lm_model.")}
    text = _text(own, text_encoder, config.text, source)
    model = FAMILIES[family](config.model_copy(update={"text": text.config}), text)
    model.recipe_name = _RECIPES[family]
    unused = re.compile(f"({_UNUSED[family]}|{_POSITION_IDS})")
    weights = {
        our_name(name, family, found, source): tensor for name, tensor in tensors.items() if not unused.fullmatch(name)
    }
    load_weights(model, weights, source, optional=() if own else ("text_encoder.",))
    return model.eval()


def _tensors(checkpoint: str | Path | Mapping[str, Any], source: str) -> dict[str, Tensor]:
    if not isinstance(checkpoint, Mapping):
        path = Path(checkpoint)
        if not path.is_file():
            raise DeriError(f"checkpoint {path} does not exist")
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                checkpoint = load_file(path)
            else:
                checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged or foreign file raises anything; all of it means the same to a user
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DeriError(f"checkpoint {path} cannot be read as plain tensors: {reason}") from None
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(checkpoint, Mapping) and isinstance(checkpoint.get(key), Mapping):
            checkpoint = checkpoint[key]
    if not isinstance(checkpoint, Mapping):
        raise DeriError(f"{source} holds a {type(checkpoint).__name__}, not a dictionary of tensors")
    foreign = [str(name) for name, value in checkpoint.items() if not isinstance(value, Tensor)]
    if foreign:
        raise DeriError(f"{source} is not a dictionary of tensors: {', '.join(foreign[:5])} hold something else")
    if not checkpoint:
        raise DeriError(f"{source} holds no tensors")
    if all(name.startswith("module.") for name in checkpoint):  # distributed training put it before all names
        return {name.removeprefix("module."): value for name, value in checkpoint.items()}
    return dict(checkpoint)


def _backbone(tensors: dict[str, Tensor], source: str) -> str:
    names = set(tensors)
    patches = tensors.get("ecg_encoder.to_patch_embedding.weight")
    if patches is not None:
        for name, (width, _) in SIZES.items():
            if patches.shape[0] == width:
                return name
        raise DeriError(f"{source}: ecg_encoder.to_patch_embedding.weight has width {patches.shape[0]}, no known ViT")
    depths = tuple(
        len({name.split(".")[2] for name in names if name.startswith(f"ecg_encoder.layer{stage}.")})
        for stage in range(1, 5)
    )
    bottleneck = "ecg_encoder.layer1.0.conv3.weight" in names
    for name, expected in DEPTHS.items():
        if depths == expected and bottleneck == (name in BOTTLENECKS):
            return name
    raise DeriError(
        f"{source}: no known backbone (ecg_encoder.* with stages of {'-'.join(map(str, depths))} blocks); "
        f"known: {', '.join([*DEPTHS, *SIZES])}"
    )


def _config(tensors: dict[str, Tensor], family: str, backbone: str, source: str) -> schema.Model:
    recipe = load_recipe(_RECIPES[family]).model
    update: dict[str, Any] = {"backbone": backbone}
    try:
        update["dim"] = int(tensors["proj_t.2.weight"].shape[0])
        if backbone in DEPTHS:
            update["base_width"] = int(tensors["ecg_encoder.conv1.weight"].shape[0])
        if family == "deri":
            update["text_positions"] = int(tensors["decode_e.pos_embedding"].shape[1]) - 2
    except KeyError as error:
        raise DeriError(f"{source} does not fit the model: missing tensors {error.args[0]}") from None
    return recipe.model_copy(update=update)


def _text(own: dict[str, Tensor], given: Any, config: schema.Text, source: str) -> TextEncoder:
    """The text encoder to load the checkpoint's ``own`` tensors into."""
    if isinstance(given, TextEncoder):
        return TextEncoder(given.model, config.model_copy(update={"encoder": given.config.encoder}), given._tokenizer)
    if isinstance(given, nn.Module):
        name = str(getattr(given.config, "name_or_path", "") or config.encoder)
        return TextEncoder(given, config.model_copy(update={"encoder": name}))
    from transformers import AutoConfig, AutoModel, PretrainedConfig

    if isinstance(given, PretrainedConfig):
        return TextEncoder(AutoModel.from_config(given), config)
    if given is None:
        if not own:
            raise DeriError(f"{source} holds no text encoder (lm_model.*); name one, e.g. text_encoder='medcpt'")
        return TextEncoder(AutoModel.from_config(_bert_config(own, source)), config)
    config = config.model_copy(update={"encoder": str(given)})
    if own:  # the weights come from the checkpoint; only the architecture is needed
        architecture = load_of_encoder(source_of(str(given)), AutoConfig, weights=False)
        return TextEncoder(AutoModel.from_config(architecture), config)
    return build_text_encoder(config)


def _bert_config(own: dict[str, Tensor], source: str) -> Any:
    from transformers import BertConfig

    layers = {name.split(".")[2] for name in own if name.startswith("encoder.layer.")}
    try:
        vocabulary, hidden = own["embeddings.word_embeddings.weight"].shape
        return BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=len(layers),
            num_attention_heads=max(1, hidden // 64),
            intermediate_size=own["encoder.layer.0.intermediate.dense.weight"].shape[0],
            max_position_embeddings=own["embeddings.position_embeddings.weight"].shape[0],
            type_vocab_size=own["embeddings.token_type_embeddings.weight"].shape[0],
        )
    except KeyError as error:
        raise DeriError(
            f"{source}: its text encoder (lm_model.*) is not a BERT (no {error.args[0]}); name it: text_encoder=…"
        ) from None


def our_name(name: str, family: str, backbone: str, source: str = "checkpoint") -> str:
    """The name here of a tensor of a released checkpoint; unknown ones are an error."""
    if name.startswith("ecg_encoder."):
        rest = name[len("ecg_encoder.") :]
        return "backbone." + (_apply(_VIT, rest) if backbone in SIZES else rest)
    for prefix, (ours, rules) in {**_COMMON, **_PREFIXES[family]}.items():
        if name.startswith(prefix):
            return ours + _apply(rules, name[len(prefix) :])
    raise DeriError(f"{source} does not fit the model: unknown tensors {name}")


def _apply(rules: _Rules, name: str) -> str:
    for pattern, replacement in rules:
        name, count = re.subn("^" + pattern, replacement, name)
        if count:
            break
    return name
