"""Worker processes that convert chunks.

A pipe per worker and nothing shared: a worker that is killed (for want of memory, say) can hold no lock that the others
wait for, as it can in ``concurrent.futures``, and the death of the parent is the end of every pipe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import cast

from deri.errors import DeriError
from deri.store.chunk import ChunkJob, StoppedError, convert_chunk

_TICK_SECONDS = 0.2  # how often a worker tells how far it is, and looks whether it is still wanted
_LEAVE_SECONDS = 10.0  # a worker that has not left by then hangs in a read: it is terminated

_DIED = (
    "a worker process died, often for want of memory: run the same command again with fewer --workers; "
    "finished chunks are kept.\n(A script that calls prepare(workers=…) needs if __name__ == '__main__'.)"
)


def convert_parallel(jobs: Sequence[ChunkJob], workers: int, report: Callable[[int, int], None]) -> None:
    """Convert ``jobs`` in ``workers`` processes; ``report(chunk, recordings)`` is called as they go on.

    Raises:
        DeriError: a worker died, or what :func:`convert_chunk` raises.
        OSError: the store cannot be written.
    """
    # Spawned, not forked: the caller may run threads (a progress display, torch), which a fork would tear apart.
    context = multiprocessing.get_context("spawn")
    crew = []
    try:
        for _ in range(min(workers, len(jobs))):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            crew.append((ours, process))
        _distribute(jobs, [connection for connection, _ in crew], report)
    except (EOFError, ConnectionError) as error:
        raise DeriError(_DIED) from error
    finally:
        for connection, _ in crew:
            connection.close()
        for _, process in crew:
            process.join(_LEAVE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()


def _distribute(jobs: Sequence[ChunkJob], connections: list[Connection], report: Callable[[int, int], None]) -> None:
    """Keep every worker busy until the jobs are done."""
    queue = deque(range(len(jobs)))
    current: dict[Connection, ChunkJob] = {}
    idle = list(connections)
    while queue or current:
        while idle and queue:
            connection = idle.pop()
            current[connection] = jobs[queue.popleft()]
            connection.send(current[connection])
        for ready in wait(list(current)):
            connection = cast(Connection, ready)
            message: int | Exception | None = connection.recv()
            if isinstance(message, Exception):
                raise message
            if message is None:
                del current[connection]
                idle.append(connection)
            else:
                report(current[connection].number, message)


def _serve(connection: Connection) -> None:
    """Do the jobs that come through ``connection`` until it is closed, be it by the death of the parent.

    Sends the number of recordings done from time to time, None at the end of a job, or an exception.
    """
    # Ctrl-C reaches the whole process group; the parent decides, and closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, ConnectionError, StoppedError):
        while True:
            job: ChunkJob = connection.recv()
            try:
                _convert(job, connection)
                connection.send(None)
            except (StoppedError, ConnectionError):
                raise
            except (DeriError, OSError) as error:
                connection.send(error)
            except Exception:  # a defect; not every exception survives the way through a pipe
                connection.send(RuntimeError(f"a worker process failed\n{traceback.format_exc()}"))


def _convert(job: ChunkJob, connection: Connection) -> None:
    """Convert one chunk, telling the parent how far it is."""
    last, count = time.monotonic(), 0

    def tick(done: int) -> None:
        nonlocal count
        count = done

    def stopped() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < _TICK_SECONDS:
            return False
        last = now
        connection.send(count)
        return connection.poll()  # nothing is ever sent during a job: readable means closed

    if convert_chunk(job, tick, stopped):
        connection.send(len(job.files))
