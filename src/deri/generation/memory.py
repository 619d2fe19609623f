"""What a writer reads of an ECG: its memory of (m, d) vectors, cached on disk where the encoder is frozen."""

from __future__ import annotations

import hashlib
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deri.errors import DeriError
from deri.files import AGAIN, MADE_AGAIN, digest_of, write_json, writing
from deri.generation.config import MemoryKind
from deri.models import EcgTextModel
from deri.models.calibration import encoder_digest
from deri.models.layers import extend_mask
from deri.progress import SILENT, Progress
from deri.store import Store
from deri.store.npy import NpyAppender, map_npy, read_arrays, write_arrays

VERSION = 3  # with checksums
Memory = tuple[Tensor, Tensor | None]
"""(B, m, d), and a mask (B, m) that is True where a vector counts, or None where all do."""

_BATCH = 128


def memory_of(model: EcgTextModel, ecg: Tensor, valid: Tensor | None = None, kind: MemoryKind = "tokens") -> Memory:
    """The memory of preprocessed recordings, and which of its vectors count.

    * ``aligned``: the aligned ECG embedding, one vector (MERL: its embedding at unit length).
    * ``mixed``: the inference embedding, one vector, not scaled to unit length (MERL has no other than its own).
    * ``tokens``: the tokens of the backbone, then the inference embedding as one vector more. The tokens are those
      before token attention: that layer has no residual connection, so that behind it every token is an average over
      the recording. The decoder's reading of the whole recording is in no single token, and costs one vector. A MERL
      on a ViT has patches of another width than its embedding; there the patches are all.

    Args:
        model: the encoder, in the mode that is wanted.
        ecg: (B, 12, n), see :class:`deri.models.preprocess.Preprocess`.
        valid: (B,) samples that hold signal, or None for all.
        kind: which memory.

    Returns:
        (B, m, d) and a mask (B, m), True where a vector counts, or None where all do.
    """
    mask = model.token_mask(valid, ecg.shape[-1])
    tokens = model.ecg_tokens(ecg, mask)
    if kind == "aligned":
        return model.align_tokens(tokens, mask).unsqueeze(1), None
    if kind == "tokens" and not model.joint_tokens:
        return model.backbone.final_norm(tokens), mask
    embedding = model.embed_tokens(tokens, mask).unsqueeze(1)
    if kind == "mixed":
        return embedding, None
    return torch.cat([tokens, embedding.to(tokens.dtype)], dim=1), extend_mask(mask, 0, 1)


def memory_shape(model: EcgTextModel, kind: MemoryKind) -> tuple[int, int]:
    """(m, d) of :func:`memory_of`."""
    if kind != "tokens":
        return 1, model.config.dim
    n = model.n_tokens(model.config.signal.samples)
    return n + 1 if model.joint_tokens else n, model.token_width


