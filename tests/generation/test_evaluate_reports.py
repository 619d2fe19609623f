"""The table of generated reports: files, counts, findings, bootstrap, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from deri.cli.main import main
from deri.errors import DeriError
from deri.generation import evaluate_reports, pair_scores, paired_difference, read_pairs
from deri.generation.findings import finding_matrix

REFERENCES = [
    "Sinus rhythm. Normal ECG",
    "atrial fibrillation. possible lvh.",
    "sinus rhythm. no lvh.",
    "sinus rhythm.",
]
GENERATED = ["sinus rhythm. normal ecg.", "atrial fibrillation.", "sinus rhythm. lvh.", ""]


def finding_scores(references: list[str], generated: list[str], **options: Any) -> dict[str, Any]:
    return evaluate_reports(references, generated, draws=0, clean=False, **options)["findings"]


def test_findings_by_hand() -> None:
    table = finding_scores(REFERENCES, GENERATED)
    rows = {
        code: (e["n"], e["generated"], e["precision"], e["recall"], e["f1"]) for code, e in table["per_finding"].items()
    }
    assert rows == {
        "SR": (3, 2, 1.0, pytest.approx(2 / 3), pytest.approx(0.8)),
        "NORM": (1, 1, 1.0, 1.0, 1.0),
        "AFIB": (1, 1, 1.0, 1.0, 1.0),
        # Reference 2 holds it possible, reference 3 denies it, text 3 asserts it.
        "LVH": (1, 1, 0.0, 0.0, 0.0),
    }
    assert table["macro"]["f1"] == pytest.approx((0.8 + 1 + 1 + 0) / 4)
    assert table["macro"]["findings"] == 4
    # 4 hits; 6 findings in the references, 5 in the generated texts.
    assert table["micro"] == {"precision": 4 / 5, "recall": 4 / 6, "f1": pytest.approx(8 / 11)}


def test_findings_without_the_uncertain_ones_and_with_a_least_count() -> None:
    table = finding_scores(REFERENCES, GENERATED, uncertain=False, min_count=2)
    assert table["per_finding"]["LVH"] == {
        "name": "left ventricular hypertrophy",
        "n": 0,
        "generated": 1,
        "precision": None,
        "recall": None,
        "f1": None,
        "ci": None,
    }
    assert table["macro"]["f1"] == pytest.approx(0.8)
    assert table["macro"]["findings"] == 1
    assert finding_scores(["a"], ["b"])["macro"]["f1"] is None


def test_the_whole_table() -> None:
    pytest.importorskip("rouge_score")
    result = evaluate_reports([*REFERENCES, " "], [*GENERATED, "sinus rhythm."], draws=200)
    assert (result["pairs"], result["without_reference"], result["empty_generated"]) == (4, 1, 1)
    assert result["left_out"] == {}
    assert result["metrics"]["bleu_4"]["value"] < 1
    cleaned = [["sinus rhythm. normal ecg."], ["sinus rhythm. normal ecg."]]
    assert pair_scores(*cleaned)[0]["bleu_4"][0] == 1
    json.dumps(result, allow_nan=False)
    raw = evaluate_reports(REFERENCES, GENERATED, clean=False, draws=0)
    assert raw["metrics"]["bleu_1"]["value"] < result["metrics"]["bleu_1"]["value"]
    assert raw["metrics"]["bleu_1"]["ci"] is None


def test_identical_reports_are_perfect() -> None:
    texts = [f"sinus rhythm. heart rate {i} per minute. normal ecg." for i in range(20)]
    result = evaluate_reports(texts, texts, draws=50)
    for name, entry in result["metrics"].items():
        best = 10 if name == "cider_d" else 1
        assert entry["value"] == pytest.approx(best, rel=1e-3), name
        assert entry["ci"] == pytest.approx([best, best], rel=1e-3), name
    assert result["corpus_bleu"] == pytest.approx(100)
    assert result["findings"]["macro"]["f1"] == 1
    # Twenty right texts with two findings say as much as 40 hits of 40 do: Wilson's interval of that begins at 0.91.
    assert result["findings"]["macro"]["ci"] == [pytest.approx(0.91, abs=0.02), 1]


def test_intervals_agree_with_resampled_rows() -> None:
    rng = np.random.default_rng(0)
    references = ["sinus rhythm. lvh."] * 150
    generated = list(rng.choice(["sinus rhythm. lvh.", "sinus rhythm.", "lvh. inferior infarct."], size=150))
    result = evaluate_reports(references, generated, draws=2000)
    said = np.array(["lvh" in text for text in generated])
    f1 = lambda rows: 2 * said[rows].sum() / (said[rows].sum() + len(rows))  # noqa: E731
    drawn = [f1(rng.integers(0, 150, 150)) for _ in range(2000)]
    entry = result["findings"]["per_finding"]["LVH"]
    assert entry["f1"] == pytest.approx(f1(np.arange(150)))
    assert entry["ci"] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.01)


def test_subjects_are_drawn_whole() -> None:
    # Ten subjects with 30 equal reports each: the interval is as wide as that of ten reports, not of 300.
    good = np.arange(10) < 5
    references = ["sinus rhythm."] * 300
    generated = ["sinus rhythm." if good[i % 10] else "" for i in range(300)]
    subjects = [f"p{i % 10}" for i in range(300)]
    by_subject = evaluate_reports(references, generated, subjects, draws=2000)
    by_row = evaluate_reports(references, generated, draws=2000)
    few = evaluate_reports(references[:10], generated[:10], draws=2000)
    assert (by_subject["subjects"], by_subject["drawn_by"], by_row["drawn_by"]) == (10, "subject", "row")
    width = {
        name: np.diff(result["metrics"]["bleu_1"]["ci"])[0]
        for name, result in (("subject", by_subject), ("row", by_row), ("few", few))
    }
    assert width["subject"] == pytest.approx(width["few"], abs=0.05)
    assert width["row"] < width["subject"] / 3
    alone = evaluate_reports(references[:3], generated[:3], ["a"] * 3)
    assert alone["metrics"]["bleu_1"]["ci"] is None
    assert alone["findings"]["macro"]["ci"] is None


def test_the_difference_of_two_systems_is_drawn_in_pairs() -> None:
    rng = np.random.default_rng(1)
    choices = ["sinus rhythm. lvh.", "sinus rhythm.", "atrial fibrillation. lvh."]
    references, first, second = (list(rng.choice(choices, size=200)) for _ in range(3))
    second[:100] = first[:100]  # half of the records have the same text from both
    subjects = [str(i // 4) for i in range(200)]
    both = [evaluate_reports(references, texts, subjects, draws=0) for texts in (first, second)]
    found = paired_difference(references, first, second, subjects, draws=2000)
    bleu = [result["metrics"]["bleu_4"]["value"] for result in both]
    f1 = [result["findings"]["macro"]["f1"] for result in both]
    assert found["bleu_4"]["value"] == pytest.approx(bleu[0] - bleu[1])
    assert found["finding_f1"]["value"] == pytest.approx(f1[0] - f1[1])
    matrices = [finding_matrix(texts) for texts in (references, first, second)]
    drawn = []
    for _ in range(600):
        rows = np.concatenate([np.arange(4 * i, 4 * i + 4) for i in rng.integers(0, 50, 50)])
        truth, *called = (matrix[rows] for matrix in matrices)
        there = truth.any(axis=0)
        macro = [f1_score(truth[:, there], own[:, there], average="macro", zero_division=0) for own in called]
        drawn.append(macro[0] - macro[1])
    assert found["finding_f1"]["ci"] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.025)
    same = paired_difference(references, first, first, subjects, draws=50)
    assert same["bleu_4"] == {"value": 0.0, "ci": [0.0, 0.0]}
    assert same["finding_f1"]["ci"] is None  # what does not vary has no interval
    assert paired_difference(references, first, second, subjects, draws=0)["finding_f1"]["ci"] is None
    # Options mean what they mean in evaluate_reports.
    hedged = ["sinus rhythm. possible lvh."] * 200
    strict = [evaluate_reports(references, texts, uncertain=False, draws=0) for texts in (first, hedged)]
    f1 = [result["findings"]["macro"]["f1"] for result in strict]
    found = paired_difference(references, first, hedged, uncertain=False, draws=0)["finding_f1"]
    assert found["value"] == pytest.approx(f1[0] - f1[1])
    assert found["value"] != paired_difference(references, first, hedged, draws=0)["finding_f1"]["value"]
    raw = paired_difference(["A B C D"], ["A B C D"], ["a b c d"], clean=False, draws=0)["bleu_4"]["value"]
    assert raw > 0.5
    assert paired_difference(["A B C D"], ["A B C D"], ["a b c d"], draws=0)["bleu_4"]["value"] == 0


def test_the_difference_compares_the_same_findings() -> None:
    # Only the first system asserts LVH where no reference does; one reference has it.
    references = ["sinus rhythm. lvh.", *["sinus rhythm."] * 39]
    first = ["sinus rhythm. lvh.", *["sinus rhythm. lvh."] * 20, *["sinus rhythm."] * 19]
    second = list(references)
    found = paired_difference(references, first, second, draws=500)["finding_f1"]
    f1 = 2 / 22  # of LVH by the first system
    assert found["value"] == pytest.approx((f1 - 1) / 2)
    low, high = found["ci"]
    assert -1 < low < found["value"] < high < 0  # twenty false assertions of 40 tell


def test_missing_packages_leave_metrics_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from deri.generation import metrics

    def fail() -> None:
        raise DeriError("ROUGE-L needs rouge-score: pip install 'deri[report]'")

    monkeypatch.setattr(metrics, "_rouge_scorer", fail)
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu", None)
    result = evaluate_reports(REFERENCES, GENERATED, draws=0)
    assert set(result["left_out"]) == {"rouge_l", "corpus_bleu"}
    assert "rouge_l" not in result["metrics"]
    assert result["corpus_bleu"] is None


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_both_kinds_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.{suffix}"
    table = pd.DataFrame({"extra": [1, 2], "generated": ["NA", None], "reference": ["ä", "b, c"], "subject": [7, 8]})
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    read = read_pairs(path)
    assert list(read.columns) == ["reference", "generated", "subject"]
    assert read.values.tolist() == [["ä", "NA", "7"], ["b, c", "", "8"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("", "cannot be read"),
        ("reference,text\na,b\n", "lacks the column generated; found reference, text"),
        ("reference,generated\n", "has no row"),
        ("reference,generated\na,b\nc,d,e,f\n", "line 3 has 4 fields, the header 2"),
        # pandas would take the first field of every row for its number, and compare the other two.
        ("reference,generated\nlvh,lvh, old\nsr,sr, normal\n", "line 2 has 3 fields, the header 2"),
        ("reference,generated,subject\na,b,1\nc,d,\n", "row 2 has no subject"),
        ("reference,generated\n,b\n", "no row has a reference"),
    ],
)
def test_a_bad_file_is_named(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit) as exit_info:
        main(["report", "evaluate", str(path), "--out", str(tmp_path / "out.json")])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("deri: ")
    assert message in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "out.json").exists()


def test_parquet_with_numbers_or_garbage(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pd.DataFrame({"reference": ["a"], "generated": [1.5]}).to_parquet(path)
    with pytest.raises(DeriError, match="generated of row 1 is float, expected text"):
        read_pairs(path)
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(DeriError, match="cannot be read"):
        read_pairs(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rouge_score")
    path, out = tmp_path / "pairs.csv", tmp_path / "out.json"
    pd.DataFrame({"reference": [*REFERENCES, ""], "generated": [*GENERATED, "x"]}).to_csv(path, index=False)
    with pytest.raises(SystemExit) as exit_info:
        main(["report", "evaluate", str(path), "--out", str(out), "--draws", "50", "--seed", "3"])
    assert exit_info.value.code == 0
    printed = capsys.readouterr()
    assert "4 reports" in printed.out
    assert "1 row without a reference left out" in printed.err
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written == evaluate_reports([*REFERENCES, ""], [*GENERATED, "x"], draws=50, seed=3)
