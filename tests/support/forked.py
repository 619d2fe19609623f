"""Processes that are forked, so that nothing is imported again."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkProcess, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from deri.cli.main import main

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["deri.cli.index", "deri.evaluation.benchmark", "deri.generation.train", "deri.training.finetune",
     "transformers.models.bert.modeling_bert"]
)  # fmt: skip


def fork(function: Callable[..., object], *arguments: object) -> ForkProcess:
    """Begin a function in a fork of this process."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks of a process with threads
        process.start()
    return process


def run_until_killed(function: Callable[..., object], *arguments: object, at: str) -> None:
    """Call a function in a fork that is killed before it gives a file or folder the name ``at``, or removes that."""

    def deadly(move: Callable[..., None], position: int) -> Callable[..., None]:
        def call(*names: Any, **options: Any) -> None:
            if Path(names[position]).name == at:
                os.kill(os.getpid(), signal.SIGKILL)
            move(*names, **options)

        return call

    def work() -> None:
        os.replace, os.rename, os.link = (deadly(move, 1) for move in (os.replace, os.rename, os.link))
        shutil.rmtree = deadly(shutil.rmtree, 0)  # type: ignore[assignment]
        function(*arguments)

    process = fork(work)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def start(
    messages: Path, *arguments: object, function: Callable[[list[str]], object] = main, **environment: str
) -> ForkServerProcess:
    """Begin ``deri ARGUMENTS``, or another function of them, in a session of its own, its output in ``messages``."""
    given = str(messages), [str(argument) for argument in arguments], function, {**os.environ, **environment}
    process = _CONTEXT.Process(target=_perform, args=given)
    messages.unlink(missing_ok=True)
    process.start()
    while not messages.exists() and process.is_alive():
        time.sleep(0.005)
    return process


def _perform(
    messages: str, arguments: list[str], function: Callable[[list[str]], object], environment: dict[str, str]
) -> None:
    with open(messages, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a signal after the work ends the process without a word
    os.environ.clear()
    os.environ.update(environment)
    sys.modules["__main__"] = ModuleType("__main__")  # else processes that the command spawns import that of the tests
    function(arguments)


def pretrain_until_a_signal(arguments: list[str]) -> None:
    """``deri``, but the process of rank 1 gets the signal NUMBER of the environment in step 2, where there is one."""
    from deri.training.pretrain import PairTask

    original = PairTask.read

    def read(task: PairTask, step: int) -> object:
        if step == 2 and os.environ["RANK"] == "1" and "NUMBER" in os.environ:
            os.kill(os.getpid(), int(os.environ["NUMBER"]))
        return original(task, step)

    PairTask.read = read  # type: ignore[assignment,method-assign]
    main(arguments)
