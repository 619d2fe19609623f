from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.evaluation.features import Features, embed_store
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import fit_probe
from deri.evaluation.task import Split, choose_tasks
from deri.evaluation.transfer import choose_transfers, merged_labels, read_mapping, score_transfer
from deri.simulate import simulate
from deri.store import Store, prepare
from support import tiny


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    folder = tmp_path_factory.mktemp("transfer")
    for name, seed in (("home", 2), ("away", 3)):
        simulate("ptb-xl", 120, folder / f"{name}-source", seed=seed)
        prepare(open_dataset("ptb-xl", folder / f"{name}-source"), folder / name)
    return [Store.open(folder / name) for name in ("home", "away")]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_tasks_of_equal_name_are_told_apart_by_their_store(stores: list[Store]) -> None:
    labels = [task.label for task in choose_tasks(stores)]
    assert "home/ptbxl-super" in labels
    assert "away/ptbxl-super" in labels
    assert [task.label for task in choose_tasks(stores[:1], ["ptbxl-super"])] == ["ptbxl-super"]
    with pytest.raises(DeriError, match="home/ptbxl-super or away/ptbxl-super"):
        choose_transfers(["ptbxl-super:home/labels"], stores)


def test_shared_classes_are_those_of_equal_name(stores: list[Store]) -> None:
    (found,) = choose_transfers(["home/labels:away/ptbxl-rhythm"], stores)
    assert list(found.classes) == [c for c in stores[0].tasks["labels"] if c in stores[1].tasks["ptbxl-rhythm"]]
    assert "AFIB" in found.classes
    assert "LVH" not in found.classes


def test_probe_is_trained_there_and_scored_here(stores: list[Store], tmp_path: Path) -> None:
    home, away = stores
    text = """
        home/ptbxl-super:away/labels:
          NORM: NORM
          HYP: [LVH, LAO/LAE]
          block: {train: CD, test: [CLBBB, CRBBB]}
    """
    mapping = write(tmp_path / "map.yaml", text)
    name = "home/ptbxl-super:away/labels"
    (transfer,) = choose_transfers([name], stores, mapping)
    model = tiny.model(pooling="mean", seed=4)
    features = [Features(model, store, tmp_path / "embeddings") for store in stores]
    content, _, subjects = score_transfer(transfer, features[0], features[1], 100.0, EvalOptions(draws=0))

    sides = {"NORM": (["NORM"], ["NORM"]), "HYP": (["HYP"], ["LVH", "LAO/LAE"]), "block": (["CD"], ["CLBBB", "CRBBB"])}

    def part(store: Store, task: str, split: str, side: int) -> Split:
        rows = store.task_rows(task, split)
        known = store.index[task].iloc[rows]
        labels = np.array([[bool(set(own) & set(sides[c][side])) for c in sides] for own in known], np.uint8)
        return Split(embed_store(model, store, rows, normalise=False), labels, rows)

    train, val = (part(home, "ptbxl-super", split, 0) for split in ("train", "val"))
    test = part(away, "labels", "test", 1)
    probe = fit_probe(train, val, test)
    assert len(subjects) == len(test.labels)
    assert list(content["classes"]) == list(sides)
    for c, found in enumerate(content["classes"].values()):
        assert found["n_pos"] == test.labels[:, c].sum()
        if 0 < found["n_pos"] < len(test.labels):
            assert found["auroc"] == pytest.approx(roc_auc_score(test.labels[:, c], probe.test[:, c]))
        else:
            assert found["auroc"] is None
    own_test = part(home, "ptbxl-super", "test", 0)
    scores = fit_probe(train, val, own_test).test
    defined = [c for c in range(3) if 0 < own_test.labels[:, c].sum() < len(own_test.labels)]
    expected = np.mean([roc_auc_score(own_test.labels[:, c], scores[:, c]) for c in defined])
    assert content["in_domain"]["macro_auroc"]["value"] == pytest.approx(expected)
    assert content["test_store"]["fingerprint"] == away.fingerprint


def test_merged_labels_by_hand() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0]], np.uint8)
    found = merged_labels(labels, ["a", "b", "c"], [("c", "a"), ("b",)])
    assert found.tolist() == [[1, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("wanted", "mapping", "message"),
    [
        ("home/labels", None, "TRAIN:TEST"),
        ("home/labels:csn", None, "no store given has the task csn"),
        ("home/labels:home/labels", None, "to itself"),
        ("home/ptbxl-super:away/ptbxl-rhythm", None, "no class of the same name"),
        ("home/labels:away/labels", "other:tasks:\n  A: B\n", "no entry for home/labels:away/labels"),
        ("home/labels:away/labels", "home/labels:away/labels:\n  AFIB: AF\n", "'AF', which away/labels does not have"),
        ("home/labels:away/labels", "- a\n", "must be a mapping"),
        ("home/labels:away/labels", "home/labels:away/labels:\n  AFIB: []\n", "class AFIB"),
        ("home/labels:away/labels", "a: [", "--mapping .* is not valid YAML"),
    ],
)
def test_errors_name_the_cause(
    stores: list[Store], tmp_path: Path, wanted: str, mapping: str | None, message: str
) -> None:
    file = write(tmp_path / "map.yaml", mapping) if mapping else None
    with pytest.raises(DeriError, match=message):
        choose_transfers([wanted], stores, file)


def test_mapping_forms(tmp_path: Path) -> None:
    file = write(tmp_path / "map.yaml", "a:b:\n  X: Y\n  1: [2, Z]\n  N: {train: [P, Q], test: R}\n")
    assert read_mapping(file) == {"a:b": {"X": (("X",), ("Y",)), "1": (("1",), ("2", "Z")), "N": (("P", "Q"), ("R",))}}
