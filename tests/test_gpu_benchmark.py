from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_gpu_script_runs_small_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    small = "--device cpu --batch 4 --steps 1 --recipes deri --backbones resnet18 --precision fp32"
    monkeypatch.setattr(sys, "argv", ["gpu.py", *small.split()])
    runpy.run_path(str(BENCHMARKS / "gpu.py"), run_name="__main__")
    result = json.loads(capsys.readouterr().out)
    (case,) = result["cases"]
    assert (case["recipe"], case["backbone"], case["precision"]) == ("deri", "resnet18", "fp32")
    assert case["samples_per_s"] == result["samples_per_s"] > 0
    assert case["hours_of_paper"] == pytest.approx(50 * 756_259 / case["samples_per_s"] / 3600, rel=0.1)
    assert 0 < case["matrix_time"] < 1
    assert sum(case["kernels"].values()) <= 1.01
