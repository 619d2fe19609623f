"""Confidence: asserted findings held against the ECG model's own scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from deri.errors import DeriError
from deri.evaluation.features import embed_store
from deri.evaluation.metrics import best_threshold
from deri.generation.findings import finding_matrix
from deri.generation.review import MIN_POSITIVES, Calibration, Confidence, calibrate, flag_scores
from deri.models import load_model
from deri.reports.labeller import known_findings
from deri.store import Store


def by_hand() -> Confidence:
    """Prompts are unit vectors: the score of a finding is its entry of a unit embedding."""
    codes = list(known_findings())
    known = Calibration(9, 0.9, 0.5, 2.0, -1.0, [-1.0, 0.0, 1.0], completion=0.7)
    rare = Calibration(1, 0.9, None, None, None, [-1.0, 0.0, 1.0])
    findings = {code: rare if code == "WPW" else known for code in codes}
    return Confidence(np.eye(len(codes), dtype=np.float32), findings, {"encoder_digest": "abc"})


def embedding(**scores: float) -> np.ndarray:
    x = np.array([scores.get(code, 0.0) for code in known_findings()])
    rest = 1 - (x**2).sum()
    x[list(known_findings()).index("EL")] = np.sqrt(rest)
    return x


def test_check_by_hand() -> None:
    text = "possible lvh. no atrial fibrillation. sinus rhythm. wpw pattern."
    found = by_hand().check(3 * embedding(SR=0.6, LVH=0.4, AFIB=0.1, WPW=-0.2), text)
    assert [item.finding for item in found] == ["SR", "WPW", "LVH"]
    sinus, wpw, lvh = found
    assert (sinus.score, sinus.flag) == (pytest.approx(0.6), False)
    assert sinus.probability == pytest.approx(1 / (1 + np.exp(-(2 * 0.6 - 1))))
    assert sinus.percentile == pytest.approx(0.8)  # 0.6 between the quantiles 0 (a half) and 1 (all)
    assert (lvh.flag, lvh.threshold) == (True, 0.5)
    # Too rare to say: never flagged.
    assert (wpw.flag, wpw.probability, wpw.threshold) == (False, None, None)
    assert by_hand().check(embedding(), "") == []
    flags = by_hand().flags(np.stack([embedding(SR=0.6), embedding(SR=0.2)]), ["sinus rhythm."] * 2)
    assert [[flag["finding"] for flag in one] for one in flags] == [[], ["SR"]]
    with pytest.raises(ValueError, match="width 3"):
        by_hand().check(np.ones(3), text)


def test_what_a_text_leaves_out() -> None:
    recording = embedding(LVH=0.7, CLBBB=0.71, WPW=0.05)
    left = by_hand().left_out(recording, "sinus rhythm. lvh.")
    assert [(item.finding, item.threshold, item.flag) for item in left] == [("CLBBB", 0.7, False)]
    assert by_hand().left_out(embedding(AFIB=0.9), "sinus rhythm.") == []  # it has a rhythm
    gaps = by_hand().gaps(np.stack([recording, embedding()]), ["", "sinus rhythm."])
    assert [[gap["finding"] for gap in one] for one in gaps] == [["CLBBB", "LVH"], ["EL"]]


def test_completion_is_learnt_from_drafts(mimic_store: Path) -> None:
    model, store = load_model("random:demo"), Store.open(mimic_store)
    asked: list[np.ndarray] = []

    def silent(rows: np.ndarray) -> list[str]:
        asked.append(rows)
        return ["" for _ in rows]

    without, empty = calibrate(model, store, split="train"), calibrate(model, store, split="train", drafts=silent)
    assert all(entry.completion is None for entry in without.findings.values())
    assert len(asked[0]) == without.about["records"]
    for entry in empty.findings.values():  # of empty drafts, a finding is added where it is best called
        assert entry.completion == (None if entry.n_pos < MIN_POSITIVES else pytest.approx(entry.threshold))


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "confidence.json"
    confidence = by_hand()
    confidence.save(path)
    again = Confidence.load(path, digest="abc")
    np.testing.assert_allclose(again.weights, confidence.weights)
    assert again.findings == confidence.findings
    with pytest.raises(DeriError, match="another encoder"):
        Confidence.load(path, digest="xyz")
    with pytest.raises(DeriError, match="is missing: make it with deri report calibrate"):
        Confidence.load(tmp_path / "none.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"min_positives": 6}), encoding="utf-8")
    with pytest.raises(DeriError, match=r"confidence\.json is damaged, or was changed by hand"):
        Confidence.load(path)
    del content["sha256"]
    path.write_text(json.dumps(content | {"version": 9}), encoding="utf-8")
    with pytest.raises(DeriError, match="not deri-report-confidence 2"):
        Confidence.load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DeriError, match="is damaged"):
        Confidence.load(path)


def test_calibration_on_a_store(mimic_store: Path) -> None:
    model, store = load_model("random:demo"), Store.open(mimic_store)
    confidence = calibrate(model, store, split="train")
    rows = store.rows("train")
    rows = rows[store.report_ids[rows] >= 0]
    labels = finding_matrix([store.reports[i] for i in store.report_ids[rows]])
    scores = embed_store(model, store, rows) @ confidence.weights.T
    assert confidence.about["records"] == len(rows)
    known = 0
    for c, entry in enumerate(confidence.findings.values()):
        assert entry.n_pos == labels[:, c].sum()
        if not MIN_POSITIVES <= entry.n_pos < len(rows):
            assert entry.threshold is None
            continue
        known += 1
        assert entry.threshold == pytest.approx(best_threshold(labels[:, c], scores[:, c]), abs=1e-5)
        z = ((scores[:, c] - scores[:, c].mean()) / scores[:, c].std())[:, None]
        fit = LogisticRegression(C=1e3, tol=1e-8, max_iter=1000).fit(z, labels[:, c])
        ours = 1 / (1 + np.exp(-(entry.slope * scores[:, c] + entry.intercept)))
        np.testing.assert_allclose(ours, fit.predict_proba(z)[:, 1], atol=0.03)
        assert entry.quantiles[0] == pytest.approx(scores[:, c].min(), abs=1e-5)
    assert known >= 5


def test_a_split_without_reports(mimic_store: Path) -> None:
    store = Store.open(mimic_store)
    store.__dict__["report_ids"] = np.full(len(store), -1)
    with pytest.raises(DeriError, match="nothing to calibrate on"):
        calibrate(load_model("random:demo"), store)


def test_what_flags_are_worth() -> None:
    scores = flag_scores(
        ["sinus rhythm.", "sinus rhythm.", ""],
        ["sinus rhythm. lvh.", "atrial fibrillation.", "lvh."],
        [[{"finding": "LVH"}], None, [{"finding": "LVH"}]],
    )
    assert scores == {"flagged": 1, "unflagged": 2, "precision_flagged": 0.0, "precision_unflagged": 0.5}
    assert flag_scores(["a"], ["b"], [[]])["precision_flagged"] is None
