from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from deri.cli.main import main
from deri.errors import DeriError
from deri.evaluation.features import Features, FeaturesAndMeasurements, embed_store
from deri.evaluation.options import EvalOptions
from deri.evaluation.probe import STRENGTHS, choose_strength, fit_probe, probe_task, sample_training, score_probes
from deri.evaluation.task import Split, TaskData, load_task
from deri.models import EcgTextModel
from deri.models.calibration import encoder_digest
from deri.store import Store
from support import tiny
from support.stores import simulated_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return simulated_store(tmp_path_factory.mktemp("ptbxl"), 150, 2)


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return tiny.model(pooling="mean", seed=4)


@pytest.fixture(scope="module")
def features(store: Store, model: EcgTextModel) -> Features:
    return Features(model, store)


def test_features_are_zero_shot_embeddings_without_unit_length(
    store: Store, model: EcgTextModel, features: Features
) -> None:
    rows = np.array([7, 3, 7, 20])
    found = features.rows(rows)
    norm = np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(norm - 1).max() > 0.05
    np.testing.assert_allclose(found / norm, embed_store(model, store, rows), atol=1e-6)


def test_features_are_computed_once(store: Store, features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    features.rows(np.arange(len(store)))
    monkeypatch.setattr(Store, "signals", lambda *_: pytest.fail("read again"))
    features.rows(np.array([5, 1]))


def test_embeddings_that_are_not_finite_are_an_error_with_the_record(store: Store) -> None:
    broken = tiny.model(pooling="mean")
    with torch.no_grad():
        broken.text_projection[0].bias.fill_(float("nan"))
    with pytest.raises(DeriError, match=str(store.index["record_id"].iloc[3])):
        embed_store(broken, store, np.array([3, 4]))


def test_encoder_does_not_move(store: Store) -> None:
    own = tiny.model(pooling="mean", seed=1).train()  # as a careless caller leaves it
    before = {name: value.clone() for name, value in own.state_dict().items()}
    digest = encoder_digest(own)
    result = probe_task(Features(own, store), "ptbxl-super", EvalOptions(draws=0), model_name="tiny")
    assert not own.training
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in before.items())
    assert result["encoder"] == {
        "mode": "eval",
        "features": "inference embedding, not normalised",
        "weights_sha256": digest,
    }
    own.backbone.bn1.running_mean += 1e-3
    assert encoder_digest(own) != digest


