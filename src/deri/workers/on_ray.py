"""Workers on the nodes of a Ray cluster: an actor each, which holds a :class:`WorkerProcess`.

The process below the actor does what a local worker does and finds the record that kills it. Ray places the actors;
one that is lost, with its node perhaps, is replaced.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from deri._version import __version__
from deri.errors import DeriError, install
from deri.workers.pool import LostError
from deri.workers.process import TICK_SECONDS, Outcome, WorkerProcess
from deri.workers.task import Task

R = TypeVar("R")

_STARTS = 3  # of an actor, one after the other
_OBJECT_STORE = 256 * 2**20  # bytes of memory of a cluster that is started here: results are small


class _Actor:
    """In the cluster."""

    def __init__(self, folder: str) -> None:
        vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's, which the process below is not to load as well
        self._process = WorkerProcess(folder)

    def version(self) -> str:
        """That of deri on the node."""
        return __version__

    def run(self, task: Task[R]) -> Outcome[R]:
        """See :meth:`WorkerProcess.run`."""
        return self._process.run(task)

    def done(self) -> int:
        """See :attr:`WorkerProcess.done`."""
        return self._process.done


class RayWorker:
    """An actor, seen from the process that gives out the tasks."""

    def __init__(self, ray: Any, gpus: int) -> None:
        self._ray, self.done = ray, 0
        # Two threads: one runs the task, the other says how far it is.
        wanted = ray.remote(num_cpus=1, num_gpus=gpus, max_concurrency=2)(_Actor)
        self._create = lambda: wanted.options(scheduling_strategy="SPREAD").remote(os.getcwd())
        self._actor: Any = None
        self._version: Any = None
        self._failed = 0
        self._over = threading.Event()

    def ready(self) -> bool:
        """Whether the cluster has started the actor."""
        if self._actor is None:
            self._actor = self._create()
            self._version = self._actor.version.remote()
        try:
            there = self._version if isinstance(self._version, str) else self._get(self._version)
        except self._ray.exceptions.GetTimeoutError:
            return False
        except self._ray.exceptions.RayError as error:
            self._actor, self._failed = None, self._failed + 1
            if self._failed < _STARTS:
                return False
            last = str(error).strip().splitlines()[-1]
            raise DeriError(
                f"--engine ray: no worker can be started; is deri installed on all nodes?\n{last}"
            ) from error
        if there != __version__:
            raise DeriError(
                f"--engine ray: a node has deri {there}, this one {__version__}: install the same everywhere"
            )
        self._version, self._failed = there, 0
        return True

    def run(self, task: Task[R]) -> Outcome[R]:
        """Do a task, see :class:`deri.workers.pool.Worker`."""
        errors = self._ray.exceptions
        result = self._actor.run.remote(task)
        try:
            while not self._over.is_set():
                with suppress(errors.GetTimeoutError):
                    outcome: Outcome[R] = self._get(result)
                    return outcome
                with suppress(errors.GetTimeoutError):
                    self.done = self._get(self._actor.done.remote())
        except (errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError) as error:
            self.close()
            raise LostError(type(error).__name__) from error
        finally:
            self.done = 0
        return Outcome()

    def _get(self, reference: Any) -> Any:
        return self._ray.get(reference, timeout=TICK_SECONDS)

    def stop(self) -> None:
        """Drop the task in hands, soon."""
        self._over.set()

    def close(self) -> None:
        """End the actor; its process ends with it."""
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None


@contextmanager
def ray_workers(count: int | None, gpu: bool | None) -> Iterator[list[RayWorker]]:
    """Connect to the cluster of ``RAY_ADDRESS``, or to that of this machine, or start one here for the time being.

    Args:
        count: workers; None: one for each processor, or GPU, of the cluster.
        gpu: whether each has a GPU of its own; None: where the cluster has any.

    Raises:
        DeriError: Ray is not installed, there is no such cluster, or it has no GPU.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise DeriError(f"--engine ray needs Ray: {install('ray')}") from None
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, count)
    try:
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        if gpu and not gpus:
            raise DeriError("--device cuda: the Ray cluster has no GPU; use cpu")
        each = int(bool(gpus) if gpu is None else gpu)
        yield [RayWorker(ray, each) for _ in range(count or max(1, gpus if each else int(there.get("CPU", 1))))]
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, count: int | None) -> None:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "include_dashboard": False}
    address = os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address="auto", **quiet)
        return
    except (ConnectionError, ValueError, RuntimeError) as error:
        if address:
            raise DeriError(f"RAY_ADDRESS={address}: no Ray cluster can be reached there ({error})") from error
    try:
        ray.init(
            address="local", num_cpus=max(count or 0, os.cpu_count() or 1), object_store_memory=_OBJECT_STORE, **quiet
        )
    except Exception as error:  # Ray has no class for it
        raise DeriError(f"--engine ray: Ray could not be started on this machine: {error}") from error
