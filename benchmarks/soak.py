"""Prepare, pre-train, index, search and serve, round after round, while the machine fails. Prints one JSON object.

    python benchmarks/soak.py [--minutes 60] [--seed 0]

Each round makes all anew from the same 80 simulated recordings. Before each command ends well it meets accidents drawn
at random: a SIGKILL at a random moment, a disk that is full at a random place (a tmpfs of 64 MB; where nothing can be
mounted, a limit on the size of files), and a bit flipped at random in what the commands wrote. Then the command is run
again and, where a file is damaged, after the cure that its error names. At the end store, weights, what the index finds
and what the service answers must be those of commands that nobody disturbed.

`flips` are `noticed` by a command or by reading all, or of `no_effect` on anything read; `silently_wrong` names results
that differ without a word, `lost` what could not be had again and checkpoints that a restart went behind, `untold` ends
of a command without one line that says why, `leftovers` temporary files at the end of a round. Of these there must be
none, or the script ends with code 1. One service answers through the whole soak: `service` has its resident memory
after each round.

Commands are processes that are forked from one which has imported the package, so that the time goes into their work.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import numpy as np

import bit_flips
import serve
from chaos import checkpoint_step
from deri.errors import DeriError
from deri.models import TextEncoder
from deri.models.text import build_text_encoder
from deri.recipes import load_recipe

STAGES = {"prepare": "store", "pretrain": "run", "index": "index", "search": "found.csv", "serve": ""}
"""What each command makes."""
BESIDE = {"text_features", "measurements", "statements"}
"""Folders of a store that its readers make: which of them are there depends on what was run."""
DISK = 64 << 20
FLAT_MB = 8.0
"""Growth of the service's memory between the second quarter and the last that still is noise."""
ATTEMPTS = 4
ASKED = 10
"""How often the lasting service answers all requests after a round."""


def child(arguments: list[str], messages: Path, limit: int | None) -> None:
    """``deri ARGUMENTS`` in this process, its output in a file; no file of more than ``limit`` bytes can be written."""
    with open(messages, "wb") as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    from deri.cli.main import main as deri

    sys.modules["__main__"] = ModuleType("__main__")  # else processes that the command spawns import this file
    deri(arguments)


@dataclass
class Outcome:
    """What the accidents did; see the head of this file."""

    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    full_disks: Counter[str] = field(default_factory=Counter)
    flips: Counter[str] = field(default_factory=Counter)
    cures: int = 0
    silently_wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def bad(self) -> bool:
        """Whether something must not have happened."""
        return bool(self.silently_wrong or self.lost or self.untold or self.leftovers)


class Commands:
    """Runs the commands of a round in ``disk / "round"``; ``work`` is on a disk that never fills up."""

    def __init__(self, disk: Path, work: Path, overrides: list[str], seed: int) -> None:
        self.folder, self.work = disk / "round", work
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(
            ["__main__", "deri.cli.index", "deri.serving.run", "deri.training.pretrain",
             "transformers.models.bert.modeling_bert"]
        )  # fmt: skip
        store, run, index, found = (str(self.folder / name) for name in ("store", "run", "index", "found.csv"))
        device = ("--device", "cpu")
        self.arguments = {
            "prepare": ["prepare", "ptb-xl", str(work / "source"), "--out", store],
            "pretrain": ["pretrain", "--data", store, "--out", run, "--recipe", "demo", "--resume", *device,
                         *overrides, "train.checkpoint_steps=1"],
            "index": ["index", "--model", run, store, "--out", index, *device],
            "search": ["search", "--index", index, "atrial fibrillation", "--out", found, *device],
            "serve": ["serve", "--index", index, "--port", "0", *device],
        }  # fmt: skip
        self.draw = random.Random(seed)

    def warm(self) -> None:
        """Wait until the process that others are forked from has imported the package."""
        process = self.context.Process(target=os.getpid)
        process.start()
        process.join()

    def start(self, stage: str, limit: int | None = None, name: str = "messages") -> tuple[ForkServerProcess, Path]:
        """The process of a command, and the file of its messages."""
        messages = self.work / name
        messages.unlink(missing_ok=True)
        arguments = self.arguments[stage]
        if stage == "prepare" and self.draw.random() < 0.25:
            arguments = [*arguments, "--workers", "2"]
        process = self.context.Process(target=child, args=(arguments, messages, limit))
        process.start()
        return process, messages

    def run(self, stage: str, limit: int | None = None) -> tuple[int, str]:
        """Exit code and messages of a command."""
        process, messages = self.start(stage, limit)
        process.join(300)
        if process.exitcode is None:
            process.kill()
            process.join()
            return -1, f"{stage} did not end in 300 s"
        return process.exitcode, messages.read_text(errors="replace")


