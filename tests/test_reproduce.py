"""examples/reproduce.sh on simulated data: every step, from recordings to tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_small_run_goes_from_recordings_to_tables_and_goes_on_where_it_was(tmp_path: Path) -> None:
    environment = os.environ | {"RECORDS": "100", "WORKERS": "1", "DERI": f"{sys.executable} -m deri"}
    command = ["bash", str(ROOT / "examples" / "reproduce.sh"), str(tmp_path), "--small"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    results = json.loads((tmp_path / "runs" / "benchmark" / "results.json").read_text())
    scored = {(cell["task"], cell["mode"]) for cell in results["cells"] if cell["model"] == "demo"}
    tasks = ("ptbxl-super", "ptbxl-sub", "ptbxl-form", "ptbxl-rhythm", "cpsc2018", "csn")
    assert scored == {(task, mode) for task in tasks for mode in ("zero-shot", "probe")}
    assert "BLEU" in run.stdout
    assert (tmp_path / "runs" / "reports-classes.json").is_file()
    before = (tmp_path / "runs" / "pretrain" / "model" / "model.safetensors").stat().st_mtime_ns
    again = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert (tmp_path / "runs" / "pretrain" / "model" / "model.safetensors").stat().st_mtime_ns == before
