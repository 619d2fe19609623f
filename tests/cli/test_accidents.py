"""The machine fails while a command writes: one or two lines, exit code 2, nothing half-written, and a second run."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from deri.cli.main import main
from deri.evaluation import classical
from support import tiny, writers
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


def _score(name: str, *more: object, slow: bool = False) -> Case:
    def arguments(given: Path, out: Path) -> list[object]:
        return [name, "--model", given / "model", "--data", given / "store", *more, "--out", out / "result.json"]

    return Case(arguments, slow=slow)


TASK = ("--task", "ptbxl-super")
CASES: dict[str, Case] = {
    "simulate": Case(lambda g, o: ["simulate", "ptb-xl", "--records", 2, "--out", o / "data"]),
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
    "convert": Case(
        lambda g, o: ["convert", g / "merl.pth", "--text-encoder", g / "bert", "--out", o / "converted"]
    ),
    "info --html": Case(lambda g, o: ["info", g / "store", "--html", o / "page.html", "--examples", 1], slow=True),
    "info --plot": Case(lambda g, o: ["info", next((g / "data").rglob("*.hea")), "--plot", o / "ecg.png"]),
    "demo": Case(
        lambda g, o: ["demo", "--out", o / "demo", "--train-records", 200, "--test-records", 200, "train.epochs=1"],
        slow=True,
    ),
}  # fmt: skip


def run(*arguments: object) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


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
    assert not run("simulate", "csn", "--records", 4, "--out", folder / "data2")
    assert not run("prepare", "csn", folder / "data2", "--out", folder / "store2")
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
    monkeypatch.setattr(classical, "Boosting", partial(classical.Boosting, max_iter=4))


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
            safe_open(path, framework="pt").keys()
        elif path.is_file() and path.suffix in (".html", ".png", ".csv", ".md", ".yaml"):
            assert path.stat().st_size, path


def check_told(text: str) -> None:
    assert "Traceback" not in text, text
    lines = text.splitlines()
    message = lines[max(i for i, line in enumerate(lines) if line.startswith("deri: ")) :]
    assert 1 <= len(message) <= 2, text
    assert "cannot write" in message[0], text


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * c.slow) for n, c in CASES.items()])
def test_every_command_survives_every_write_that_fails(
    name: str, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    case = CASES[name]
    command = start(case, given, tmp_path / "good")
    with INJECTOR.below(tmp_path / "good"):
        assert not run(*command), capsys.readouterr().err
    check_whole(tmp_path / "good")
    writes = INJECTOR.count
    assert writes, "the hook sees no write"
    slow = request.config.getoption("--slow")
    most = 3 if name in ("benchmark", "demo", "finetune") else 12 if slow else 2
    wanted = sorted({*np.linspace(1, writes, most).round().astype(int).tolist()})
    for i, first in enumerate(wanted):
        out = tmp_path / f"out{first}"
        command = start(case, given, out)
        capsys.readouterr()
        with INJECTOR.below(out, first, ERRORS[i % len(ERRORS)]):
            code = run(*command)
        text = capsys.readouterr().err
        assert code == 2, (first, writes, text)
        check_told(text)
        check_whole(out)
        assert run(*command) == 0, (first, capsys.readouterr().err)
        check_whole(out)
        shutil.rmtree(out)