class Service:
    """``deri serve`` of a round; it has answered once it is there."""

    def __init__(self, commands: Commands, requests: list[bytes], name: str) -> None:
        self.process, self.messages = commands.start("serve", name=name)
        self.requests, self.address = requests, ("", 0)

    def wait(self) -> bool:
        """Until it listens; False where it ended before."""
        while self.process.is_alive():
            if found := re.search(r"(http://\S+?)/?;", self.told):
                url = urlsplit(found[1])
                self.address = (url.hostname or "", url.port or 0)
                return True
            time.sleep(0.02)
        return False

    @property
    def told(self) -> str:
        """Its messages."""
        return self.messages.read_text(errors="replace") if self.messages.exists() else ""

    def answers(self) -> list[Any]:
        """Of all requests."""
        return [self._answer(one) for one in self.requests]

    def _answer(self, request: bytes) -> Any:
        with socket.create_connection(self.address, timeout=60) as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return [response.status, json.loads(response.read())]

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.terminate()
        self.process.join(60)
        return self.process.exitcode if self.process.exitcode is not None else -1


class Soak:
    """Rounds of commands and accidents."""

    def __init__(self, commands: Commands, mounted: bool, encoder: TextEncoder) -> None:
        self.commands, self.mounted, self.outcome = commands, mounted, Outcome()
        self.draw, self.folder = commands.draw, commands.folder
        self.requests = [
            serve.request(path, pair)
            for pair in serve.records(commands.work / "source", 4)
            for path in ("/v1/embed", "/v1/search")
        ]
        self.readers = {"store": bit_flips.of_store(encoder), "run": of_run, "index": bit_flips.of_index}
        self.seconds: dict[str, float] = {}
        self.written: dict[str, int] = {}
        self.expected: dict[str, Any] = {}

    def undisturbed(self) -> Service:
        """One round without accidents, for :attr:`expected`; returns the service that answers through the soak."""
        self.folder.mkdir()
        self.commands.warm()
        for stage in list(STAGES)[:-1]:
            before, start = size(self.folder), time.perf_counter()
            code, told = self.commands.run(stage)
            assert not code, told
            self.seconds[stage] = time.perf_counter() - start
            self.written[stage] = size(self.folder) - before
        self.expected = {name: read(self.folder / name) for name, read in self.readers.items()} | self.bytes_now()
        start = time.perf_counter()
        service = Service(self.commands, self.requests, "service")
        assert service.wait(), service.told
        self.expected["serve"] = service.answers()
        self.seconds["serve"] = time.perf_counter() - start
        assert all(status == 200 for status, _ in self.expected["serve"]), self.expected["serve"]
        shutil.rmtree(self.folder)
        return service

    def bytes_now(self) -> dict[str, Any]:
        """Digests of all files of the model and of the store but for what is computed beside it, and what was found."""
        every = [path for name in ("store", "run/model") for path in (self.folder / name).rglob("*")]
        files = [path for path in every if path.is_file() and not set(path.parts) & BESIDE]
        digests = {str(p.relative_to(self.folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(files)}
        return {"bytes": digests, "found": (self.folder / "found.csv").read_text()}

    def round(self) -> None:
        """All commands, each with up to four accidents before it ends well."""
        self.folder.mkdir()
        for stage in STAGES:
            for _ in range(self.draw.randrange(5)):
                accident = self.draw.choice(["kill", "kill", "full", "flip"] if stage != "serve" else ["kill", "flip"])
                getattr(self, accident)(stage)
            self.settle(stage)
        for name in self.readers:
            self.read(name, "the end of a round")
        self.compare("the end of a round", self.bytes_now(), {name: self.expected[name] for name in ("bytes", "found")})
        self.outcome.leftovers += [str(p.relative_to(self.folder)) for p in self.folder.rglob("*.tmp")]
        self.outcome.rounds += 1
        shutil.rmtree(self.folder)

    def kill(self, stage: str) -> None:
        """SIGKILL at a random moment; a checkpoint that was there is gone on from."""
        process, _ = self.commands.start(stage)
        process.join(self.draw.uniform(0, self.seconds[stage] * 1.1))
        if process.exitcode is None:
            process.kill()
            self.outcome.kills[stage] += 1
        process.join()
        kept = checkpoint_step(self.folder / "run")
        if stage == "pretrain" and kept:
            told = self.settle(stage)
            resumed = re.search(r"resuming \S+ at step (\d+)", told)
            if resumed is None or int(resumed[1]) < kept:
                self.outcome.lost.append(f"step {kept} of a checkpoint after a kill: {told[-300:]}")

    def full(self, stage: str) -> None:
        """No room for a random part of what the command writes."""
        room = self.draw.randrange(int(self.written[stage] * 1.2) + 1)
        if self.mounted:
            filler = self.folder.parent / "filler"
            filler.write_bytes(bytes(max(0, shutil.disk_usage(self.folder).free - room)))
            code, told = self.commands.run(stage)
            filler.unlink()
        else:
            code, told = self.commands.run(stage, limit=room)
        self.outcome.full_disks["told" if code else "had_room"] += 1
        if code:
            self.require_told(f"{stage} on a full disk", code, told)

    def flip(self, stage: str) -> None:
        """A bit of a random file; the command is run, then all is read."""
        files = [p for name in self.readers for p in sorted((self.folder / name).rglob("*")) if p.is_file()]
        if not (files := [path for path in files if path.stat().st_size]):
            return
        path = self.draw.choice(files)
        data = bytearray(path.read_bytes())
        place, bit = self.draw.randrange(len(data)), self.draw.randrange(8)
        before = bytes(data)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        where = f"bit {bit} of byte {place} of {path.relative_to(self.folder)} before {stage}"
        cures, told = self.outcome.cures, self.settle(stage)
        wrong = [self.read(name, where) for name in self.readers if self.whole(name)]
        noticed = self.outcome.cures > cures or "warning: " in told
        self.outcome.flips["silently_wrong" if any(wrong) else "noticed" if noticed else "no_effect"] += 1
        if path.is_file() and path.read_bytes() == bytes(data):
            path.write_bytes(before)

    def whole(self, name: str) -> bool:
        """Whether the command that makes a folder has ended well."""
        at = {"store": "store.json", "run": "model/config.json", "index": "index.json"}[name]
        return (self.folder / name / at).is_file() and name in self.done

    @property
    def done(self) -> set[str]:
        """What is made before the command that runs now, and by it."""
        stages = list(STAGES)
        return {STAGES[stage] for stage in stages[: stages.index(self.stage) + 1]}

    stage = "prepare"

    def read(self, name: str, where: str) -> bool:
        """Whether a folder gives something else than it should, and no error that can be cured."""
        for _ in range(ATTEMPTS):
            try:
                return not self.compare(where, self.readers[name](self.folder / name), self.expected[name])
            except DeriError as error:
                self.cure(str(error), 1)
                self.settle(self.stage)
        self.outcome.lost.append(f"{name} after {where}")
        return True

    def compare(self, where: str, found: Any, expected: Any) -> bool:
        """Whether two results are the same; else it is told."""
        try:
            np.testing.assert_equal(found, expected)
        except AssertionError as error:
            self.outcome.silently_wrong.append(f"{where}: {str(error)[:300]}")
            return False
        return True

    def settle(self, stage: str) -> str:
        """Run a command, and those before it whose folders a cure removed, until it ends well; returns the messages."""
        self.stage, all_told = stage, ""
        for attempt in range(ATTEMPTS):
            missing = [one for one in self.before(stage) if not (self.folder / STAGES[one]).exists()]
            for one in [*missing, stage]:
                code, told = self.served() if one == "serve" else self.commands.run(one)
                all_told += told
                if code:
                    self.require_told(one, code, told)
                    self.cure(told, attempt)
                    break
            else:
                return all_told
        self.outcome.lost.append(f"{stage} never ended well: {all_told[-600:]}")
        raise RuntimeError(self.outcome.lost[-1])

    def before(self, stage: str) -> list[str]:
        """The commands whose folders it needs."""
        stages = list(STAGES)
        return [one for one in stages[: stages.index(stage)] if one != "search"]

    def served(self) -> tuple[int, str]:
        """Start the service, compare its answers and stop it; exit code, 0 where SIGTERM ended it, and messages."""
        service = Service(self.commands, self.requests, "messages")
        if service.wait():
            self.compare("answers of the service", service.answers(), self.expected["serve"])
        code = service.stop()
        return (0 if code in (0, 128 + signal.SIGTERM, -signal.SIGTERM) else code), service.told

    def cure(self, told: str, attempt: int) -> None:
        """Delete what the error names or, where that did not help, all that its command made."""
        self.outcome.cures += 1
        named = [Path(text) for text in re.findall(rf"{re.escape(str(self.folder))}/[^\s:,;()]+", told)]
        named = [path for path in named if path.exists()]
        if not named:
            return
        path = named[0]
        if attempt or "delete it" not in told:
            path = self.folder / path.relative_to(self.folder).parts[0]
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def require_told(self, what: str, code: int, told: str) -> None:
        """Code 2 and a message without a traceback, or it is noted."""
        if code != 2 or "Traceback" in told or "deri: " not in told:
            self.outcome.untold.append(f"{what}: code {code}: {told[-600:]}")


def of_run(path: Path) -> list[Any]:
    """What a run is but for its speed."""
    *all_else, metrics, about = bit_flips.of_run(path)
    timeless = [{key: value for key, value in line.items() if not key.endswith("_per_s")} for line in metrics]
    return [*all_else, timeless, about]


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a tmpfs at ``folder``; False where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(folder)]
    mounted = not subprocess.run(mount, capture_output=True, check=False).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def memory(values: list[float], requests: int) -> dict[str, Any]:
    """Of the service: after the first round, the last one, and whether it grew from the second quarter to the last."""
    quarter = max(1, len(values) // 4)
    growth = float(np.median(values[-quarter:]) - np.median(values[quarter : 2 * quarter] or values))
    shown = [round(value, 1) for value in values[:: max(1, len(values) // 12)]]
    return {"requests": requests, "memory_mb": shown, "growth_mb": round(growth, 1), "flat": growth < FLAT_MB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk") as mounted:
        work = Path(name)
        overrides = bit_flips.make_source(work)
        encoder = build_text_encoder(load_recipe("demo", overrides).model.text)
        soak = Soak(Commands(work / "disk", work, overrides, options.seed), mounted, encoder)
        service, values, start = soak.undisturbed(), list[float](), time.perf_counter()
        try:
            while not values or time.perf_counter() - start < 60 * options.minutes:
                soak.round()
                for _ in range(ASKED):
                    soak.compare("answers of the lasting service", service.answers(), soak.expected["serve"])
                values.append(serve.megabytes(service.process.pid or 0))
                about = f"{time.perf_counter() - start:.0f} s, service {values[-1]:.1f} MB"
                print(f"{about}: {soak.outcome}", file=sys.stderr, flush=True)
            seconds = time.perf_counter() - start
        finally:
            service.stop()
    told = memory(values, ASKED * len(values) * len(soak.requests))
    about = {"benchmark": "soak", "seed": options.seed, "seconds": round(seconds, 1)}
    disks = "tmpfs" if mounted else "RLIMIT_FSIZE"
    print(json.dumps({**about, **vars(soak.outcome), "full_disks_by": disks, "service": told}, indent=2))
    sys.exit(int(soak.outcome.bad or not told["flat"]))


if __name__ == "__main__":
    main()
