"""``calibration.json``: the map of a finding, the round trip of a directory, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from deri.errors import DeriError
from deri.files import read_sealed, write_sealed
from deri.models import EcgTextModel, load_model
from deri.models.calibration import (
    CALIBRATION,
    Finding,
    StoreIdentity,
    TaskCalibration,
    log_odds,
    prevalence_of,
    with_task,
)
from support import tiny

CONTENT: dict[str, Any] = {"prompts": ("a b",), "scores": (0.0, 0.5, 1.0), "log_ratios": (-2.0, 0.0, 4.0)}
MAP = Finding(**CONTENT, prevalence=0.2, n_pos=40)


def calibrated(n: int = 200, share: float = 0.2, prompts: tuple[str, ...] = ("a b",)) -> EcgTextModel:
    model = tiny.model()
    classes = {"A": MAP.model_copy(update={"prevalence": share, "prompts": prompts})}
    store = StoreIdentity(dataset="folder", fingerprint="f" * 8)
    task = TaskCalibration(store=store, split="val", n=n, classes=classes, too_few={"B": 3})
    model.calibration = with_task(model, "labels", task)
    return model


def test_the_map_is_linear_between_its_kinks_and_goes_on_beyond() -> None:
    # Slopes 4 and 8 per unit of score.
    assert MAP.log_ratio(np.array([-0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25])) == pytest.approx([-3, -2, -1, 0, 2, 4, 6])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20))
def test_the_map_keeps_the_order_of_scores(scores: list[float]) -> None:
    ratios = MAP.log_ratio(np.array(sorted(scores)))
    assert (np.diff(ratios) >= 0).all()
    assert (np.diff(ratios)[np.diff(sorted(scores)) > 1e-9] > 0).all()


@pytest.mark.parametrize(
    "change",
    [
        {"scores": (0.0, 0.0, 1.0)},
        {"log_ratios": (1.0, 0.0, 4.0)},
        {"log_ratios": (0.0, 4.0)},
        {"scores": (0.0,), "log_ratios": (0.0,)},
        {"scores": (0.0, 0.5, math.nan)},
        {"prevalence": 1.0},
        {"slope": 3.0},
    ],
)
def test_maps_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Finding(**{**CONTENT, "prevalence": 0.2, "n_pos": 40, **change})


def test_prevalence_and_log_odds_by_hand() -> None:
    labels = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    assert prevalence_of(labels) == pytest.approx([0.25, 0.5 / 5, 4.5 / 5])
    assert log_odds(np.array([0.2, 0.5])) == pytest.approx([math.log(0.25), 0])


def test_a_directory_keeps_it(tmp_path: Path) -> None:
    model = calibrated()
    model.save_pretrained(tmp_path)
    assert load_model(tmp_path).calibration == model.calibration
    # Saved over by a model without one, the directory has none, or it would be of other weights.
    tiny.model(seed=1).save_pretrained(tmp_path)
    assert load_model(tmp_path).calibration is None


def test_it_is_of_the_weights_that_it_was_made_for(tmp_path: Path) -> None:
    model = calibrated()
    model.save_pretrained(tmp_path / "a")
    tiny.model(seed=1).save_pretrained(tmp_path / "b")
    (tmp_path / "b" / CALIBRATION).write_bytes((tmp_path / "a" / CALIBRATION).read_bytes())
    with pytest.raises(DeriError, match=r"b/calibration.json was made for other weights .* deri calibrate"):
        load_model(tmp_path / "b")
    model.text_projection[0].weight.data += 1  # trained further: what it had is not written
    model.save_pretrained(tmp_path / "c")
    assert not (tmp_path / "c" / CALIBRATION).exists()


@pytest.mark.parametrize(("key", "value"), [("extra", 1), ("version", 2), ("format", "x"), ("tasks", [])])
def test_content_that_is_not_known_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    calibrated().save_pretrained(tmp_path)
    write_sealed(tmp_path / CALIBRATION, {**read_sealed(tmp_path / CALIBRATION, ""), key: value})
    with pytest.raises(DeriError, match=rf"calibration.json: .*{key}.*; remove the file") as error:
        load_model(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_of_two_tasks_with_a_finding_the_one_of_more_records_counts() -> None:
    model = calibrated(n=200, share=0.2)
    assert model.calibration is not None
    for name, n, share in (("few", 100, 0.4), ("many", 300, 0.1)):
        more = calibrated(n=n, share=share).calibration
        assert more is not None
        model.calibration = with_task(model, name, more.tasks["labels"])
    assert model.calibration.findings()["a b",].prevalence == 0.1
