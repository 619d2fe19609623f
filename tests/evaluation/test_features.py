"""A recording of several windows counts once, with the mean of their embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.ecg.measure import FEATURE_NAMES, ecg_features
from deri.errors import DeriError
from deri.evaluation.features import Features, embed_store
from deri.evaluation.leakage import find_leakage
from deri.evaluation.options import EvalOptions
from deri.evaluation.task import load_task
from deri.evaluation.zero_shot import zero_shot_task
from deri.models import EcgTextModel
from deri.store import Store, prepare
from deri.store.measurements import extract_features
from deri.training.batches import PairReader
from deri.training.finetune import FinetuneConfig, FinetuneTask
from support import tiny, windowed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("windowed")
    prepare(windowed.dataset(folder / "source"), folder / "store", windows=None)
    return Store.open(folder / "store")


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return tiny.model(
        "model.signal.fs=100", "model.signal.samples=1000", "model.signal.normalise=minmax", pooling="mean"
    )


def windows(model: EcgTextModel, store: Store) -> np.ndarray:
    """(n, d): the embedding of every row by itself."""
    vectors = []
    for row in range(len(store)):
        valid = store.index["valid_samples"].to_numpy()[[row]]
        ecg, kept = model.preprocess(store.signals([row]), 500.0, valid, store.lead_mask([row]))
        vectors.append(model.ecg_embedding(ecg, kept).detach().numpy()[0])
    return np.stack(vectors)


def test_a_row_stands_for_the_mean_of_its_recordings_windows(model: EcgTextModel, store: Store) -> None:
    each, names = windows(model, store), store.index["record_id"].to_numpy()
    rows = store.rows()
    expected = np.stack([each[names == name].mean(axis=0) for name in names[rows]])
    for size in (3, 128):
        raw = embed_store(model, store, rows, batch_size=size, normalise=False)
        np.testing.assert_allclose(raw, expected, atol=1e-5)
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(embed_store(model, store, rows[::-1]), unit[::-1], atol=1e-5)
    np.testing.assert_allclose(Features(model, store).rows(rows[[3, 1]]), expected[[3, 1]], atol=1e-5)
    assert np.abs(expected[1] - each[1]).max() > 1e-4  # long differs from its first window
    assert embed_store(model, store, rows[:0]).shape == (0, 32)


def test_results_count_recordings(model: EcgTextModel, store: Store) -> None:
    result = zero_shot_task(Features(model, store), "labels", EvalOptions(split="all", draws=0), model_name="m")
    assert result["n"] == 6
    data = load_task(Features(model, store), "labels")
    assert [len(part.labels) for part in (data.train, data.val, data.test)] == [4, 1, 1]


def test_training_takes_every_window(model: EcgTextModel, store: Store) -> None:
    pairs = PairReader(store, model, None)
    rows = pairs.rows("train")
    assert len(rows) == 8
    batch = pairs.batch(rows)
    single = int(np.flatnonzero(store.index["record_id"].to_numpy()[rows] == "single")[0])
    assert np.flatnonzero(batch.ecg[single].any(dim=1).numpy()).tolist() == [1]
    assert float(batch.ecg[single].max()) == 1
    assert batch.report_ids[1:5].unique().numel() == 1


def test_finetuning_trains_on_windows_and_predicts_recordings(model: EcgTextModel, store: Store) -> None:
    run = FinetuneTask(model, store, "labels", FinetuneConfig())
    assert (len(run.rows), run.n_train) == (8, 4)
    np.testing.assert_array_equal(run.labels, store.labels("labels", run.rows)[1])
    probabilities = run.predict(store.rows())
    embedding = embed_store(run.model, store, store.rows(), normalise=False)
    weight, bias = run.head.weight.detach().numpy(), run.head.bias.detach().numpy()
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-(embedding @ weight.T + bias))), atol=1e-4)


def test_kept_features_are_read_again_and_damage_is_named(model: EcgTextModel, store: Store, tmp_path: Path) -> None:
    rows = store.rows()
    values = Features(model, store, tmp_path).rows(rows)
    (file,) = tmp_path.rglob("part-*.npz")
    kept = file.stat().st_mtime_ns
    np.testing.assert_array_equal(Features(model, store, tmp_path).rows(rows), values)
    assert file.stat().st_mtime_ns == kept
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole)
    with pytest.raises(DeriError, match=f"{file.name} is damaged .*delete it, the same command makes it again"):
        Features(model, store, tmp_path).rows(rows)
    file.unlink()
    np.testing.assert_array_equal(Features(model, store, tmp_path).rows(rows), values)


def test_classical_features_of_missing_leads_are_unknown_not_zero(store: Store) -> None:
    names = store.index["record_id"].to_numpy()
    rows = np.array([int(np.flatnonzero(names == name)[0]) for name in ("single", "ten")])
    single, ten = (dict(zip(FEATURE_NAMES, values, strict=True)) for values in extract_features(store, rows))
    unknown = {name for name in FEATURE_NAMES if np.isnan(single[name]) and not np.isnan(ten[name])}
    assert {"r_V1", "st_I", "axis_deg", "t_axis_sin", "sokolow_lyon", "limb_low_voltage", "power_3_9_V1"} <= unknown
    assert not {"r_II", "rate", "qrs_ms", "power_3_9_II", "beat_corr_mean"} & unknown
    alone = dict(zip(FEATURE_NAMES, ecg_features(store.signals(rows[:1])[0], 500.0), strict=True))
    assert single["r_II"] == np.float32(alone["r_II"])


def test_leakage_counts_recordings(store: Store, tmp_path: Path) -> None:
    prepare(windowed.dataset(tmp_path / "source"), tmp_path / "store", windows=2)
    found = find_leakage(store, Store.open(tmp_path / "store"))
    assert found["n"] == [6, 6]
    assert found["exact"]["pairs"] == 7  # of long two windows are in both
    assert found["exact"]["records"] == [6, 6]
    assert found["exact"]["against_by_split"] == {"train": 4, "val": 1, "test": 1}
    assert found["subjects"]["records"] == [6, 6]
