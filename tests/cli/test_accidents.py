"""The machine fails while a command writes: one or two lines, exit code 2, nothing half-written, and a second run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from deri.cli import report
from deri.cli.main import app
from deri.evaluation import classical
from deri.models.tensors import load_tensors
from deri.training.pretrain import PairTask
from support import forked, tiny, writers
from support.command import run
from support.ports import free_port
from support.released import released_merl

ERRORS = (errno.ENOSPC, errno.EROFS, errno.EACCES)
SMALL = [
    "model.base_width=4", "model.dim=32", "model.decoder.hidden=16", "model.decoder.head_dim=8",
    "model.text.pooling=mean", "train.batch_size=8", "train.epochs=2", "train.checkpoint_steps=1",
]  # fmt: skip


class Injector:
    """An audit hook that fails the calls that open for writing, rename, link or make a folder below ``root``.

    From the ``first`` such call on, as a disk stays full. Audit hooks see calls of all Python code; what Arrow and
    safetensors write goes through a rename of ours.
    """

    def __init__(self) -> None:
        self.root, self.first, self.number, self.count, self.on = "", 0, errno.ENOSPC, 0, False
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            if not (set(mode or "") & set("wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event in ("os.mkdir", "os.rename", "os.link"):
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root):
            self.count += 1
            if self.first and self.count >= self.first:
                raise OSError(self.number, os.strerror(self.number), os.fspath(path))

    @contextmanager
    def below(self, root: Path, first: int = 0, number: int = errno.ENOSPC) -> Iterator[None]:
        self.root, self.first, self.number, self.count, self.on = str(root), first, number, 0, True
        try:
            yield
        finally:
            self.on = False


INJECTOR = Injector()


@dataclass(frozen=True)
class Case:
    """A command: its arguments, and what it changes in place, to be copied first."""

    arguments: Callable[[Path, Path], list[object]]
    copied: tuple[str, ...] = ()
    slow: bool = False


def _score(name: str, *more: object, result: str = "result.json", slow: bool = False) -> Case:
    def arguments(given: Path, out: Path) -> list[object]:
        return [name, "--model", given / "model", "--data", given / "store", *more, "--out", out / result]

    return Case(arguments, slow=slow)


TASK = ("--task", "ptbxl-super")
SECONDS: dict[str, float] = {}
"""That a command takes undisturbed, where a test has measured it."""
CASES: dict[str, Case] = {
    "simulate": Case(lambda g, o: ["simulate", "ptb-xl", "--records", 2, "--out", o / "data"]),
    "download": Case(lambda g, o: ["download", "ptb-xl", "--url", (g / "url").read_text(), "--connections", 1,
                           "--to", o / "data"]),
    "prepare": Case(lambda g, o: ["prepare", "ptb-xl", g / "data", "--limit", 6, "--out", o / "store"]),
    "merge": Case(lambda g, o: ["merge", g / "store", g / "store2", "--out", o / "merged"]),
    "pretrain": Case(
        lambda g, o: ["pretrain", "--data", o / "store", "--out", o / "run", "--resume", "--device", "cpu",
                      f"model.text.encoder={g / 'bert'}", *SMALL],
        ("store",),
        slow=True,
    ),
    "zeroshot": _score("zeroshot", *TASK),
    "probe": _score("probe", *TASK, slow=True),
    "retrieval": _score("retrieval"),
    "finetune": Case(
        lambda g, o: ["finetune", "--model", g / "model", "--data", g / "store", *TASK, "--epochs", 1,
                      "--out", o / "tuned"],
        slow=True,
    ),
    "benchmark": Case(
        lambda g, o: ["benchmark", "--model", g / "model", "--data", g / "store", "--tasks", "ptbxl-super",
                      "--fraction", 100, "--draws", 20, "--out", o / "bench"],
        slow=True,
    ),
    "report train": Case(
        lambda g, o: ["report", "train", "--model", g / "model", "--data", g / "store", "--out", o / "run",
                      "--resume", *writers.SMALL, "epochs=2"],
        slow=True,
    ),
    "report generate": Case(
        lambda g, o: ["report", "generate", "--writer", g / "run", "--data", g / "store", "--out", o / "r.parquet"]
    ),
    "report evaluate": Case(
        lambda g, o: ["report", "evaluate", g / "test.parquet", "--draws", 10, "--out", o / "scores.json"]
    ),
    "report baselines": Case(
        lambda g, o: ["report", "baselines", "--model", g / "model", "--data", g / "store", "--kind", "frequent",
                      "--out", o / "b.parquet"]
    ),
    "report calibrate": Case(
        lambda g, o: ["report", "calibrate", "--writer", o / "run", "--data", g / "store"], ("run",), slow=True
    ),
    "report classify": Case(
        lambda g, o: ["report", "classify", "--generated", g / "test.parquet", "--generated-val", g / "val.parquet",
                      "--data", g / "store", *TASK, "--by", "labeller", "--draws", 10, "--out", o / "c.json"]
    ),
    "embed": Case(lambda g, o: ["embed", "--model", g / "model", g / "store", "--out", o / "e.parquet"]),
    "classify": Case(
        lambda g, o: ["classify", "--model", g / "model", g / "store", "--labels", "AFIB", "--out", o / "c.csv"]
    ),
    "index": Case(lambda g, o: ["index", "--model", g / "model", g / "store", "--out", o / "index"]),
    "search": Case(lambda g, o: ["search", "sinus rhythm", "--index", g / "index", "--out", o / "found.csv"]),
    "calibrate": _score("calibrate", *TASK, "--split", "all", result="calibrated"),
    "convert": Case(
        lambda g, o: ["convert", g / "merl.pth", "--text-encoder", g / "bert", "--out", o / "converted"]
    ),
    "export": Case(lambda g, o: ["export", "--model", g / "model", "--out", o / "encoder.onnx"]),
    "info --html": Case(lambda g, o: ["info", g / "store", "--html", o / "page.html", "--examples", 1], slow=True),
    "info --plot": Case(lambda g, o: ["info", next((g / "data").rglob("*.hea")), "--plot", o / "ecg.png"]),
}  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder without a line on stderr."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def serve(folder: Path, address: Path) -> None:
    """Serve ``folder`` as PhysioNet would, as long as the tests run; ``address`` tells where."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())[:5]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.relative_to(folder)}\n" for file in files]
    (folder / "SHA256SUMS.txt").write_text("".join(sums))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address.write_text(f"http://127.0.0.1:{server.server_port}/")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs of all commands."""
    folder = tmp_path_factory.mktemp("given")
    tiny.model(pooling="mean").save_pretrained(folder / "model")
    encoder = tiny.text_encoder()
    encoder.model.save_pretrained(folder / "bert")
    encoder.tokenizer.save_pretrained(folder / "bert")
    torch.save(released_merl("resnet18"), folder / "merl.pth")
    assert not run("simulate", "ptb-xl", "--records", 60, "--seed", 3, "--out", folder / "data")
    assert not run("prepare", "ptb-xl", folder / "data", "--out", folder / "store")
    serve(folder / "data", folder / "url")
    assert not run("simulate", "csn", "--records", 4, "--out", folder / "data2")
    assert not run("prepare", "csn", folder / "data2", "--out", folder / "store2")
    assert not run("index", "--model", folder / "model", folder / "store2", "--out", folder / "index")
    common = ["--data", folder / "store"]
    assert not run(
        "report", "train", "--model", folder / "model", *common, "--out", folder / "run", *writers.SMALL, "epochs=1"
    )
    for split in ("val", "test"):
        out = folder / f"{split}.parquet"
        assert not run("report", "generate", "--writer", folder / "run", *common, "--split", split, "--out", out)
    return folder


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(classical.BOOSTING, "max_iter", 4)


def start(case: Case, given: Path, out: Path) -> list[object]:
    out.mkdir(parents=True)
    for name in case.copied:
        shutil.copytree(given / name, out / name)
    return case.arguments(given, out)


def check_whole(out: Path) -> None:
    """Every file under a final name can be read, and no temporary file is left."""
    for path in out.rglob("*"):
        inside = path.relative_to(out).parts
        if any(part.startswith(".") or part.endswith(".work") for part in inside):
            assert not path.name.endswith(".tmp"), path
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".npy":
            np.load(path, mmap_mode="r")
        elif path.suffix == ".safetensors":
            load_tensors(path, "")
        elif path.is_file() and path.suffix in (".html", ".png", ".csv", ".md", ".yaml"):
            assert path.stat().st_size, path


def check_told(text: str) -> None:
    assert "Traceback" not in text, text
    lines = text.splitlines()
    message = lines[max(i for i, line in enumerate(lines) if line.startswith("deri: ")) :]
    assert 1 <= len(message) <= 2, text
    assert "cannot write" in message[0], text


def test_every_command_has_a_case() -> None:
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    commands |= {f"report {c.callback.__name__}" for c in report.app.registered_commands if c.callback}
    assert commands == {name.split(" --")[0] for name in CASES} | {"demo", "serve"}  # which writes no file


@pytest.mark.parametrize("first", [1, 30, 500])
def test_the_demo_survives_a_write_that_fails(first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before it trains. What it does then are other commands."""
    command = ["demo", "--out", tmp_path / "demo", "--train-records", 200, "--test-records", 200]
    with INJECTOR.below(tmp_path, first):
        assert run(*command) == 2
    check_told(capsys.readouterr().err)
    check_whole(tmp_path)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * c.slow) for n, c in CASES.items()])
