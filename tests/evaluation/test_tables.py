from __future__ import annotations

import copy
from typing import Any

import pytest

from deri.evaluation.published import ROWS, TASKS, TEST_RECORDS
from deri.evaluation.tables import latex, markdown, parts


def cell(model: str, task: str, fraction: float | None, value: float | None, n: int = 50) -> dict[str, Any]:
    ci = None if value is None else [value - 0.05, value + 0.04]
    classes = {
        "A_1": {"n_pos": 20, "auroc": value, "ci": ci, "few_positives": False},
        "B": {"n_pos": 0, "auroc": None, "ci": None, "few_positives": True},
    }
    return {
        "model": model,
        "task": task,
        "mode": "zero-shot" if fraction is None else "probe",
        "fraction": fraction,
        "n": n,
        "n_patients": 40,
        "n_classes": 2,
        "n_classes_scored": 1,
        "macro_auroc": {"value": value, "ci": ci},
        "classes": classes,
    }


@pytest.fixture
def results() -> dict[str, Any]:
    return {
        "deri_version": "9.9",
        "options": {"fractions": [1.0, 100.0], "protocol": "corrected", "draws": 100, "seeds": 1, "seed": 42,
                    "min_pos": 10},
        "tasks": ["ptbxl-super", "labels"],
        "models": [
            {"name": "a_b & c", "kind": "model"},
            {"name": "random x", "kind": "random"},
            {"name": "boosting", "kind": "classical"},
        ],
        "cells": [
            cell("a_b & c", "ptbxl-super", None, 0.7125),
            cell("a_b & c", "ptbxl-super", 1.0, 0.8),
            cell("random x", "ptbxl-super", 1.0, None),
            cell("a_b & c", "labels", 1.0, 0.65, n=1234),
        ],
        "missing": [{"model": "boosting", "task": "labels", "mode": "probe", "fraction": 1.0,
                     "reason": "no val records"}],
        "comparisons": [],
        "transfers": [],
    }  # fmt: skip


def rows(text: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_markdown_rows(results: dict[str, Any]) -> None:
    text = markdown(results)
    table = rows(text)
    assert table[0] == ["", "Super ‡", "labels", "mean of six"]
    assert ["test records (patients)", "50 (40)", "1,234 (40)", ""] in table
    assert ["positives of a class: least / middle / most", "0 / 20 / 20", "0 / 20 / 20", ""] in table
    assert ["a_b & c", "71.2 (66.2–75.2)", "–", "–"] in table
    assert ["a_b & c", "80.0 (75.0–84.0)", "65.0 (60.0–69.0)", "–"] in table
    assert ["random x", "–", "–", "–"] in table  # a null is a dash, in no case 0
    assert ["MERL †", "74.2", "–", "75.3"] in table
    assert ["DERI †", "85.9", "–", "72.0"] in table
    assert ["B *", "0", "–", "–", "–"] in table  # of the table of classes: its positives, and no AUROC of any row
    assert "Super 50 instead of 2,158" in text
    assert "labels: no val records" in text
    assert "95 % intervals by patient" in text


def test_parts_are_ordered_and_have_all_rows(results: dict[str, Any]) -> None:
    found = parts(results)
    assert [part.title for part in found] == [
        "Zero-shot", "Linear probe, 1 % of the labels", "Linear probe, 100 % of the labels"
    ]  # fmt: skip
    assert [row.name for row in found[0].rows] == ["a_b & c", "random x", "MERL", "D-BETA"]
    assert [row.name for row in found[1].rows] == ["a_b & c", "random x", "boosting (no network)", "DERI"]


def test_mean_is_of_all_six_or_nothing(results: dict[str, Any]) -> None:
    values = (0.6, 0.62, 0.7, 0.8, 0.9, 0.95)
    results["tasks"] = [*TASKS, "labels"]
    results["cells"] = [
        cell("a_b & c", task, None, value, n=TEST_RECORDS[task]) for task, value in zip(TASKS, values, strict=True)
    ] + [cell("a_b & c", "labels", None, 0.1)]
    assert parts(results)[0].rows[0].mean == pytest.approx(100 * sum(values) / 6)
    assert "‡" not in markdown(results)  # the test sets have the published sizes
    fewer = copy.deepcopy(results)
    fewer["cells"][2]["macro_auroc"] = {"value": None, "ci": None}
    assert parts(fewer)[0].rows[0].mean is None


def test_no_published_rows_where_no_task_is_published(results: dict[str, Any]) -> None:
    results["tasks"] = ["labels"]
    results["cells"] = [c for c in results["cells"] if c["task"] == "labels"]
    text = markdown(results)
    assert "†" not in text
    assert "mean of six" not in text


def test_latex_is_escaped_and_rectangular(results: dict[str, Any]) -> None:
    text = latex(results)
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    for line in body.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert line.replace(r"\&", "").count("&") == 3, line
    assert r"a\_b \& c & 71.2 {\scriptsize (66.2--75.2)} & -- & -- \\" in text
    assert r"MERL$^\dagger$ & 74.2 & -- & 75.3 \\" in text
    assert r"1 \% of the labels" in text
    for symbol in "–×†‡":
        assert symbol not in text
    assert text.count("{") == text.count("}")


def test_paired_tests_and_transfers_are_shown(results: dict[str, Any]) -> None:
    test = {"a": 0.8, "b": 0.7, "difference": 0.1, "ci": [0.02, 0.18], "p": 0.0123, "reason": None}
    results["comparisons"] = [
        {"task": "labels", "mode": "probe", "fraction": 1.0, "a": "x", "b": "y", "training_seed": 42,
         "macro": test},
        {"task": "labels", "mode": "zero-shot", "fraction": None, "a": "x", "b": "y", "training_seed": None,
         "macro": dict.fromkeys(test)},
        {"task": "labels", "mode": "probe", "fraction": 1.0, "a": "z", "b": "y", "training_seed": 42,
         "macro": test | {"p": 1e-9}},
    ]  # fmt: skip
    results["transfers"] = [cell("x", "s:t", 10.0, 0.75) | {"in_domain": {"macro_auroc": {"value": None, "ci": None}}}]
    table = rows(markdown(results))
    assert ["x against y", "labels", "probe 1 %", "+10.0", "+2.0 to +18.0", "0.012"] in table
    assert ["z against y", "labels", "probe 1 %", "+10.0", "+2.0 to +18.0", "≤ 0.001"] in table
    assert ["x against y", "labels", "zero-shot", "–", "–", "–"] in table
    assert ["s:t", "x", "10 %", "1 of 2", "75.0 (70.0–79.0)", "–"] in table


def test_published_means_belong_to_their_values() -> None:
    assert len(ROWS) == 5
    for row in ROWS:
        assert sum(row.values.values()) / 6 == pytest.approx(row.mean, abs=0.11)  # both were rounded
