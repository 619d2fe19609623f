"""Pre-trainings that several processes share: forks of the one that tests, so that nothing is imported again."""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from deri.training.distributed import join_replicas
from deri.training.pretrain import PairTask
from support import forked, small_run
from support.ports import free_port


@dataclass
class Run:
    """A pre-training that goes on in ``out``.

    What each process reads is written beside ``out``, by the sums of the ECGs. ``stop``: the step in which all are
    interrupted.
    """

    store: Path
    text: Path
    out: Path
    overrides: Sequence[str] = ()
    recipe: str = "deri"
    stop: int | None = None

    def __call__(self, rank: int = 0, world: int = 1) -> None:
        original = PairTask.read

        def read(task: PairTask, step: int) -> Any:
            batches = original(task, step)
            with open(f"{self.out}-seen-{world}-{rank}.jsonl", "a") as seen:
                seen.write(json.dumps([step, [float(ecg.double().sum()) for ecg in batches[0].ecg]]) + "\n")
            if step == self.stop:
                os.kill(os.getpid(), signal.SIGINT)
            return batches

        content = small_run.recipe(self.text, "train.prefetch=0", *self.overrides, name=self.recipe)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
        try:
            with patch.object(PairTask, "read", read), suppress(KeyboardInterrupt):
                small_run.run(self.store, self.out, content, resume=True)
        finally:
            signal.signal(signal.SIGINT, before)


def perform(runs: Sequence[Run], world: int) -> None:
    """Perform ``runs`` one after the other in ``world`` processes; in this one where it is one."""
    if world == 1:
        for run in runs:
            run()
        return
    port = free_port()
    processes = [forked.fork(_perform, runs, rank, world, port) for rank in range(world)]
    for process in processes:
        process.join()
    assert not any(process.exitcode for process in processes)


def _perform(runs: Sequence[Run], rank: int, world: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        with join_replicas("cpu"):
            for run in runs:
                run(rank, world)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
