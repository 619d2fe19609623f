"""Checkpoints under released names, made from our own models by a table written the other way round."""

from __future__ import annotations

import torch

from support import tiny

_BACK = [
    ("text_encoder.model.", "lm_model."),
    ("text_projection.", "proj_t."),
    ("token_conv.", "downconv."),
    ("ecg_projection.", "proj_e."),
    ("view_projection.0.", "linear1."),
    ("view_projection.1.", "linear2."),
    ("attention_pool.positions", "att_pool_head.positional_embedding"),
    ("attention_pool.projection.", "att_pool_head.c_proj."),
    ("attention_pool.attention.", "att_pool_head.mhsa."),
    ("attention_pool.", "att_pool_head."),
    ("backbone.", "ecg_encoder."),
]


def released_merl(backbone: str) -> dict[str, torch.Tensor]:
    """A MERL ResNet checkpoint under released names, from one of our models."""
    model = tiny.model(f"model.backbone={backbone}", recipe="merl", pooling="pooler", max_tokens=256)
    result = {}
    for name, value in model.state_dict().items():
        for ours, theirs in _BACK:
            if name.startswith(ours):
                name = theirs + name[len(ours) :]
                break
        result[name] = value.clone()
    return result
