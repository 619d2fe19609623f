"""Writing one shard: appending, hashing and syncing go on in threads behind the reading."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from deri.store.layout import LEAD_COUNT, SAMPLES
from deri.store.npy import NpyAppender

BATCH = 32
SYNC_BYTES = 64 << 20


class ShardWriter:
    """Append recordings, int16 (12, 5000) each, to the ``.npy`` file ``path``.

    Two batches of memory take turns: one is filled while the other is written and hashed, both without the interpreter
    lock. Every 64 MB a second thread sends what there is to the disk, while writing goes on, so that the end of a large
    shard does not wait for all of it. An error of the disk is raised by a later call, by :meth:`close` at the latest;
    only a closed shard is whole.
    """

    def __init__(self, path: str | Path) -> None:
        self.rows = 0
        self._appender = NpyAppender(path, (LEAD_COUNT, SAMPLES), "<i2")
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._writing: Future[None] | None = None
        self._syncing: Future[None] | None = None
        self._batches = [np.empty((BATCH, LEAD_COUNT, SAMPLES), "<i2") for _ in range(2)]
        self._unsynced = 0

    def append(self, signal: np.ndarray) -> None:
        """Append one recording; it is copied."""
        if signal.shape != (LEAD_COUNT, SAMPLES) or signal.dtype != np.int16:
            raise ValueError(f"a recording of {signal.shape} {signal.dtype} does not fit a shard")
        self._batches[0][self.rows % BATCH] = signal
        self.rows += 1
        if self.rows % BATCH == 0:
            self._hand_over(BATCH)

    def _hand_over(self, count: int) -> None:
        self._wait()
        self._writing = self._pool.submit(self._write, self._batches[0][:count])
        self._batches.reverse()

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def _write(self, rows: np.ndarray) -> None:
        self._appender.append(rows)
        self._digest.update(rows.data)
        self._unsynced += rows.nbytes
        if self._unsynced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._check_sync()
            self._syncing = self._syncer.submit(self._appender.sync)
            self._unsynced = 0

    def _check_sync(self) -> None:
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()

    def close(self) -> str:
        """Write what is left and the header, sync, and return the SHA-256 of the samples as hex."""
        try:
            if self.rows % BATCH:
                self._hand_over(self.rows % BATCH)
            self._wait()
            self._check_sync()
        finally:
            self._stop()
        self._appender.close()
        return self._digest.hexdigest()

    def _stop(self) -> None:
        self._pool.shutdown()
        self._syncer.shutdown()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        self._appender.abandon()
