from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deri.evaluation import figures
from deri.evaluation.figures import (
    bars,
    draw_all,
    embedding_map,
    learning_curves,
    map_methods,
    reliability_diagram,
    single_label_rows,
)
from deri.evaluation.task import Task


def cell(model: str, kind: str, fraction: float | None, value: float | None) -> dict[str, Any]:
    table = [
        {"lower": 0.0, "upper": 0.5, "n": 30, "predicted": 0.2, "observed": 0.1},
        {"lower": 0.5, "upper": 0.75, "n": 0, "predicted": None, "observed": None},
        {"lower": 0.75, "upper": 1.0, "n": 10, "predicted": 0.9, "observed": 0.7},
    ]
    return {
        "model": model,
        "kind": kind,
        "task": "ptbxl-super",
        "mode": "zero-shot" if fraction is None else "probe",
        "fraction": fraction,
        "n": 50,
        "n_patients": 40,
        "n_classes": 5,
        "n_classes_scored": 5,
        "macro_auroc": {"value": value, "ci": None if value is None else [value - 0.05, value + 0.04]},
        "calibration": fraction and {"reliability": table, "pooled_ece": 0.11},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "options": {"fractions": [100.0, 1.0]},
        "tasks": ["ptbxl-super", "other"],
        "models": [
            {"name": "m", "kind": "model"},
            {"name": "r", "kind": "random"},
            {"name": "boosting", "kind": "classical"},
        ],
        "cells": [
            cell("m", "model", None, 0.7),
            cell("m", "model", 1.0, 0.8),
            cell("m", "model", 100.0, 0.9),
            cell("r", "random", None, None),
            cell("r", "random", 100.0, 0.6),
        ],
    }


def test_bars_have_the_heights_of_the_cells(results: dict[str, Any]) -> None:
    axes = bars(results, "ptbxl-super").axes[0]
    heights = sorted((round(p.get_x() + p.get_width() / 2), p.get_height()) for p in axes.patches)
    assert heights == [(0, 0.7), (1, 0.8), (2, 0.6), (2, 0.9)]  # a null has no bar
    assert [text.get_text() for text in axes.texts] == ["MERL †", "D-BETA †", "DERI †", "DERI †"]
    assert axes.get_ylim()[0] <= 0.5


def test_learning_curve_is_in_the_order_of_fractions(results: dict[str, Any]) -> None:
    axes = learning_curves(results).axes[0]
    curves = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(curves["m"].get_xydata(), [[1, 0.8], [100, 0.9]])
    np.testing.assert_allclose(curves["r"].get_xydata(), [[100, 0.6]])
    assert "boosting" not in curves


def test_reliability_shows_the_bins_with_records(results: dict[str, Any]) -> None:
    axes = reliability_diagram(results, "ptbxl-super").axes[0]
    dots = axes.collections[0]
    np.testing.assert_allclose(dots.get_offsets(), [[0.2, 0.1], [0.9, 0.7]])
    assert dots.get_sizes()[0] > dots.get_sizes()[1]
    assert "0.110" in dots.get_label()
    assert "100 %" in axes.get_title(loc="left")


def test_files_are_png_and_svg_and_equal_each_time(results: dict[str, Any], tmp_path: Path) -> None:
    maps = [
        {
            "model": name, "task": "ptbxl-super", "method": "t-SNE", "points": np.arange(8.0).reshape(4, 2),
            "classes": ["A", "B"], "class_index": np.array([0, 1, 0, 1]),
        }
        for name in ("r", "m")
    ]  # fmt: skip
    files = list(draw_all(results, maps, tmp_path / "a"))
    assert {f.name for f in files} == {
        f"{stem}{suffix}"
        for stem in ("ptbxl-super-auroc", "ptbxl-super-reliability", "ptbxl-super-tsne", "learning-curves")
        for suffix in (".png", ".svg")
    }
    for file in files:
        assert file.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    again = list(draw_all(results, maps, tmp_path / "b"))
    assert [f.read_bytes() for f in again] == [f.read_bytes() for f in files]


LABELS = np.array(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]], np.uint8
)


def fake_task() -> Any:
    store = SimpleNamespace(
        fingerprint="f",
        task_rows=lambda name, split: np.arange(10, 17) if (name, split) == ("t", "test") else None,
        labels=lambda _, rows: (["a", "b", "c", "d"], LABELS[rows - 10]),
    )
    return Task(store, "t", "t")  # type: ignore[arg-type]


def test_single_label_rows_of_the_largest_classes() -> None:
    rows, place, names = single_label_rows(fake_task(), "test")
    assert names == ["b", "c", "a"]  # two, two, one; nobody has d alone
    assert rows.tolist() == [10, 11, 12, 15, 16]
    assert place.tolist() == [2, 0, 0, 1, 1]
    rows, place, names = single_label_rows(fake_task(), "test", largest=1)
    assert (rows.tolist(), place.tolist(), names) == ([11, 12], [0, 0], ["b"])


def test_a_map_separates_what_is_apart_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(3)
    monkeypatch.setattr(figures, "_FEWEST_POINTS", 6)
    features = SimpleNamespace(
        key="d",
        rows=lambda rows: (centres[kinds[rows]] + 0.05 * rng.normal(size=(len(rows), 3))).astype(np.float32),
    )  # fmt: skip
    assert embedding_map(features, fake_task(), tmp_path) is None  # type: ignore[arg-type] # five records
    kinds = np.repeat([0, 1, 2], 20)
    task = fake_task()
    task.store.task_rows = lambda *_: np.arange(60)
    task.store.labels = lambda _, rows: (["a", "b", "c"], np.eye(3, dtype=np.uint8)[kinds[rows]])
    found = embedding_map(features, task, tmp_path)  # type: ignore[arg-type]
    assert found is not None
    distance = np.linalg.norm(found["points"][:, None] - found["points"][None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (found["class_index"][distance.argmin(axis=1)] == found["class_index"]).all()
    made = []

    class Umap:
        def __init__(self, **settings: object) -> None:
            made.append(settings)

        def fit_transform(self, x: np.ndarray) -> np.ndarray:
            np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1)
            return x[:, :2]

    assert map_methods()[0] == "t-SNE"
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap, __spec__=True))  # type: ignore[arg-type]
    assert map_methods() == ("t-SNE", "UMAP")
    other = embedding_map(features, task, tmp_path, "test", "UMAP")  # type: ignore[arg-type]
    assert other is not None
    assert other["method"] == "UMAP"
    assert made[0]["n_neighbors"] == 15
    features.rows = lambda _: pytest.fail("computed again")
    np.testing.assert_array_equal(embedding_map(features, task, tmp_path)["points"], found["points"])  # type: ignore[index,arg-type]