class MemoryCache:
    """Memories of rows of a store: ``tokens.npy`` float16 (n, m, d); ``rows.npz`` has their rows, masks and CRC-32.

    Raises:
        DeriError: a file is damaged; memories are compared with their checksums when they are first read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        about = read_arrays(path / "rows.npz", MADE_AGAIN)
        self._rows, self._mask, self._checksums = about["rows"], about["mask"], about["checksums"]
        shape = (*self._mask.shape, int(about["width"]))
        self._tokens = map_npy(path / "tokens.npy", shape, np.dtype(np.float16), MADE_AGAIN)
        self._verified = np.zeros(len(self._rows), bool)

    @classmethod
    def build(
        cls,
        model: EcgTextModel,
        store: Store,
        rows: np.ndarray,
        kind: MemoryKind,
        folder: Path,
        progress: Progress = SILENT,
    ) -> MemoryCache:
        """The memories of ``rows`` (ascending), computed unless ``folder`` has them for this encoder and store.

        A killed build leaves nothing that is taken for whole; the next one starts again.

        Raises:
            DeriError: a memory is not finite, or there is no room on the disk.
        """
        m, d = memory_shape(model, kind)
        identity = {
            "format": "deri-memory",
            "version": VERSION,
            "encoder": encoder_digest(model),
            "config": model.config.model_dump(),
            "store": store.fingerprint,
            "rows": hashlib.sha256(np.ascontiguousarray(rows, np.int64).tobytes()).hexdigest(),
            "kind": kind,
            "shape": [len(rows), m, d],
        }
        key = digest_of(identity)
        path = folder / f"{kind}-{key}"
        if all((path / name).is_file() for name in ("meta.json", "rows.npz", "tokens.npy")):
            return cls(path)
        work = folder / f".{path.name}.work"
        with writing(path, f"{AGAIN}, or name another place with cache=DIR"):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            mask, checksums = np.ones((len(rows), m), bool), np.zeros(len(rows), np.uint32)
            # No memory map: a write to one ends the process where the disk is full.
            with NpyAppender(work / "tokens.npy", (m, d), np.dtype(np.float16)) as tokens:
                for start in range(0, len(rows), _BATCH):
                    part = rows[start : start + _BATCH]
                    values, counted = read_memory(model, store, part, kind)
                    found = _float16(values, store, part)
                    tokens.append(found)
                    checksums[start : start + len(part)] = [zlib.crc32(memory.data) for memory in found]
                    if counted is not None:
                        mask[start : start + len(part)] = counted.cpu().numpy()
                    progress.update(start + len(part), len(rows))
            about = {"rows": np.asarray(rows, np.int64), "mask": mask, "checksums": checksums, "width": np.array(d)}
            write_arrays(work / "rows.npz", **about)
            write_json(work / "meta.json", identity)
            if path.exists():  # without one of its files
                shutil.rmtree(path)
            work.rename(path)
        return cls(path)

    def get(self, rows: np.ndarray) -> Memory:
        """Memories (B, m, d) float32 of store rows, and their mask or None where all count."""
        at = np.searchsorted(self._rows, rows)
        mask = self._mask[at]
        found = self._tokens[at]
        for i in np.flatnonzero(~self._verified[at]):
            if zlib.crc32(found[i].data) != self._checksums[at[i]]:
                raise DeriError(f"{self.path} is damaged (the memory of row {rows[i]}): {MADE_AGAIN}")
            self._verified[at[i]] = True
        values = torch.from_numpy(found.astype(np.float32))
        return values, None if mask.all() else torch.from_numpy(mask)


def read_memory(model: EcgTextModel, store: Store, rows: np.ndarray, kind: MemoryKind) -> Memory:
    """Memories of store rows; see :func:`signal_memory`."""
    valid = store.index["valid_samples"].to_numpy()[rows]
    return signal_memory(model, store.signals(rows), store.fs, valid, store.lead_mask(rows), kind)


def signal_memory(
    model: EcgTextModel,
    signals: np.ndarray,
    fs: float,
    valid_samples: np.ndarray | None,
    lead_mask: np.ndarray | None,
    kind: MemoryKind,
) -> Memory:
    """Memories of standardised signals (B, 12, n), float32 on the model's device, without gradients, in eval mode."""
    model.eval()
    with torch.inference_mode():
        values, mask = memory_of(model, *model.prepare(signals, fs, valid_samples, lead_mask), kind)
    return values.float(), mask


def statistics_of(
    get: Callable[[np.ndarray], Memory], rows: np.ndarray, sample: int = 8192
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per dimension over at most ``sample`` of ``rows``: two float32 (m, d).

    All vectors but the last share one pair, the last has its own. A dimension that never varies has scale 1.
    """
    rows = rows[:: max(1, len(rows) // sample)][:sample]
    sums: Any = 0.0
    for start in range(0, len(rows), _BATCH):
        values, mask = get(rows[start : start + _BATCH])
        x = values.double().cpu().numpy()
        w = np.ones(x.shape[:2]) if mask is None else mask.cpu().numpy().astype(float)
        w = w[..., None]
        sums = sums + np.stack(np.broadcast_arrays((w * x).sum(0), (w * x**2).sum(0), w.sum(0)))
    m = sums.shape[1]
    mean, scale = np.empty(sums.shape[1:], np.float32), np.empty(sums.shape[1:], np.float32)
    for part in [slice(0, m - 1), slice(m - 1, m)] if m > 1 else [slice(0, 1)]:
        first, second, count = sums[:, part].sum(1)
        centre = first / count
        spread = np.sqrt(np.maximum(second / count - centre**2, 0))
        mean[part], scale[part] = centre, np.where(spread > 1e-6, spread, 1.0)
    return mean, scale


def _float16(values: Tensor, store: Store, rows: np.ndarray) -> np.ndarray:
    x = values.cpu().numpy()
    with np.errstate(over="ignore"):
        small = x.astype(np.float16, order="C")
    bad = np.flatnonzero(~np.isfinite(small).all(axis=(1, 2)))
    if len(bad):
        record = store.index["record_id"].iloc[int(rows[bad[0]])]
        raise DeriError(
            f"the model's features of {record} are not finite or above 65,504: its weights are broken, use another "
            "model or an earlier checkpoint"
        )
    return small
