"""Writing one shard: every recording at once, while a thread sends what there is to the disk."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from deri.store.layout import LEAD_COUNT, SAMPLES
from deri.store.npy import NpyAppender

SYNC_BYTES = 64 << 20


def waveform_digest(signal: np.ndarray) -> str:
    """Return what tells a stored row from others: 16 bytes of the SHA-256 of its int16 samples, as hex.

    Of the hashes in ``hashlib`` SHA-256 is, where the processor computes it (120 KB in 0.07 ms), twice as fast as
    BLAKE2b.
    """
    return hashlib.sha256(np.ascontiguousarray(signal, "<i2").data).digest()[:16].hex()


class ShardWriter:
    """Append recordings, int16 (12, 5000) each, to the ``.npy`` file ``path``.

    Every 64 MB a thread sends what there is to the disk, while writing goes on, so that the end of a large shard does
    not wait for all of it. An error of the disk is raised by the append that meets it or by a later call, by
    :meth:`close` at the latest; only a closed shard is whole.
    """

    def __init__(self, path: str | Path) -> None:
        self.rows = 0
        self._appender = NpyAppender(path, (LEAD_COUNT, SAMPLES), "<i2")
        self._digest = hashlib.sha256()
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._syncing: Future[None] | None = None
        self._unsynced = 0

    def append(self, signal: np.ndarray, waveform: str) -> None:
        """Append one recording and its :func:`waveform_digest`."""
        if signal.shape != (LEAD_COUNT, SAMPLES) or signal.dtype != np.int16:
            raise ValueError(f"a recording of {signal.shape} {signal.dtype} does not fit a shard")
        self._appender.append(signal[None].astype("<i2", copy=False))
        self._digest.update(bytes.fromhex(waveform))
        self.rows += 1
        self._unsynced += signal.nbytes
        if self._unsynced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._check_sync()
            self._syncing = self._syncer.submit(self._appender.sync)
            self._unsynced = 0

    def mark(self) -> tuple[int, Any]:
        """Return where the shard ends now, for :meth:`rewind`."""
        return self.rows, self._digest.copy()

    def rewind(self, mark: tuple[int, Any]) -> None:
        """Forget what was appended since ``mark``."""
        if self.rows != mark[0]:
            self.rows, self._digest = mark
            self._appender.rewind(self.rows)

    def _check_sync(self) -> None:
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()

    def close(self) -> str:
        """Write the header, sync, and return the shard's checksum as hex: the SHA-256 of its rows' 16-byte digests."""
        try:
            self._check_sync()
        finally:
            self._syncer.shutdown()
        self._appender.close()
        return self._digest.hexdigest()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._syncer.shutdown()
        self._appender.abandon()