def test_a_moving_encoder_is_caught(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny.model(pooling="mean", seed=1)
    monkeypatch.setattr(own, "eval", own.train)  # the released flaw: batch norm in train mode
    with pytest.raises(RuntimeError, match="frozen"):
        probe_task(Features(own, store), "ptbxl-super", EvalOptions(draws=0), model_name="tiny")


def test_corrected_probe_equals_sklearn_step_by_step(store: Store, features: Features) -> None:
    data = load_task(features, "ptbxl-super")
    probe = fit_probe(data.train, data.val, data.test)
    scaler = StandardScaler().fit(data.train.features.astype(np.float64))
    x, x_val, x_test = (scaler.transform(s.features.astype(np.float64)) for s in (data.train, data.val, data.test))
    n = len(x)
    assert (data.train.labels.sum(axis=0) > 0).all()

    def probabilities(strength: float) -> tuple[np.ndarray, np.ndarray]:
        fits = [
            LogisticRegression(C=1 / (n * strength), solver="newton-cholesky", tol=1e-10).fit(x, y)
            for y in data.train.labels.T
        ]
        return tuple(np.stack([f.predict_proba(part)[:, 1] for f in fits], axis=1) for part in (x_val, x_test))  # type: ignore[return-value]

    defined = [c for c in range(5) if 0 < data.val.labels[:, c].sum() < len(x_val)]
    quality = []
    for strength in STRENGTHS:
        val, _ = probabilities(strength)
        quality.append(np.mean([roc_auc_score(data.val.labels[:, c], val[:, c]) for c in defined]))
    assert probe.chosen["converged"]
    place = STRENGTHS.index(probe.chosen["strength"])
    assert quality[place] >= max(quality) - 0.01  # a tie of two records may fall either way
    np.testing.assert_allclose(probe.test, probabilities(STRENGTHS[place])[1], atol=2e-3)


def test_embedding_and_measurements_fill_what_is_not_known_with_the_training_mean(
    store: Store, model: EcgTextModel, features: Features
) -> None:
    both = FeaturesAndMeasurements(model, store)
    rows = np.arange(len(store))
    width = model.config.dim
    np.testing.assert_allclose(both.rows(rows)[:, :width], features.rows(rows), atol=1e-6)
    np.testing.assert_array_equal(both.rows(rows)[:, width:], Features(None, store).rows(rows))
    assert both.digest != features.digest
    data = load_task(both, "ptbxl-super")
    holed = [part.features.copy() for part in (data.train, data.val, data.test)]
    for part in holed:
        part[::3, width + 4] = np.nan
    mean = np.nanmean(holed[0], axis=0)
    filled = [np.where(np.isnan(part), mean, part) for part in holed]
    parts = (data.train, data.val, data.test)
    one, other = (
        fit_probe(*(replace(part, features=x.astype(np.float32)) for part, x in zip(parts, values, strict=True)))
        for values in (holed, filled)
    )
    np.testing.assert_allclose(one.test, other.test, atol=1e-5)
    result = probe_task(both, "ptbxl-super", EvalOptions(draws=0), model_name="tiny")
    assert result["encoder"]["features"].endswith("and 125 intervals and amplitudes")


def test_intervals_alone_need_no_model_and_are_probed_as_scikit_learn_does(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["probe", "--data", str(store.path), "--task", "ptbxl-super", "--out", str(tmp_path / "r.json")]
    with pytest.raises(SystemExit) as code:
        main([*command, "--features", "intervals"])
    assert code.value.code == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["model"], result["recipe"], result["encoder"]["mode"]) == (None, None, None)
    assert result["encoder"]["features"] == "125 intervals and amplitudes"
    data = load_task(Features(None, store), "ptbxl-super")
    mean = np.nanmean(data.train.features, axis=0)
    train, test = (np.where(np.isnan(x), mean, x) for x in (data.train.features, data.test.features))
    scale = StandardScaler().fit(train)
    c = 1 / (result["seeds"][0]["strength"] * len(train))
    fitted = LogisticRegression(C=c, max_iter=5000).fit(scale.transform(train), data.train.labels[:, 0])
    expected = roc_auc_score(data.test.labels[:, 0], fitted.decision_function(scale.transform(test)))
    assert result["classes"][data.classes[0]]["auroc"] == pytest.approx(expected, abs=0.02)
    with pytest.raises(SystemExit) as code:
        main(command)
    assert code.value.code == 2
    assert "--model is missing" in capsys.readouterr().err


def test_small_fractions_are_means_over_five_draws_unless_a_number_is_given() -> None:
    options = EvalOptions(seed=7)
    assert list(options.seeds_of(10)) == [7, 8, 9, 10, 11]
    assert list(options.seeds_of(100)) == [7]
    assert list(EvalOptions(seed=7, seeds=2).seeds_of(1)) == [7, 8]


def test_strength_is_the_strongest_of_the_best_and_by_loss_without_auroc() -> None:
    labels = np.array([[1, 1], [0, 1], [1, 1]])
    wrong, right = [[-1, 0], [1, 0], [2, 0]], [[1, 0], [-1, 0], [2, 0]]
    assert choose_strength(np.array([wrong, right, right], float), labels) == 1
    ones = np.ones((3, 2))
    assert choose_strength(np.array([ones, 3 * ones, -ones]), np.ones((3, 2))) == 1
    nothing = np.zeros((2, 3, 2))
    assert choose_strength(nothing, labels) == 0


def test_samples_are_nested_and_patients_stay_whole() -> None:
    subjects = np.repeat(np.arange(60), 3)
    for sampling in ("random", "patient"):
        one, ten, all_of_them = (sample_training(subjects, p, 42, sampling) for p in (1, 10, 100))
        assert set(one) < set(ten) < set(all_of_them)
        assert len(all_of_them) == 180
        assert (np.diff(ten) > 0).all()
        assert not np.array_equal(ten, sample_training(subjects, 10, 43, sampling))
    assert len(sample_training(subjects, 10, 42)) == 18
    assert len(sample_training(subjects, 1e-6, 42)) == 1
    _, counts = np.unique(subjects[sample_training(subjects, 10, 42, "patient")], return_counts=True)
    assert counts.tolist() == [3] * 6
    assert len(sample_training(subjects, 10.5, 42, "patient")) == 18  # 19 records are asked for, never more


def test_a_sample_of_patients_is_never_larger_than_the_fraction() -> None:
    subjects = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 9, 40))
    for seed in range(20):
        for percent in (1, 5, 10, 33):
            size = len(sample_training(subjects, percent, seed, "patient"))
            first = (subjects == subjects[sample_training(subjects, 1e-6, seed, "patient")][0]).sum()
            assert size <= max(first, round(len(subjects) * percent / 100))


