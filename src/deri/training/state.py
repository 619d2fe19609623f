"""Where a training stands, and its checkpoints: weights, optimiser moments and position in one safetensors file each.

Nothing is pickled. Random numbers need no state: every step derives its own from the seed and its number.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deri.errors import DeriError
from deri.files import atomic_path, digest_of, remove_leftovers
from deri.models.tensors import load_tensors, save_tensors
from deri.progress import SILENT, Progress
from deri.training.distributed import part_of, whole

Named = list[tuple[str, nn.Parameter]]
"""Trained parameters by name."""
_LEFT_SECONDS = 3600  # nobody writes to a checkpoint with so long a pause; a run that is requeued leaves many


@dataclass
class State:
    """Steps done, the lowest validation loss and its epoch, the loss scale of fp16, and the epoch's losses so far.

    ``epoch_loss`` is a sum, weighted by amounts that sum to ``epoch_weight``.
    """

    step: int = 0
    best_loss: float | None = None
    best_epoch: int | None = None
    scaler: dict[str, Any] | None = None
    epoch_loss: float = 0.0
    epoch_weight: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """The files of a training's state: the last one, and the one before, in case the last is damaged.

    Args:
        path: of the last one.
        identity: what decides what is computed, as JSON values; another one is refused by the names of its keys.
        free: keys of the identity that may change, with dots between levels.
        version: of the meaning of the weights.
    """

    path: Path
    identity: Mapping[str, Any]
    free: frozenset[str] = frozenset()
    version: int = 1

    @property
    def run_id(self) -> str:
        """The identity in 16 hex digits."""
        return digest_of(self.identity)

    @property
    def previous(self) -> Path:
        """The checkpoint before the last one."""
        return self.path.with_name("previous.safetensors")

    @property
    def found(self) -> Path | None:
        """The newest one there is."""
        return next((path for path in (self.path, self.previous) if path.is_file()), None)

    def require_room(self, weights: Mapping[str, Tensor], trained: Named) -> None:
        """DeriError where the disk has no room for two checkpoints, the next one, and the weights that a run keeps."""
        model = sum(value.nbytes for value in weights.values())
        need = 3 * (model + 2 * sum(parameter.nbytes for _, parameter in trained)) + 2 * model
        have = sum(path.stat().st_size for path in (self.path, self.previous) if path.is_file())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.path.parent).free
        if free + have < need:
            raise DeriError(
                f"{self.path.parent}: checkpoints and model take {need / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are "
                "free on the disk; make room, or name another --out"
            )

    def save(
        self,
        weights: Mapping[str, Tensor],
        trained: Named,
        optimizer: torch.optim.AdamW,
        state: State,
        *,
        writes: bool = True,
    ) -> None:
        """Write ``weights`` as ``model/NAME`` and moments as ``optimizer/NAME/KEY``, atomically.

        The checkpoint of before stays as :attr:`previous`; nothing is replaced before the new one is whole. Tensors of
        which each process holds a part are written whole: all processes call it, one of them ``writes``.
        """
        parts = {f"model/{name}": value for name, value in weights.items()}
        for name, parameter in trained:
            for key, value in optimizer.state.get(parameter, {}).items():
                parts[f"optimizer/{name}/{key}"] = torch.as_tensor(value)
        tensors = {}
        for name, value in parts.items():
            full = whole(value)
            if writes:
                tensors[name] = full
        if not writes:
            return
        metadata = {
            "version": str(self.version),
            "run": json.dumps(self.identity),
            "progress": json.dumps(asdict(state)),
        }
        save_tensors(self.path, tensors, metadata, written=self._keep_previous)

    def _keep_previous(self) -> None:
        if not self.path.is_file():
            return
        with atomic_path(self.previous) as temporary:
            try:
                os.link(self.path, temporary)
            except OSError:  # the file system has no links
                shutil.copyfile(self.path, temporary)

    def _read(self, progress: Progress) -> tuple[dict[str, Tensor], dict[str, str]]:
        cure = "delete it to start the run again"
        if not self.previous.is_file():
            return load_tensors(self.path, cure)
        if self.path.is_file():
            try:
                return load_tensors(self.path, f"going on from the checkpoint before, {self.previous.name}")
            except DeriError as error:
                damaged = str(error)
            tensors = load_tensors(self.previous, cure)
            progress.message(f"warning: {damaged}")
            self.path.unlink(missing_ok=True)  # else the next one would take the good one's place with it
            return tensors
        return load_tensors(self.previous, cure)

    def load(
        self,
        weights: Mapping[str, Tensor],
        trained: Named,
        optimizer: torch.optim.AdamW,
        progress: Progress = SILENT,
    ) -> State:
        """Restore in place what :meth:`save` wrote, exactly; from :attr:`previous` where the last one is damaged.

        Raises:
            DeriError: the files are broken, of another version or run, or do not fit the weights.
        """
        tensors, metadata = self._read(progress)
        if metadata.get("version") != str(self.version):
            raise DeriError(f"{self.path} was written by another version of deri; start a new run")
        self._check_identity(metadata.get("run", "{}"))
        if odd := sorted({n[len("model/") :] for n in tensors if n.startswith("model/")} ^ set(weights)):
            raise DeriError(f"{self.path} does not fit this model: {', '.join(odd[:5])} on one side only")
        with torch.no_grad():
            for name, value in weights.items():
                value.copy_(part_of(tensors[f"model/{name}"], value))
        for name, parameter in trained:
            prefix = f"optimizer/{name}/"
            moments = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
            if moments:
                # Moments live beside their weights; the step counter stays on the CPU, where torch keeps it.
                optimizer.state[parameter] = {
                    key: value
                    if key == "step" and not optimizer.defaults.get("fused")
                    else part_of(value.to(parameter.device), parameter)
                    for key, value in moments.items()
                }
        known = {field.name for field in fields(State)}
        return State(**{key: value for key, value in json.loads(metadata["progress"]).items() if key in known})

    def _check_identity(self, stored: str) -> None:
        """DeriError that names what differs from the run that wrote the file."""
        try:
            before = _flat(json.loads(stored))
        except ValueError:  # 16 hex digits, before identities were kept
            raise DeriError(f"{self.path} was written by another version of deri; start a new run") from None
        now = _flat(self.identity)
        keys = [key for key in {**before, **now} if key not in self.free and before.get(key) != now.get(key)]
        if keys:
            first = ", ".join(f"{key} was {before.get(key)} and is {now.get(key)}" for key in keys[:5])
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise DeriError(f"{self.path} is of another run: {first}{more}; set it back, or name another --out")


def _flat(content: Any, name: str = "") -> dict[str, Any]:
    """``{"train": {"lr": 1}}`` → ``{"train.lr": 1}``."""
    if not isinstance(content, Mapping):
        return {name: content}
    return {k: v for key, value in content.items() for k, v in _flat(value, f"{name}.{key}".lstrip(".")).items()}


def claim_directory(out: Path, *, resume: bool | None = None) -> None:
    """DeriError where the run directory ``out`` is in use; ``resume`` None: by what cannot be continued.

    In one to be continued, temporary files of killed processes are removed.
    """
    if out.is_file() or (not resume and out.exists() and any(out.iterdir())):
        cure = "name another" if resume is None else "continue it with --resume, or name another"
        raise DeriError(f"--out {out} exists and is not empty; {cure}")
    remove_leftovers(out, _LEFT_SECONDS)
