"""Worker processes that convert chunks."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from deri.errors import DeriError
from deri.store.chunk import ChunkJob, StoppedError, convert_chunk

_TICK_SECONDS = 0.2  # how often the parent looks how far the workers are
_LEAVE_SECONDS = 10.0  # a worker that has not left by then hangs in a read: it ends itself
_DIED = (
    "a worker process died, often for want of memory: run the same command again with fewer --workers; "
    "finished chunks are kept.\n(A script that calls prepare(workers=…) needs if __name__ == '__main__'.)"
)

# In a worker: recordings done of each chunk, and whether to stop. Shared without locks, which a worker that is killed
# would keep.
_done: Any = None
_stop: Any = None


def convert_parallel(
    jobs: Iterator[ChunkJob], workers: int, counts: Mapping[int, int], report: Callable[[int, int], None]
) -> None:
    """Convert ``jobs`` in ``workers`` processes.

    Args:
        jobs: taken one by one as workers become free.
        workers: number of processes.
        counts: recordings of each chunk.
        report: called as they go on with a chunk and how many of its recordings are done.

    Raises:
        DeriError: a worker died, or what :func:`convert_chunk` raises.
        OSError: the store cannot be written.
    """
    # Spawned, not forked: the caller may run threads (a progress display, torch), which a fork would tear apart.
    context = multiprocessing.get_context("spawn")
    done, stop = context.RawArray("q", max(counts) + 1), context.RawValue("b", 0)
    with ProcessPoolExecutor(workers, context, _start, (done, stop)) as pool:
        running: dict[Future[bool], int] = {}
        try:
            while True:
                running |= {_submit(pool, job): job.number for job in islice(jobs, workers - len(running))}
                if not running:
                    return
                for future in wait(running, _TICK_SECONDS, FIRST_COMPLETED).done:
                    if future.result():
                        done[running[future]] = counts[running[future]]
                    del running[future]
                for chunk in counts:
                    report(chunk, done[chunk])
        except BrokenProcessPool as error:
            raise DeriError(_DIED) from error
        finally:
            stop.value = 1
            pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, job: ChunkJob) -> Future[bool]:
    try:
        return pool.submit(_convert, job)
    except OSError as error:
        if error.errno not in (None, errno.EPIPE):
            raise
        # A worker died while the job was handed over: the pipes of the pool are closed, or nobody reads them.
        raise BrokenProcessPool(str(error)) from error


def _start(done: Any, stop: Any) -> None:
    """Prepare a worker process."""
    global _done, _stop
    _done, _stop = done, stop
    # Ctrl-C, and often SIGTERM, reach the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when its parent has died, or wants it to stop and it hangs."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive() and not _stop.value:
        time.sleep(_TICK_SECONDS)
    if _stop.value:
        time.sleep(_LEAVE_SECONDS)
    os._exit(1)


def _convert(job: ChunkJob) -> bool:
    """Convert one chunk; False if another process has it."""

    def tick(count: int) -> None:
        _done[job.number] = count

    try:
        return convert_chunk(job, tick, lambda: bool(_stop.value))
    except StoppedError:
        return False
    except (DeriError, OSError):
        raise
    except Exception:  # a defect; not every exception survives the way to another process
        raise RuntimeError(f"a worker process failed\n{traceback.format_exc()}") from None