def test_a_class_that_is_positive_in_all_training_records_is_not_trained() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    labels = np.stack([x[:, 0] > 0, rng.random(90) < 0.5], axis=1).astype(np.uint8)
    labels[:30, 1] = 1
    data = TaskData(["a", "b"], *(Split(x[i : i + 30], labels[i : i + 30], np.arange(30)) for i in (0, 30, 60)))
    content, _ = score_probes(data, 100.0, EvalOptions(draws=0))
    assert content["classes"]["b"]["auroc"] == 0.5
    assert content["macro_auroc_trained"] == {"value": content["classes"]["a"]["auroc"], "n_classes": [1]}
    assert any("or no negatives" in note and "b; their 0.5" in note for note in content["notes"])


@pytest.mark.parametrize("protocol", ["corrected", "published"])
def test_probes_learn_what_is_linear(protocol: str) -> None:
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        x = rng.normal(size=(n, 8)).astype(np.float32)
        labels = np.stack([x[:, 0] > 0.5, x[:, 1] + x[:, 2] > 0], axis=1).astype(np.uint8)
        return Split(x, labels, np.arange(n))

    train, val, test = split(200), split(100), split(100)
    probe = fit_probe(train, val, test, protocol=protocol)  # type: ignore[arg-type]
    assert roc_auc_score(test.labels, probe.test) > 0.98
    assert ((probe.test >= 0) & (probe.test <= 1)).all()


def test_result_of_several_fractions_and_seeds(features: Features) -> None:
    options = EvalOptions(fractions=(1, 100), seeds=2, draws=50)
    result = probe_task(features, "ptbxl-super", options, model_name="tiny")
    assert set(result["fractions"]) == {"1", "100"}
    small, whole = result["fractions"]["1"], result["fractions"]["100"]
    assert small["n_train"] == max(1, round(0.01 * whole["n_train"]))
    assert small["macro_auroc"]["value"] == pytest.approx(np.mean([s["macro_auroc"] for s in small["seeds"]]))
    assert [s["seed"] for s in small["seeds"]] == [42, 43]
    # One record: every class has only one kind, and every score is the same.
    assert small["macro_auroc"]["value"] == 0.5
    trained = whole["classes"].values()
    expected = [c["auroc"] for c in trained if c["auroc"] is not None and c["n_train_pos"][0]]
    assert whole["macro_auroc_trained"]["value"] == pytest.approx(np.mean(expected))
    assert whole["macro_auroc_trained"]["n_classes"] == [len(expected)] * 2
    assert all(len(c["n_train_pos"]) == 2 for c in small["classes"].values())
    assert any("no training positives" in note for note in small["notes"])
    assert whole["macro_auroc"]["sd_over_seeds"] == 0  # nothing is random about it
    single = probe_task(features, "ptbxl-super", EvalOptions(draws=50), model_name="tiny")
    assert single["macro_auroc"]["value"] == pytest.approx(whole["macro_auroc"]["value"])
    assert single["classes"]["NORM"]["threshold"] == single["seeds"][0]["thresholds"]["NORM"]
    json.dumps(result, allow_nan=False)


def test_errors_name_the_cause(features: Features) -> None:
    with pytest.raises(DeriError, match="--fraction 0"):
        EvalOptions(fractions=(0,))
    with pytest.raises(DeriError, match="ptbxl-super"):
        probe_task(features, "csn", model_name="tiny")


def test_a_store_without_validation_records_is_refused(store: Store, model: EcgTextModel) -> None:
    class NoVal(Store):
        def task_rows(self, task: str, split: str = "all") -> np.ndarray:
            return super().task_rows(task, split)[: 0 if split == "val" else None]

    with pytest.raises(DeriError, match="no val records"):
        probe_task(Features(model, NoVal(store.path, store.meta)), "ptbxl-super", model_name="tiny")


def test_command_line(store: Store, model: EcgTextModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(tmp_path / "model")
    common = ["--model", str(tmp_path / "model"), "--data", str(store.path), "--out", str(tmp_path / "p.json")]
    with pytest.raises(SystemExit) as done:
        main(["probe", *common, "--task", "ptbxl-rhythm", "--fraction", "10,100", "--sampling", "patient"])
    assert done.value.code == 0
    result = json.loads((tmp_path / "p.json").read_text())
    assert list(result["fractions"]) == ["10", "100"]
    assert result["sampling"] == "patient"
    assert "10 % → test" in capsys.readouterr().out
    for wrong in ("1,x", "0", "1,1", "101"):
        with pytest.raises(SystemExit) as failed:
            main(["probe", *common, "--task", "ptbxl-rhythm", "--fraction", wrong])
        assert failed.value.code == 2
        assert "--fraction" in capsys.readouterr().err
