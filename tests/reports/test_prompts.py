from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from deri.errors import DeriError
from deri.reports import TASKS, class_names, clean_report, load_prompt_file, load_prompts, prompts_for

SIZES = {"ptbxl-super": 5, "ptbxl-sub": 23, "ptbxl-form": 19, "ptbxl-rhythm": 12, "cpsc2018": 9, "csn": 38}
PUBLISHED = {
    "ptbxl-super": ("merl/ptbxl/super_class/ptbxl_super_class_test.csv", 6),
    "ptbxl-sub": ("merl/ptbxl/sub_class/ptbxl_sub_class_test.csv", 6),
    "ptbxl-form": ("merl/ptbxl/form/ptbxl_form_test.csv", 6),
    "ptbxl-rhythm": ("merl/ptbxl/rhythm/ptbxl_rhythm_test.csv", 6),
    "cpsc2018": ("merl/icbeb/icbeb_test.csv", 7),
    "csn": ("merl/chapman/chapman_test.csv", 3),
}
OWN = """task: ptbxl-super
version: 1
classes:
  NORM: {name: normal ecg, prompts: [normal ecg.]}
"""


def test_tasks() -> None:
    assert {task: len(load_prompts(task)) for task in TASKS} == SIZES


@pytest.mark.parametrize("task", [*TASKS, "labels"])
def test_every_prompt_reads_like_a_cleaned_report(task: str) -> None:
    names, mains = class_names(task), set()
    for code, prompts in load_prompts(task).items():
        assert 2 <= len(prompts) <= 4, code
        assert len(set(prompts)) == len(prompts), code
        assert clean_report(names[code]) in prompts, code
        for prompt in prompts:
            assert clean_report(prompt) == prompt, code
            assert len(prompt) < 130, code
        mains.add(prompts[0])
    if task != "labels":  # there several codes name one finding
        assert len(mains) == SIZES[task], "two classes share their main prompt"


@pytest.mark.parametrize("task", TASKS)
def test_classes_are_those_of_the_published_files(task: str, shared: Path) -> None:
    name, skip = PUBLISHED[task]
    header = pd.read_csv(shared / "published-splits" / name, nrows=0).columns[skip:]
    assert set(load_prompts(task)) == set(header)
    assert list(prompts_for(task, header)) == list(header)


def test_every_statement_and_label_of_real_data_has_a_prompt(shared: Path) -> None:
    codes = pd.read_csv(shared / "text" / "scp_statements.csv", index_col=0).index
    index = pd.read_csv(shared / "ecg-real" / "index.csv", dtype=str)
    labels = index["labels"].dropna().str.split(";").explode().unique()
    assert len(codes) == 71
    for code, prompts in prompts_for("labels", [*codes, *labels]).items():
        assert prompts[0] != code
        assert len(prompts) > 1


def test_underscores_are_no_difference() -> None:
    form = load_prompts("ptbxl-form")
    assert prompts_for("ptbxl-form", ["NT_", "STD_"]) == {"NT_": form["NT"], "STD_": form["STD"]}
    assert prompts_for("ptbxl-sub", ["_AVB", "ISC_"])["_AVB"] == load_prompts("ptbxl-sub")["AVB"]
    labels = prompts_for("labels", ["ISC", "ISC_", "TAB_", "TAB"])
    assert labels["ISC"] == labels["ISC_"]
    assert labels["TAB"] == labels["TAB_"] == form["TAB"]


def test_labels_prefer_statements_and_fall_back_on_their_text() -> None:
    found = prompts_for("labels", ["STE", "IMI", "LAE", "VPB", "VES", "brugada pattern", "afib"])
    assert found["STE"] == load_prompts("ptbxl-form")["STE"] != load_prompts("csn")["STE"]
    assert found["IMI"][0] == "inferior infarct, age undetermined."
    assert found["LAE"] == load_prompts("ptbxl-sub")["LAO/LAE"]
    assert found["VPB"] == load_prompts("csn")["VPB"]
    assert found["VES"] == load_prompts("ptbxl-form")["PVC"]
    assert found["brugada pattern"] == ["brugada pattern"]
    assert found["afib"] == ["afib"]


