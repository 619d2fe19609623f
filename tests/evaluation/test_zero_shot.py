from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deri.errors import DeriError
from deri.evaluation.features import Features, embed_store, unit
from deri.evaluation.options import EvalOptions
from deri.evaluation.zero_shot import class_weights, zero_shot_task
from deri.models import EcgTextModel
from deri.reports import prompts_for
from deri.store import Store
from support import tiny
from support.stores import simulated_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated_store(tmp_path_factory.mktemp("ptbxl"), 120, 2)


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return tiny.model(pooling="mean", seed=4)


@pytest.fixture(scope="module")
def features(store: Store, model: EcgTextModel) -> Features:
    return Features(model, store)


def test_result_file_against_its_parts(store: Store, model: EcgTextModel, features: Features) -> None:
    result = zero_shot_task(features, "ptbxl-rhythm", EvalOptions(split="all", draws=100), model_name="tiny")
    rows = store.task_rows("ptbxl-rhythm", "all")
    names, labels = store.labels("ptbxl-rhythm", rows)
    prompts = prompts_for("ptbxl-rhythm", names)
    embedded = np.stack([model.encode_text(texts).mean(axis=0) for texts in prompts.values()])
    scores = embed_store(model, store, rows) @ embedded.T
    assert result["n"] == len(rows)
    assert list(result["classes"]) == names
    for c, name in enumerate(names):
        entry = result["classes"][name]
        assert entry["n_pos"] == labels[:, c].sum()
        if 0 < labels[:, c].sum() < len(rows):
            assert entry["auroc"] == pytest.approx(roc_auc_score(labels[:, c], scores[:, c]), abs=1e-6)
            if entry["ci"] is None:  # all positives are of one patient
                assert len(set(store.index["subject_id"].to_numpy()[rows][labels[:, c] > 0])) == 1
            else:
                assert entry["ci"][0] <= entry["auroc"] <= entry["ci"][1]
        else:
            assert entry["auroc"] is None
            assert any(name in note for note in result["notes"])
    known = [entry["auroc"] for entry in result["classes"].values() if entry["auroc"] is not None]
    assert result["macro_auroc"]["value"] == pytest.approx(np.mean(known))
    many = [e["auroc"] for e in result["classes"].values() if e["auroc"] is not None and e["n_pos"] >= 10]
    assert result["macro_auroc_reliable"]["value"] == pytest.approx(np.mean(many))
    assert result["macro_auroc_reliable"]["n_classes"] == len(many) < len(known)
    assert result["calibration"] is None  # cosines are no probabilities
    assert result["macro_f1"] is None  # split all contains the validation records
    assert {"task", "model", "split", "protocol", "seed", "accuracy", "deri_version", "recipe", "store"} <= set(result)


def test_thresholds_come_from_validation_unless_published(store: Store, features: Features) -> None:
    corrected = zero_shot_task(features, "ptbxl-super", EvalOptions(draws=0), model_name="tiny")
    published = zero_shot_task(features, "ptbxl-super", EvalOptions(protocol="published", draws=0), model_name="tiny")
    assert any("validation" in note for note in corrected["notes"])
    assert any("published" in note for note in published["notes"])
    names, labels = store.labels("ptbxl-super", store.task_rows("ptbxl-super", "test"))
    for c, name in enumerate(names):
        if labels[:, c].any():
            # Chosen on the scored records, F1 is at least that of calling all of them positive.
            share = labels[:, c].mean()
            assert published["classes"][name]["f1"] >= 2 * share / (1 + share) - 1e-9


def test_published_class_weights_are_the_first_prompt_unmixed(model: EcgTextModel) -> None:
    prompts = {"a": ["sinus rhythm", "normal ecg"], "b": ["atrial fibrillation"]}
    with torch.inference_mode():
        features = model.text_encoder(*model.text_encoder.tokenize(["sinus rhythm", "atrial fibrillation"]))
        expected = model.text_aligned(features).numpy()
    np.testing.assert_allclose(class_weights(model, prompts, protocol="published"), expected, atol=1e-5)
    corrected = class_weights(model, prompts)
    np.testing.assert_allclose(np.linalg.norm(corrected, axis=1), 1, atol=1e-5)
    assert not np.allclose(corrected, expected, atol=1e-2)


def test_unknown_tasks_and_empty_splits(features: Features) -> None:
    with pytest.raises(DeriError, match="ptbxl-super"):
        zero_shot_task(features, "cpsc2018", model_name="tiny")


def test_own_prompts(features: Features, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"NORM": "normal ecg", "MI": "a"}')
    with pytest.raises(DeriError, match="STTC"):
        zero_shot_task(features, "ptbxl-super", model_name="tiny", prompts=file)


def test_unit_length_leaves_zeros_alone() -> None:
    rows = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]], atol=1e-7)
    assert rows.dtype == np.float32
