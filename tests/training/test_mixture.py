"""Several stores, classes as texts, measurements and a start from another model, in one small pre-training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deri.ecg.measure import FEATURE_NAMES, VERSION, ecg_features
from deri.errors import DeriError
from deri.models import load_model
from deri.models.measurements import MeasurementHead
from deri.objectives.terms import PairBatch, measurements
from deri.recipes import Objective, load_recipe
from deri.reports.prompts import prompts_for
from deri.store import Store
from deri.store.measurements import measure_store
from deri.training.batches import PairReader
from deri.training.class_texts import classes_of, read_class_texts
from deri.training.log import read_metrics
from deri.training.mixture import Mixture
from support import tiny
from support.small_run import StopAt, recipe, run, weights
from support.stores import simulated_store

ALL = (
    "objective.shared=findings", "train.statements=0.3", "train.class_texts=0.5", "model.measurements=true",
    "objective.measurements=2", "train.mix=[0.75,0.25]", "model.backbone=beat_resnet18", "model.token_stride=1",
    "model.signal.fs=250", "model.signal.samples=2500", "train.epochs=2", "train.batch_size=32",
)  # fmt: skip


@pytest.fixture(scope="module")
def ptb_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated_store(tmp_path_factory.mktemp("ptb"), 60, 4).path.rename(tmp_path_factory.mktemp("own") / "ptb")


def test_a_mixture_trains_on_both_stores_and_resumes_to_the_same_bits(
    mimic_store: Path,
    ptb_store: Path,
    text_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, content = [mimic_store, ptb_store], recipe(text_dir, *ALL)
    straight = run(data, tmp_path / "a", content)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "b", content, progress=StopAt(3))
    with monkeypatch.context() as changed:
        changed.setattr(sys.modules["deri.training.pretrain"], "VERSION", VERSION + 1)
        with pytest.raises(DeriError, match=f"version of measurements was {VERSION} and is {VERSION + 1}"):
            run(data, tmp_path / "b", content, resume=True)
    resumed = run(data, tmp_path / "b", content, resume=True)
    one, other = weights(straight), weights(resumed)
    assert all(torch.equal(one[name], other[name]) for name in one)
    train = [line for line in read_metrics(straight) if line["split"] == "train"]
    assert all(np.isfinite(line["measurements"]) for line in train)
    val = [line for line in read_metrics(straight) if line["split"] == "val"]
    names = ["0-store", "1-ptb"]
    assert {f"{name}/loss" for name in names} <= set(val[0])
    assert val[0]["loss"] == pytest.approx(0.75 * val[0]["0-store/loss"] + 0.25 * val[0]["1-ptb/loss"], rel=1e-6)
    about = json.loads((straight / "run.json").read_text())
    assert about["store"] == [Store.open(path).fingerprint for path in data]
    assert load_model(straight).measured is not None


def test_pairs_keep_what_they_have_alone_and_equal_reports_have_one_number(mimic_store: Path, ptb_store: Path) -> None:
    stores = [Store.open(mimic_store), Store.open(ptb_store)]
    model = tiny.model()
    # The second store's reports as if the last ones were the first store's.
    ids = [np.arange(len(stores[0].reports)), 500 + np.arange(len(stores[1].reports))]
    readers = [
        PairReader(store, model, None, shared_ids=own, measurements=None)
        for store, own in zip(stores, ids, strict=True)
    ]
    mixture = Mixture(readers)
    rows = np.array([3, 1, len(stores[0]) + 5, len(stores[0])])
    batch = mixture.batch(rows)
    for part, reader in zip((slice(0, 2), slice(2, 4)), readers, strict=True):
        alone = reader.batch(np.array([3, 1] if part.start == 0 else [5, 0]))
        assert torch.equal(batch.ecg[part], alone.ecg)
        assert torch.equal(batch.report_ids[part], alone.report_ids)
        assert batch.input_ids is not None
        assert alone.input_ids is not None
        assert torch.equal(batch.input_ids[part, : alone.input_ids.shape[1]], alone.input_ids)
    table = mixture.records(rows)
    assert table["study_id"].tolist() == [
        *stores[0].index["study_id"].iloc[[3, 1]],
        *stores[1].index["study_id"].iloc[[5, 0]],
    ]


def test_the_classes_of_a_record_are_its_texts(ptb_store: Path) -> None:
    store = Store.open(ptb_store)
    classes = classes_of([store])
    texts = read_class_texts(store, classes)
    rows = np.arange(len(store))
    known = {name: set(store.task_rows(name).tolist()) for name in store.tasks}
    expected: dict[int, set[tuple[str, str]]] = {}
    for task, codes in store.tasks.items():
        for row in known[task]:
            marks = store.labels(task, np.array([row]))[1][0]
            expected.setdefault(row, set()).update(
                (task, code) for code, mark in zip(codes, marks, strict=True) if mark and (task, code) in classes
            )
    for u in np.linspace(0.001, 0.999, 23):
        for row, prompt in zip(rows, texts.draw(rows, np.full(len(rows), u)), strict=True):
            if prompt < 0:
                assert not expected.get(row)
                continue
            assert any(texts.texts[prompt] in prompts_for(task, [code])[code] for task, code in expected[row])
            # What the text states is known of the row.
            assert not (texts.bits[prompt, 1:] & ~texts.row_bits[row]).any()
    sub = {code for task, code in classes if task != "labels"}
    assert not sub & {code for task, code in classes if task == "labels"}


def test_class_texts_need_labels(mimic_store: Path, text_dir: Path, tmp_path: Path) -> None:
    content = recipe(text_dir, "objective.shared=findings", "train.class_texts=0.5")
    with pytest.raises(DeriError, match="no store has any"):
        run(mimic_store, tmp_path / "run", content)


def test_a_start_from_a_model_takes_what_fits_and_says_what_does_not(
    mimic_store: Path,
    text_dir: Path,
    tmp_path: Path,
) -> None:
    first = run(mimic_store, tmp_path / "first", recipe(text_dir, "train.epochs=1"))
    said: list[str] = []

    class Said(StopAt):
        def message(self, text: str) -> None:
            said.append(text)

    content = recipe(text_dir, "train.epochs=1", "train.lr=1e-12", "train.weight_decay=0", "model.decoder.hidden=24")
    second = run(mimic_store, tmp_path / "second", content, init=str(first), progress=Said(-1))
    old, new = load_model(first).state_dict(), load_model(second).state_dict()
    for name, value in new.items():
        if name.startswith("backbone.") and name.endswith("weight"):
            torch.testing.assert_close(value, old[name], atol=1e-5, rtol=0)
    assert any("begin at random: ecg_to_text" in line for line in said)
    about = json.loads((second / "run.json").read_text())
    assert about["init"]["name"] == str(first)
    # It is known on resuming, and another start is refused.
    run(mimic_store, tmp_path / "second", content, resume=True)
    with pytest.raises(DeriError, match="init"):
        run(mimic_store, tmp_path / "second", content, init="random:deri-sim@3", resume=True)
    with pytest.raises(DeriError, match=r"none of its backbone's weights fits"):
        run(mimic_store, tmp_path / "third", recipe(text_dir, "model.base_width=8"), init=str(first))


def test_measurements_of_a_store_are_those_of_its_recordings_and_are_kept(ptb_store: Path) -> None:
    store = Store.open(ptb_store)
    values = measure_store(store)
    for row in (0, 17, 59):
        expected = ecg_features(store.signals(np.array([row]))[0], store.fs)
        known = np.isfinite(values[row])  # what needs a missing lead is not
        np.testing.assert_allclose(values[row][known], expected[known].astype(np.float32), rtol=1e-5)
        assert known.mean() > 0.8
    file = next((ptb_store / "measurements").glob("*.npz"))
    before = file.stat().st_mtime_ns
    np.testing.assert_array_equal(measure_store(store), values)
    assert file.stat().st_mtime_ns == before


def test_the_term_is_the_mean_huber_loss_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    read, true = rng.normal(size=(2, 5, 3)) * 2
    true[rng.random(true.shape) < 0.3] = np.nan
    output = tiny.model()(torch.randn(5, 12, 5000), torch.ones(5, 4, dtype=torch.int64), torch.ones(5, 4))
    output.measured = torch.tensor(read)
    batch = PairBatch(lambda x: x, measurements=torch.tensor(true))
    error = np.abs(read - true)
    expected = np.nanmean(np.where(error < 1, error**2 / 2, error - 0.5))
    value = measurements(output, batch, Objective())
    assert value is not None
    assert float(value) == pytest.approx(expected, rel=1e-5)
    output.measured = None
    assert measurements(output, batch, Objective()) is None


def test_measurements_are_standardised_by_median_and_quartiles_and_outliers_cut() -> None:
    head = MeasurementHead(16)
    rng = np.random.default_rng(0)
    values = rng.normal(5.0, 3.0, size=(4000, len(FEATURE_NAMES))).astype(np.float32)
    values[0], values[1] = np.nan, 1e6
    head.fit(values[2:])
    found = head.standardise(values).numpy()
    assert np.isnan(found[0]).all()
    assert (found[1] == 4.0).all()
    assert found[2:].mean() == pytest.approx(0, abs=0.02)
    assert found[2:].std() == pytest.approx(1, abs=0.03)


def test_recipes_that_do_not_go_together() -> None:
    with pytest.raises(DeriError, match=r"model\.measurements=true"):
        load_recipe("deri", ["objective.measurements=1"])
    with pytest.raises(DeriError, match="at most 1 together"):
        load_recipe("deri", ["objective.shared=findings", "train.statements=0.7", "train.class_texts=0.5"])
