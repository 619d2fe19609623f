"""Files of tensors, safetensors with a checksum: a byte that changed on the disk is noticed when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from deri.errors import DeriError
from deri.files import SEAL, atomic_path

_ABOUT = "deri"


def save_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    written: Callable[[], None] = lambda: None,
) -> None:
    """Write tensors (of any device) and metadata, atomically, with the checksum of both.

    ``written`` is called when the new file is whole, and the old one still there.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = dict(metadata or {})
    # One entry: the order of several is another each time, and equal tensors would not give equal files.
    told = json.dumps({**about, SEAL: _digest(plain, about)}, sort_keys=True)
    with atomic_path(path) as temporary:
        save_file(plain, temporary, metadata={_ABOUT: told})
        written()


def load_tensors(path: Path, cure: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and metadata of a file; one without a checksum is taken as it is.

    Raises:
        DeriError: the file cannot be read, or was changed since it was written; ``cure`` ends the message.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            found = file.metadata() or {}
            about = json.loads(found[_ABOUT]) if _ABOUT in found else found
    except Exception as error:  # safetensors has its own error type besides OSError
        raise DeriError(f"{path} cannot be read ({error}); {cure}") from None
    seal = about.pop(SEAL, None)
    if seal is not None and seal != _digest(tensors, about):
        raise DeriError(f"{path} is damaged: its content does not have its checksum; {cure}")
    return tensors, about


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 over metadata, and name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        if value.numel():
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
