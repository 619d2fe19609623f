"""examples/reproduce.sh on simulated data: every step, from recordings to tables."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from deri.evaluation import classical
from support.command import run

ROOT = Path(__file__).resolve().parents[1]
HERE = r"""() { local IFS=$'\t'; echo "$*" >&"$ASK"; read -r code <&"$ANSWERS"; return "$code"; }"""
"""A function of the shell that has commands run in the process of the tests, which has imported the package."""


def reproduce(work: Path) -> tuple[int, str, list[str]]:
    """Exit code, what the script itself prints, and the commands that it gives."""
    (asked, ask), (answers, answer) = os.pipe(), os.pipe()
    environment = os.environ | {"RECORDS": "100", "WORKERS": "1", "DERI": "here", "BASH_FUNC_here%%": HERE}
    environment |= {"ASK": str(ask), "ANSWERS": str(answers)}
    script, printed, given = str(ROOT / "examples" / "reproduce.sh"), work / "printed", []
    with open(printed, "w") as file:
        process = subprocess.Popen(
            ["bash", script, str(work), "--small"], env=environment, stdout=file, stderr=subprocess.STDOUT, cwd=work,
            pass_fds=(ask, answers),
        )  # fmt: skip
    os.close(ask)
    os.close(answers)
    with open(asked) as commands, open(answer, "w", buffering=1) as codes:
        for line in commands:
            given.append(line.partition("\t")[0])
            codes.write(f"{run(*line.removesuffix(os.linesep).split(chr(9)))}\n")
    return process.wait(), printed.read_text(), given


@pytest.mark.slow
def test_the_small_run_goes_from_recordings_to_tables_and_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(classical.BOOSTING, "max_iter", 4)
    code, printed, given = reproduce(tmp_path)
    assert code == 0, printed[-2000:] + capsys.readouterr().err[-2000:]
    assert given == [*["simulate", "prepare"] * 4, "pretrain", "benchmark", *["report"] * 6]
    results = json.loads((tmp_path / "runs" / "benchmark" / "results.json").read_text())
    scored = {(cell["task"], cell["mode"]) for cell in results["cells"] if cell["model"] == "demo"}
    tasks = ("ptbxl-super", "ptbxl-sub", "ptbxl-form", "ptbxl-rhythm", "cpsc2018", "csn")
    assert scored == {(task, mode) for task in tasks for mode in ("zero-shot", "probe")}
    assert "BLEU" in printed
    assert (tmp_path / "runs" / "reports-classes.json").is_file()
    before = (tmp_path / "runs" / "pretrain" / "model" / "model.safetensors").stat().st_mtime_ns
    code, printed, given = reproduce(tmp_path)
    assert code == 0, printed[-2000:] + capsys.readouterr().err[-2000:]
    assert given == ["pretrain", "benchmark", *["report"] * 6]
    assert (tmp_path / "runs" / "pretrain" / "model" / "model.safetensors").stat().st_mtime_ns == before
