"""The optimiser of all trainings."""

from __future__ import annotations

from collections.abc import Callable

import torch

from deri.training.state import Named

_UNDECAYED = ("positions", "cls_token")


def adamw(
    named: Named,
    lr: float,
    weight_decay: float,
    *,
    scale: Callable[[str], float] = lambda _: 1.0,
) -> torch.optim.AdamW:
    """AdamW; weight decay only on matrices, as it has no meaning for biases, norms, positions and class tokens.

    Args:
        named: trained parameters by name.
        lr: learning rate.
        weight_decay: of the matrices.
        scale: name → multiple of the learning rate; the engine reads it from the group's ``scale``.
    """
    groups: dict[tuple[bool, float], list[torch.nn.Parameter]] = {}
    for name, parameter in named:
        decayed = parameter.dim() >= 2 and not name.endswith(_UNDECAYED)
        groups.setdefault((decayed, scale(name)), []).append(parameter)
    settings = [
        {"params": parameters, "weight_decay": weight_decay if decayed else 0.0, "scale": multiple}
        for (decayed, multiple), parameters in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=lr, fused=named[0][1].device.type == "cuda")