def test_every_command_survives_every_write_that_fails(
    name: str, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if name == "export":
        pytest.importorskip("onnxruntime")
    case = CASES[name]
    command = start(case, given, tmp_path / "good")
    began = time.perf_counter()
    with INJECTOR.below(tmp_path / "good"):
        assert not run(*command), capsys.readouterr().err
    SECONDS[name] = time.perf_counter() - began
    check_whole(tmp_path / "good")
    writes = INJECTOR.count
    assert writes, "the hook sees no write"
    most = 4 if request.config.getoption("--slow") and name not in ("benchmark", "finetune") else 2
    wanted = sorted({*np.linspace(1, writes, most).round().astype(int).tolist()})
    out = tmp_path / "out"
    command = start(case, given, out)

    def fail(i: int, first: int) -> int:
        capsys.readouterr()
        with INJECTOR.below(out, first, ERRORS[i % len(ERRORS)]):
            return run(*command)

    for i, first in enumerate(wanted):
        code = fail(i, first)  # it goes on from what the one before left
        if not code and INJECTOR.count < first:  # less was left to do
            check_whole(out)
            shutil.rmtree(out)
            start(case, given, out)
            code = fail(i, first)
        text = capsys.readouterr().err
        assert code == 2, (first, writes, text)
        check_told(text)
        check_whole(out)
    assert run(*command) == 0, capsys.readouterr().err
    check_whole(out)


@pytest.mark.parametrize(
    ("name", "kib"),
    [(n, 0) for n in ("simulate", "prepare", "merge", "zeroshot", "embed", "convert", "report classify")]
    + [(n, 24) for n in ("simulate", "prepare", "merge", "convert")],
)
def test_a_full_disk(name: str, kib: int, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real one, on which Arrow and safetensors fail as well."""
    with tmpfs(tmp_path / "disk") as disk:
        command = start(CASES[name], given, disk / "out")
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        filler.write_bytes(bytes(free - kib * 1024))
        assert run(*command) == 2
        check_told(capsys.readouterr().err)
        check_whole(disk / "out")
        filler.unlink()
        assert run(*command) == 0, capsys.readouterr().err
        check_whole(disk / "out")


@contextmanager
def tmpfs(folder: Path, size: str = "64m") -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_read_only_places_are_told_before_the_work(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tmpfs(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        monkeypatch.setattr("deri.models.load_model", lambda *a, **b: pytest.fail("the work began"))
        for name, case in CASES.items():
            if case.copied:  # they write into what they are given
                continue
            assert run(*case.arguments(given, disk)) == 2, name
            text = capsys.readouterr().err
            check_told(text)
            assert "Read-only file system" in text, name


def test_features_of_a_read_only_store_go_to_the_cache_folder(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DERI_CACHE", str(tmp_path / "cache"))
    with tmpfs(tmp_path / "disk") as disk:
        shutil.copytree(given / "store", disk / "store")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for out in ("first", "second"):
            bert = f"model.text.encoder={given / 'bert'}"
            command = ["pretrain", "--data", disk / "store", "--out", tmp_path / out, bert, *SMALL, "train.epochs=1"]
            assert run(*command, "--device", "cpu") == 0, capsys.readouterr().err
            kept = [path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("tokens.npy")]
            assert len(kept) == 1
        assert not (disk / "store" / "text_features").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["simulate", "ptb-xl", "--records", 2, "--out", "FILE/below"], "a file is where a folder should be"),
        (["simulate", "ptb-xl", "--records", 2, "--out", "FILE"], "FILE"),
        (["zeroshot", "--model", "m", "--data", "s", "--task", "t", "--out", "."], "is a folder: name a file"),
        (["zeroshot", "--model", "m", "--data", "s", "--task", "t", "--out", "o", "--device", "cuda:7"], "cuda:7"),
        (["probe", "--model", "m", "--data", "A", "--data", "B", "--task", "t", "--out", "C"], "deri merge"),
        (["pretrain", "--data", "A", "--data", "B", "--out", "C"], "A is no store"),
        (["zeroshot", "--model", "m", "--model", "n", "--data", "s", "--task", "t", "--out", "o"], "m and n"),
    ],
)
def test_what_can_be_known_is_told_before_the_work(
    arguments: list[object], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("mine")
    assert run(*arguments) == 2
    text = capsys.readouterr().err
    assert named in text
    assert len(text.splitlines()) <= 2
    assert (tmp_path / "FILE").read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")],
)
def test_memory_that_does_not_suffice_names_the_batch(
    error: Exception, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = start(CASES["pretrain"], given, tmp_path / "out")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(PairTask, "forward", fail)
    assert run(*command) == 2
    text = capsys.readouterr().err.splitlines()[-1]
    assert text.startswith("deri: out of memory on cpu with batches of 8 records: lower train.batch_size")
    monkeypatch.undo()
    monkeypatch.setattr("deri.models.base.EcgTextModel.encode_text", fail)
    assert run(*CASES["classify"].arguments(given, tmp_path)) == 2
    assert "lower the batch size" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deri", "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("deri: cannot write the output: No space left")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals,
    given: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = [*start(CASES["pretrain"], given, tmp_path / "out"), "train.checkpoint_steps=1000"]
    original = PairTask.read

    def read(self: PairTask, step: int) -> Any:
        if step == 2:
            os.kill(os.getpid(), number)
        return original(self, step)

    monkeypatch.setattr(PairTask, "read", read)
    before = signal.getsignal(number)
    assert run(*command, "train.prefetch=0") == 128 + number
    assert capsys.readouterr().err.splitlines()[-1] == "deri: interrupted; go on with --resume"
    assert signal.getsignal(number) is before
    _, about = load_tensors(tmp_path / "out/run/checkpoints/last.safetensors", "")
    assert json.loads(about["progress"])["step"] == 3
    monkeypatch.undo()
    assert run(*command) == 0
    assert "at step 3" in capsys.readouterr().err


def run_two(command: list[object], folder: Path, **environment: str) -> list[tuple[int | None, str]]:
    """Exit code and messages of each of two processes that train together."""
    folder.mkdir()
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), **environment}
    processes = [
        forked.start(folder / rank, *command, function=forked.pretrain_until_a_signal, **shared, RANK=rank,
                     LOCAL_RANK=rank)
        for rank in ("0", "1")
    ]  # fmt: skip
    for process in processes:
        process.join(300)
    return [(process.exitcode, (folder / str(rank)).read_text()) for rank, process in enumerate(processes)]


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_keeps_a_checkpoint(given: Path, tmp_path: Path) -> None:
    """Both stop at the same step, whichever was told to, with the exit code of a single process; then they go on."""
    command = [*start(CASES["pretrain"], given, tmp_path / "out"), "train.checkpoint_steps=1000", "train.prefetch=0"]
    for code, text in run_two(command, tmp_path / "first", NUMBER=str(int(signal.SIGTERM))):
        assert code == 128 + signal.SIGTERM, text
        assert text.splitlines()[-1] == "deri: interrupted; go on with --resume"
    _, about = load_tensors(tmp_path / "out/run/checkpoints/last.safetensors", "")
    assert json.loads(about["progress"])["step"] == 3
    check_whole(tmp_path / "out")
    for rank, (code, text) in enumerate(run_two(command, tmp_path / "second")):
        assert code == 0, text
        assert ("at step 3" in text) == (rank == 0)


LONG = ("prepare", "prepare workers", "pretrain", "report train")
ONCE = ("simulate", "merge", "finetune", "calibrate", "convert")
"""Commands that refuse to make again what they made."""


def written(out: Path) -> set[Path]:
    """The files below, but hidden ones."""
    names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    return {name for name in names if not any(part.startswith(".") for part in name.parts)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "number"),
    [(name, number) for name in LONG for number in (signal.SIGINT, signal.SIGTERM)]
    + [(name, (signal.SIGINT, signal.SIGTERM)[i % 2]) for i, name in enumerate(CASES) if name not in LONG],
)
def test_signals_at_random_moments(name: str, number: signal.Signals, given: Path, tmp_path: Path) -> None:
    case = CASES[name.split(" workers")[0]]
    draw = random.Random(f"{name}{number}")
    for i in range(2 if name in LONG else 1):
        out, messages = tmp_path / str(i), tmp_path / "messages"
        command = [str(a) for a in start(case, given, out)]
        if name.startswith("prepare"):
            command = [*command[:3], "--out", *command[-1:], "--workers", "2" if "workers" in name else "1"]
        process = forked.start(messages, *command)
        process.join(0.1 + draw.random() * (3 if "workers" in name else SECONDS.get(name, 2)))
        if process.exitcode is None:
            os.kill(process.pid or 0, number)
        process.join(120)
        code, text = process.exitcode, messages.read_text()
        assert "Traceback" not in text, text
        if code == -number:  # the signal came after the work, while Python was ending
            assert text
        else:
            assert code in (0, 128 + number), text  # 0: it was done before
        if code == 128 + number:
            assert text.splitlines()[-1].startswith("deri: interrupted; "), text
        check_whole(out)
        if code not in (0, -number):  # else it was done, and some refuse to do it again
            left = written(out)
            again = run(*command)
            if again == 2 and name in ONCE:  # the signal met it behind its last step: all is there
                other = tmp_path / "other"
                assert run(*start(case, given, other)) == 0
                assert left == written(other)
            else:
                assert again == 0
            check_whole(out)
        shutil.rmtree(out)
