"""Generated reports as a multi-label classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from deri.cli.main import main
from deri.errors import DeriError
from deri.evaluation.metrics import best_threshold
from deri.generation.classify import class_findings, classify_reports
from deri.generation.efficacy import TextSpace
from deri.models import load_model
from deri.reports import load_prompts, prompts_for
from deri.reports.labeller import label_report
from deri.store import Store
from support.stores import simulated_store


@pytest.fixture(scope="module")
def ptb(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated_store(tmp_path_factory.mktemp("ptb"), 120, 3)


def table(store: Store, split: str, texts: list[str] | None = None) -> pd.DataFrame:
    rows = store.rows(split)
    reports = [store.reports[i] if i >= 0 else "" for i in store.report_ids[rows]]
    return pd.DataFrame({"record_id": store.index["record_id"].to_numpy()[rows], "generated": texts or reports})


def test_findings_belong_to_classes_by_the_statements() -> None:
    superclasses = class_findings("ptbxl-super", ["NORM", "MI", "STTC", "CD", "HYP"])
    assert superclasses["NORM"] == {"NORM"}
    assert superclasses["MI"] == {"IMI", "AMI", "LMI", "PMI", "INJ", "MI"}
    assert {"LAFB", "1AVB", "WPW"} < superclasses["CD"]
    assert superclasses["HYP"] == {"LVH", "RVH", "SEHYP", "LAO/LAE", "RAO/RAE"}
    assert class_findings("ptbxl-form", ["NT", "LPR"]) == {"NT": {"LOWT"}, "LPR": {"1AVB"}}
    assert class_findings("ptbxl-rhythm", ["AFIB"]) == {"AFIB": {"AFIB"}}
    assert class_findings("labels", ["ASMI", "STD_", "SR"]) == {"ASMI": {"AMI"}, "STD_": {"STD_"}, "SR": {"SR"}}


def test_by_labeller_against_scikit_learn(ptb: Store) -> None:
    # The training split is scored here: it is the largest.
    result = classify_reports(ptb, "ptbxl-rhythm", table(ptb, "train"), table(ptb, "val"), draws=50)
    rows, val = ptb.task_rows("ptbxl-rhythm", "train"), ptb.task_rows("ptbxl-rhythm", "val")
    names, labels = ptb.labels("ptbxl-rhythm", rows)
    belongs = class_findings("ptbxl-rhythm", names)
    worth = {"present": 1, "uncertain": 0.5, "absent": 0}

    def scores(of: np.ndarray) -> np.ndarray:
        said = [label_report(ptb.reports[i]) if i >= 0 else {} for i in ptb.report_ids[of]]
        return np.array([[max([worth[x[c]] for c in belongs[n] if c in x] or [0]) for n in names] for x in said])

    found, expected = scores(rows), {}
    for c, name in enumerate(names):
        if 0 < labels[:, c].sum() < len(rows):
            expected[name] = roc_auc_score(labels[:, c], found[:, c])
            assert result["classes"][name]["auroc"] == pytest.approx(expected[name])
        cut = best_threshold(ptb.labels("ptbxl-rhythm", val)[1][:, c], scores(val)[:, c])
        if cut is not None and labels[:, c].any():
            called = found[:, c] >= max(cut, 0.5)
            assert result["classes"][name]["f1"] == pytest.approx(f1_score(labels[:, c], called, zero_division=0))
    assert result["macro_auroc"]["value"] == pytest.approx(np.mean(list(expected.values())))
    assert result["macro_auroc"]["value"] > 0.8  # the true reports name the rhythm
    assert (result["n"], result["split"], result["model"]) == (len(rows), "train", None)
    low, high = result["macro_f1_ci"]
    assert low <= result["macro_f1"] <= high
    assert result["accuracy_ci"][0] <= result["accuracy"] <= result["accuracy_ci"][1]


def test_by_text_against_a_restatement(ptb: Store) -> None:
    model = load_model("random:demo")
    generated = table(ptb, "train")
    generated.loc[0, "generated"] = ""
    result = classify_reports(ptb, "ptbxl-super", generated, table(ptb, "val"), TextSpace(model, "m"), draws=0)
    rows = ptb.task_rows("ptbxl-super", "train")
    names, labels = ptb.labels("ptbxl-super", rows)
    prompts = prompts_for("ptbxl-super", names)
    text_of = dict(zip(generated["record_id"], generated["generated"], strict=True))
    texts = [text_of[ptb.index["record_id"].iloc[row]] for row in rows]
    vectors = {text: model.encode_text([text])[0] for text in set(texts) if text}
    for c, name in enumerate(names):
        weight = model.encode_text(prompts[name]).mean(axis=0)
        score = [float(vectors[t] @ weight) / np.linalg.norm(weight) if t else -1 for t in texts]
        if 0 < labels[:, c].sum() < len(rows):
            assert result["classes"][name]["auroc"] == pytest.approx(roc_auc_score(labels[:, c], score), abs=5e-3)
    assert result["macro_f1_ci"] is None


def test_mistakes_are_named(ptb: Store) -> None:
    good, val = table(ptb, "test"), table(ptb, "val")
    for generated, other, message in (
        (good.assign(record_id="nobody"), val, "--generated: record nobody is not in"),
        (pd.concat([good, good]), val, "there twice"),
        (good, good, "thresholds must not be chosen on patients that are scored"),
        (good.drop(columns="record_id"), val, "--generated has no column record_id"),
    ):
        with pytest.raises(DeriError, match=message):
            classify_reports(ptb, "ptbxl-super", generated, other)


def test_the_command(ptb: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        table(ptb, split).assign(reference="sinus rhythm.").to_parquet(tmp_path / f"{split}.parquet")
    out = tmp_path / "out.json"
    command = [
        "report", "classify", "--generated", str(tmp_path / "train.parquet"), "--generated-val",
        str(tmp_path / "val.parquet"), "--data", str(ptb.path), "--task", "ptbxl-super", "--out", str(out),
        "--model", "random:demo", "--draws", "20",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as exit_info:
        main(command[:-4])
    assert exit_info.value.code == 2
    assert "--by text needs --model" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_info:
        main(command)
    assert exit_info.value.code == 0
    assert "macro F1" in capsys.readouterr().out
    result = json.loads(out.read_text(encoding="utf-8"))
    assert list(result["classes"]) == list(load_prompts("ptbxl-super"))
    for key in ("task", "model", "split", "n", "protocol", "seed", "macro_auroc", "macro_f1", "accuracy", "store"):
        assert key in result