@pytest.mark.parametrize("label", ["AF", "ST", "VEB"])
def test_a_label_of_two_meanings_is_refused(label: str, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match=f"'{label}' is ambiguous"):
        prompts_for("labels", ["SR", label])
    file = tmp_path / "own.json"
    file.write_text(json.dumps({label: "my own words"}))
    assert prompts_for("labels", [label], file) == {label: ["my own words"]}


def test_prompts_are_copies() -> None:
    load_prompts("cpsc2018")["NORM"].append("changed")
    assert "changed" not in load_prompts("cpsc2018")["NORM"]


def test_unknown_task() -> None:
    with pytest.raises(DeriError, match="did you mean ptbxl-super"):
        load_prompts("ptbxl_super")


def test_unknown_classes_are_named() -> None:
    with pytest.raises(DeriError, match=r"2 of 3 classes: FOO, BAR"):
        prompts_for("cpsc2018", ["FOO", "NORM", "BAR"])


def test_published_json(tmp_path: Path) -> None:
    file = tmp_path / "ckepe.json"
    file.write_text(json.dumps({"NT_": "Flat T waves ", "NORM": ["Normal", "No finding"]}), encoding="utf-8-sig")
    assert load_prompt_file(file) == {"NT_": ["Flat T waves"], "NORM": ["Normal", "No finding"]}
    assert prompts_for("ptbxl-form", ["NT"], file) == {"NT": ["Flat T waves"]}
    with pytest.raises(DeriError, match=r"ckepe.json: no prompt for 1 of 2 classes: STD"):
        prompts_for("ptbxl-form", ["NT", "STD"], file)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[1]", "JSON object"),
        ("{}", "JSON object"),
        ('"text"', "JSON object"),
        ('{"A": 5}', "class 'A' has a int"),
        ('{"A": {"text": "x"}}', "class 'A' has a dict"),
        ('{"A": "  "}', "non-empty"),
        ('{"A": []}', "non-empty"),
        ('{"A": ["x", 1]}', "non-empty"),
        ('{"A": "x", "A": "y"}', "key twice: A"),
        ('{"A": ', "not valid JSON"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(DeriError, match=cause) as caught:
        load_prompt_file(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("version: 1", "version: 2", "version 2"),
        ("version: 1\n", "", "lacks version"),
        ("version: 1", "version: 1\nnotes: x", "unknown key notes"),
        ("prompts:", "prompt:", "unknown key prompt in class NORM"),
        ("prompts: [normal ecg.]", "prompts: normal ecg.", "prompts of class NORM"),
        ("prompts: [normal ecg.]", "prompts: []", "prompts of class NORM"),
        ("name: normal ecg", "name: 5", "name of class NORM"),
        ("  NORM:", "  1:", "class code 1"),
        ("classes:", "classes: []\nother:", "unknown key other"),
        ("}\n", "}\n  NORM: {name: a, prompts: [b]}\n", "key twice: NORM"),
        ("task: ptbxl-super", "task: [", "not valid YAML"),
        (OWN, "just text", "must be a mapping"),
        (OWN, "", "must be a mapping"),
    ],
)
def test_bad_yaml(tmp_path: Path, old: str, new: str, cause: str) -> None:
    file = tmp_path / "bad.yaml"
    assert old in OWN
    file.write_text(OWN.replace(old, new))
    with pytest.raises(DeriError, match=cause) as caught:
        load_prompt_file(file)
    assert str(file) in str(caught.value)


def test_own_yaml_serves_its_task_only(tmp_path: Path) -> None:
    file = tmp_path / "own.yml"
    file.write_text(OWN)
    assert prompts_for("ptbxl-super", ["NORM"], file) == {"NORM": ["normal ecg."]}
    assert prompts_for("labels", ["NORM"], file) == {"NORM": ["normal ecg."]}
    with pytest.raises(DeriError, match="task 'ptbxl-super', not 'cpsc2018'"):
        prompts_for("cpsc2018", ["NORM"], file)


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match=r"gone.json cannot be read: No such file"):
        load_prompt_file(tmp_path / "gone.json")
    (tmp_path / "latin.json").write_bytes('{"A": "für"}'.encode("latin-1"))
    with pytest.raises(DeriError, match="not UTF-8"):
        load_prompt_file(tmp_path / "latin.json")
    (tmp_path / "prompts.txt").write_text("{}")
    with pytest.raises(DeriError, match=r"\.yaml \(ours\) or \.json"):
        load_prompt_file(tmp_path / "prompts.txt")
