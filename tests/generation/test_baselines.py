"""Baselines of report generation, and one table with all systems."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deri.cli.main import main
from deri.errors import DeriError
from deri.evaluation.features import embed_store
from deri.evaluation.metrics import f1_score
from deri.generation import evaluate_reports
from deri.generation.baselines import KINDS, baseline_reports, templates, write_findings
from deri.generation.findings import finding_matrix, finding_prompts
from deri.generation.tables import read_pairs, read_systems, write_table
from deri.models import EcgTextModel, load_model
from deri.reports.labeller import asserted, known_findings, label_report
from deri.store import Store


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return load_model("random:demo")


@pytest.fixture(scope="module")
def store(mimic_store: Path) -> Store:
    return Store.open(mimic_store)


def test_every_finding_has_a_sentence_that_names_it_alone_and_a_prompt_that_names_it() -> None:
    assert set(templates()) == set(known_findings()) == set(finding_prompts())
    assert set(templates("de")) == set(templates())
    for code, sentence in [*templates().items(), *templates("de").items()]:
        assert label_report(f"{sentence}.") == {code: "present"}, code
    assert asserted(write_findings(list(templates()))) == set(known_findings())
    assert write_findings(["NORM", "AFIB", "LVH"]) == "atrial fibrillation. left ventricular hypertrophy. normal ecg."
    assert write_findings([]) == ""
    # What a prompt scores is the finding itself. (The labeller has no word for a "prominent" pattern of some of them.)
    named = [code for code, texts in finding_prompts().items() if any(code in asserted(text) for text in texts)]
    assert len(named) >= 48


def test_the_most_frequent_report(store: Store, model: EcgTextModel) -> None:
    train = [store.reports[i] for i in store.report_ids[store.rows("train")] if i >= 0]
    rows = store.rows("val")
    text = baseline_reports(model, store, rows, ["frequent"])["frequent"]
    assert len(text) == len(rows)
    assert Counter(train)[text[0]] == Counter(train).most_common(1)[0][1]
    assert len(set(text)) == 1


def test_the_nearest_training_record_gives_its_report(store: Store, model: EcgTextModel) -> None:
    train, rows = store.rows("train"), store.rows("val")
    train = train[store.report_ids[train] >= 0]
    bank, queries = (embed_store(model, store, r).astype(np.float64) for r in (train, rows))
    expected = [store.reports[store.report_ids[train[i]]] for i in (queries @ bank.T).argmax(axis=1)]
    assert baseline_reports(model, store, rows, ["neighbour"])["neighbour"] == expected
    assert len(set(expected)) > 1
    # A training record is nearest to itself.
    own = [store.reports[store.report_ids[row]] for row in train[:5]]
    assert baseline_reports(model, store, train[:5], ["neighbour"])["neighbour"] == own


def test_baselines_in_the_language_of_each_own_report(mimic_store: Path, model: EcgTextModel) -> None:
    store = Store.open(mimic_store)
    texts = store.reports
    store.__dict__["reports"] = [f"sinusrhythmus linkstyp {i}." if i % 2 == 0 else t for i, t in enumerate(texts)]
    rows = store.rows("val")
    german = [store.report_ids[row] % 2 == 0 for row in rows]
    found = baseline_reports(model, store, rows, language="reference")
    assert any(german)
    for kind in ("frequent", "neighbour"):
        assert [text.startswith("sinusrhythmus") for text in found[kind]] == german
    with pytest.raises(DeriError, match="report in language 'sv' in split train"):
        baseline_reports(model, store, rows, ["frequent"], language="sv")


def test_templates_call_at_the_thresholds_of_the_validation_split(store: Store, model: EcgTextModel) -> None:
    val, rows = store.rows("val"), store.rows("train")
    labels = finding_matrix([store.reports[i] for i in store.report_ids[val]])
    prompts = list(finding_prompts().values())
    weights = np.stack([model.encode_text(texts).mean(axis=0) for texts in prompts])
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    val_scores, scores = (embed_store(model, store, r) @ weights.T for r in (val, rows))
    called = np.zeros((len(rows), len(prompts)), bool)
    for c in range(len(prompts)):
        if labels[:, c].any():
            cuts = np.unique(val_scores[:, c])
            f1 = [f1_score(labels[:, c], val_scores[:, c], cut) or 0 for cut in cuts]
            called[:, c] = scores[:, c] >= max(cut for cut, f in zip(cuts, f1, strict=True) if f == max(f1)) - 1e-6
    texts = baseline_reports(model, store, rows, ["template"])["template"]
    # A score within rounding of a threshold may fall on either side.
    assert (finding_matrix(texts) == called).mean() > 0.998
    assert called.any()


def test_an_unknown_baseline(store: Store, model: EcgTextModel) -> None:
    with pytest.raises(DeriError, match="'best' is not known; there are frequent, neighbour, template"):
        baseline_reports(model, store, store.rows("val"), ["best"])


def test_the_commands_make_one_table(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, mine, out = tmp_path / "base.parquet", tmp_path / "mine.jsonl", tmp_path / "all.json"
    with pytest.raises(SystemExit) as exit_info:
        main(
            [
                "report",
                "baselines",
                "--model",
                "random:demo",
                "--data",
                str(store.path),
                "--out",
                str(base),
                "--split",
                "val",
            ]
        )
    assert exit_info.value.code == 0
    table = pd.read_parquet(base)
    assert list(table["system"].unique()) == list(KINDS)
    columns = [
        "record_id",
        "file",
        "subject",
        "reference",
        "generated",
        "log_prob",
        "n_tokens",
        "finished",
        "sentences",
    ]
    assert list(table.columns) == ["system", *columns]
    one = table[table["system"] == "neighbour"].drop(columns="system")
    one = one.assign(generated=one["reference"]).iloc[::-1]  # another order: record ids decide
    write_table(one, mine)
    with pytest.raises(SystemExit) as exit_info:
        main(["report", "evaluate", str(base), str(mine), "--out", str(out), "--draws", "20", "--model", "random:demo"])
    assert exit_info.value.code == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text(encoding="utf-8"))
    assert list(result["systems"]) == [*KINDS, "mine"]
    assert result["systems"]["mine"]["metrics"]["bleu_4"]["value"] == pytest.approx(1)
    assert result["systems"]["mine"]["clinical_efficacy"]["f1"] == 1
    assert result["systems"]["frequent"]["clinical_efficacy"]["f1"] < 0.5
    written = out.with_suffix(".md").read_text(encoding="utf-8")
    assert written in printed
    scores, differences = (
        [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines()]
        for part in written.split("\n\n")
    )
    assert [row[0] for row in scores] == ["system", "---", *KINDS, "mine"]
    assert {len(row) for row in scores} == {12}
    names = [f"{KINDS[0]} − {other}" for other in (*KINDS[1:], "mine")]
    assert [row[0] for row in differences] == ["paired difference", "---", *names]
    assert list(result["differences"]) == names
    own = [result["systems"][name]["metrics"]["bleu_4"]["value"] for name in (KINDS[0], "mine")]
    difference = result["differences"][names[-1]]["bleu_4"]
    assert difference["value"] == pytest.approx(own[0] - own[1])
    low, high = difference["ci"]
    assert low < difference["value"] < high < 0  # the true reports are better in every draw
    assert differences[-1][1] == f"{100 * difference['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    figure = result["systems"]["frequent"]["metrics"]["bleu_1"]["value"]
    assert scores[2][1] == f"{100 * figure:.1f}"
    # One system of the table is what the command gives for that system alone.
    frequent = table[table["system"] == "frequent"]
    alone = evaluate_reports(
        list(frequent["reference"]), list(frequent["generated"]), list(frequent["subject"]), draws=20
    )
    assert {key: result["systems"]["frequent"][key] for key in alone} == alone


def test_systems_must_cover_the_same_records(tmp_path: Path) -> None:
    def write(name: str, **columns: list[str]) -> Path:
        pd.DataFrame(columns).to_csv(tmp_path / name, index=False)
        return tmp_path / name

    a = write("a.csv", record_id=["1", "2"], reference=["x", "y"], generated=["x", "x"])
    b = write("b.csv", record_id=["1", "3"], reference=["x", "y"], generated=["x", "x"])
    c = write("c.csv", record_id=["2", "1"], reference=["y", "z"], generated=["x", "x"])
    d = write("d.csv", record_id=["2", "2"], reference=["y", "y"], generated=["x", "x"])
    e = write("e.csv", reference=["x"], generated=["x"])
    for paths, message in (
        ([a, b], "do not have the same records"),
        ([a, c], "reference 1 of system c is not that of a"),
        ([a, d], "record 2 of system d is there twice"),
        ([a, e], "system e has 1 records, a has 2"),
        ([a, a], "'a' is in"),
    ):
        with pytest.raises(DeriError, match=message):
            read_systems(paths)
    good = write("good.csv", record_id=["2", "1"], reference=["y", "x"], generated=["two", "one"])
    assert list(read_systems([a, good])["good"]["generated"]) == ["one", "two"]


def test_lines_of_json_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    lines = [
        {"reference": "1999-01-01", "generated": "12", "subject": 7, "flags": [{"finding": "SR"}]},
        {"reference": None, "generated": "ä", "subject": 8, "flags": []},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    table = read_pairs(path)
    assert table[["reference", "generated", "subject"]].values.tolist() == [["1999-01-01", "12", "7"], ["", "ä", "8"]]
    assert table["flags"][0] == [{"finding": "SR"}]
    path.write_text("{broken\n", encoding="utf-8")
    with pytest.raises(DeriError, match="cannot be read as JSONL"):
        read_pairs(path)
    with pytest.raises(DeriError, match=r"ends in \.parquet or \.jsonl"):
        write_table(table, tmp_path / "x.csv")
