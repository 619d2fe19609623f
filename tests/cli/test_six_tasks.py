"""All six published tasks, end to end through the command line on simulated copies of their layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deri.cli.main import main
from deri.store import Store
from support import tiny

LAYOUTS = {
    "ptb-xl": {"ptbxl-super": 5, "ptbxl-sub": 23, "ptbxl-form": 19, "ptbxl-rhythm": 12},
    "cpsc2018": {"cpsc2018": 9},
    "csn": {"csn": None},  # the classes with at least ten records, which depend on the draw
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_simulate_prepare_zeroshot_probe(layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.model(pooling="mean", seed=1).save_pretrained(tmp_path / "model")
    main_(capsys, "simulate", layout, "--records", 150, "--out", tmp_path / "data", "--seed", 3)
    text = main_(capsys, "prepare", layout, tmp_path / "data", "--out", tmp_path / "store")
    assert "150 stored, 0 rejected" in text
    for task, classes in LAYOUTS[layout].items():
        common = ["--model", tmp_path / "model", "--data", tmp_path / "store", "--task", task]
        out = tmp_path / f"{task}.json"
        for command in (["zeroshot", "--split", "all"], ["probe", "--fraction", 100], ["probe", "--folds", 3]):
            main_(capsys, command[0], *common, *command[1:], "--out", out)
            result = json.loads(out.read_text())
            assert result["task"] == task
            assert list(result["classes"]) == Store.open(tmp_path / "store").tasks[task]
            assert classes is None or len(result["classes"]) == classes
            known = [c for c in result["classes"].values() if c["auroc"] is not None]
            assert len(known) >= 2
            assert all(0 < c["n_pos"] < result["n"] for c in known)
            with_interval = [c for c in known if c["ci"] is not None]
            assert all(c["ci"][0] <= c["auroc"] <= c["ci"][1] for c in with_interval)
            alone = [c["n_pos"] for c in known if c["ci"] is None]  # all positives, or all negatives, of one patient
            assert all(min(n, result["n"] - n) <= 4 for n in alone)
            if "--folds" not in command:  # there, a class that some fold cannot learn is null as well
                unknown = [c for c in result["classes"].values() if c["auroc"] is None]
                assert all(c["n_pos"] in (0, result["n"]) for c in unknown)


def main_(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    text = capsys.readouterr()
    assert not stop.value.code, text.err
    return text.out
