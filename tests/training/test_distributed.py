from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parents[1]


def run_job(out: Path, family: str, world: int) -> dict[str, torch.Tensor]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"] if world > 1 else []
    command = [sys.executable, *launcher, str(TESTS / "support" / "distributed_job.py"), str(out), family]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(out)


@pytest.mark.parametrize("family", ["deri", "merl"])
def test_two_processes_equal_one_with_both_batches(family: str, tmp_path: Path) -> None:
    one = run_job(tmp_path / "one.safetensors", family, 1)
    two = run_job(tmp_path / "two.safetensors", family, 2)
    assert set(one) == set(two)
    assert len([n for n in one if n.startswith("loss/")]) == (5 if family == "deri" else 2)
    largest = max(float(value.abs().max()) for name, value in one.items() if "/" not in name)
    assert largest > 0.1
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
