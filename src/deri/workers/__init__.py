"""Who does long work: this process, processes of this machine, or a Ray cluster. The work is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from deri.errors import DeriError
from deri.workers.task import DIED, HERE, Engine, Task

ENGINES = ("local", "ray")

__all__ = ["DIED", "ENGINES", "HERE", "Engine", "Task", "open_engine"]


def open_engine(
    name: str = "local", workers: int | None = None, *, device: str | None = "cpu"
) -> AbstractContextManager[Engine]:
    """The engine that does the tasks of a command, open in a ``with`` block.

    Args:
        name: ``local`` or ``ray``.
        workers: how many; None: of ``local`` this process alone, of ``ray`` all that the cluster has.
        device: that the tasks compute on; None: the GPU where there is one.

    Raises:
        DeriError: no such engine, or fewer than one worker; in the block, no cluster.
    """
    if name not in ENGINES:
        raise DeriError(f"--engine {name}: choose {' or '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise DeriError(f"--workers {workers}: at least 1 is needed")
    return _open(name, workers, device)


@contextmanager
def _open(name: str, workers: int | None, device: str | None) -> Iterator[Engine]:
    from deri.workers.pool import Pool, local_workers

    if name == "ray":
        from deri.workers.on_ray import ray_workers

        with ray_workers(workers, None if device is None else device != "cpu") as there, Pool(there, "cpu") as pool:
            yield pool
    elif workers is None or workers == 1:
        yield HERE
    else:
        with Pool(local_workers(workers)) as pool:
            yield pool
