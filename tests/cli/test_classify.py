"""``deri calibrate``, ``deri classify`` with probabilities, and heads from ``probe --save``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deri.models import load_model
from deri.store import Store
from support import tiny
from support.command import run
from support.stores import simulated_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated_store(tmp_path_factory.mktemp("s"), 120, seed=3)


@pytest.fixture(scope="module")
def calibrated(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = tmp_path_factory.mktemp("m") / "model"
    tiny.model().save_pretrained(model)
    for task in ("ptbxl-super", "ptbxl-rhythm"):
        assert run("calibrate", "--model", model, "--data", store.path, "--task", task, "--split", "train") == 0
    return model


@pytest.fixture
def file(tmp_path: Path) -> Path:
    time = np.arange(5000) / 500
    beat = np.exp(-((((time + 0.4) % 0.8 - 0.4) / 0.015) ** 2)).astype(np.float32)
    np.savez(tmp_path / "x.npz", signal=np.tile(beat, (12, 1)), fs=500, units="mV")
    return tmp_path / "x.npz"


def test_calibrate_keeps_tasks_beside_each_other(calibrated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = load_model(calibrated).calibration
    assert found is not None
    assert set(found.tasks) == {"ptbxl-super", "ptbxl-rhythm"}
    assert run("info", calibrated, "--json") == 0
    assert "NORM" in json.loads(capsys.readouterr().out)["calibrated"]["ptbxl-super"]


def test_calibrate_says_where_it_cannot_write(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--data", store.path, "--task", "ptbxl-super"]
    assert run("calibrate", "--model", "deri-sim", *common) == 2
    assert "--model deri-sim is in no folder of yours: give --out DIR" in capsys.readouterr().err
    assert run("calibrate", "--model", "random:demo", *common) == 2
    tiny.model().save_pretrained(tmp_path / "m")
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    command = ["calibrate", "--model", tmp_path / "m", *common, "--split", "all", "--out", tmp_path / "o"]
    assert run(*command) == 0
    printed = capsys.readouterr().out
    assert f"records of all → {tmp_path / 'o' / 'calibration.json'}" in printed
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    assert load_model(tmp_path / "o").calibration is not None
    assert run(*command) == 2
    assert "not empty" in capsys.readouterr().err


def test_probabilities_are_columns_beside_the_scores(
    calibrated: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["classify", file, "--model", calibrated, "--labels", "NORM", "--labels", "pizza"]
    assert run(*ask, "--json") == 0
    said = capsys.readouterr()
    row = json.loads(said.out)[0]
    assert "pizza: cosine, for ranking only" in said.err
    assert "probability: pizza" not in row
    plain = tmp_path / "plain"
    tiny.model().save_pretrained(plain)
    assert run("classify", file, "--model", plain, "--labels", "NORM", "--labels", "pizza", "--json") == 0
    scores = json.loads(capsys.readouterr().out)[0]
    assert (scores["NORM"], scores["pizza"]) == (row["NORM"], row["pizza"])
    assert "probability: NORM" not in scores
    # The odds at one half are the likelihood ratio.
    assert run(*ask, "--json", "--prevalence", "NORM=0.5") == 0
    half = json.loads(capsys.readouterr().out)[0]
    ratio = half["likelihood_ratio: NORM"]
    assert ratio == row["likelihood_ratio: NORM"]
    assert half["probability: NORM"] == pytest.approx(ratio / (1 + ratio))
    assert half["probability: NORM"] != row["probability: NORM"]
    assert run(*ask) == 0
    assert "probability: NORM" in capsys.readouterr().out
    for given, told in (("often", "such as 0.05"), ("2", "between 0 and 1"), ("pizza=0.1", "no label of this name")):
        assert run(*ask, "--prevalence", given) == 2
        assert told in capsys.readouterr().err


def test_without_labels_the_findings_come_in_order(
    calibrated: Path, store: Store, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("classify", file, "--model", calibrated) == 0
    head, intervals, columns, *rows = capsys.readouterr().out.splitlines()
    assert head == str(file)
    assert "rate 75/min" in intervals
    assert columns.split() == ["finding", "probability", "likelihood", "ratio", "score"]
    probabilities = [float(row.split()[-3]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
    assert run("classify", file, "--model", calibrated, "--json") == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["rate_bpm"] == pytest.approx(75, abs=1)
    assert row["probability: normal ecg"] == pytest.approx(max(probabilities), abs=1)
    assert run("classify", store.path, "--model", calibrated, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == store.recordings
    assert sum(row["rate_bpm"] is not None for row in rows) > 0.9 * len(rows)


def test_a_saved_probe_answers(store: Store, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.model().save_pretrained(tmp_path / "m")
    probe = ["probe", "--model", tmp_path / "m", "--data", store.path, "--task", "ptbxl-super"]
    assert run(*probe, "--out", tmp_path / "p.json", "--save", tmp_path / "head") == 0
    capsys.readouterr()
    ask = ["classify", file, "--model", tmp_path / "head", "--json"]
    assert run(*ask, "--labels", "normal ecg", "--labels", "MI") == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["probability: MI"] == pytest.approx(row["MI"])
    assert row["likelihood_ratio: MI"] > 0
    assert run(*ask) == 0
    assert {"NORM", "MI", "STTC", "CD", "HYP", "rate_bpm"} <= set(json.loads(capsys.readouterr().out)[0])
    assert run(*ask, "--labels", "pizza") == 2
    assert "NORM, MI, STTC, CD, HYP" in capsys.readouterr().err
    assert run("info", tmp_path / "head", "--json") == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["NORM", "MI", "STTC", "CD", "HYP"]
    assert run("calibrate", *ask[2:4], "--data", store.path, "--task", "ptbxl-super") == 2
    assert "has a head" in capsys.readouterr().err
    for more in (["--folds", "3"], ["--protocol", "published"], ["--features", "both"]):
        assert run(*probe, "--out", tmp_path / "q.json", "--save", tmp_path / "h2", *more) == 2
        assert "--save" in capsys.readouterr().err
