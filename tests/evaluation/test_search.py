"""An index on disk: exact search, replacement, joined parts, readers beside a writer, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import deri
from deri.errors import DeriError
from deri.evaluation import indexing
from deri.evaluation.index_layout import part_files
from deri.evaluation.indexing import index_writer
from deri.evaluation.search import Index, build_index, query_vector
from deri.models import EcgTextModel
from support import tiny

DIM = 32


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return tiny.model()


def vectors(n: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def about(n: int, first: int = 0) -> pd.DataFrame:
    numbers = np.arange(first, first + n)
    labels = [["EVEN"] if i % 2 == 0 else None for i in numbers]
    return pd.DataFrame({"file": [f"/f{i}" for i in numbers], "age": numbers.astype(float), "labels": labels})


@pytest.fixture
def path(model: EcgTextModel, tmp_path: Path) -> Path:
    for start in (0, 40, 80):
        build_index(tmp_path / "index", model, about(40, start), vectors(120)[start : start + 40], name="tiny")
    return tmp_path / "index"


def test_the_nearest_are_those_of_a_sort(path: Path) -> None:
    index = deri.Index.open(path)
    assert len(index) == 120
    query = 7 * vectors(1, seed=1)[0]
    scores = vectors(120) @ query / np.linalg.norm(query)
    found = index.search(query, top=15)
    order = np.argsort(-scores)[:15]
    assert found["file"].tolist() == [f"/f{i}" for i in order]
    np.testing.assert_allclose(found["score"], scores[order], atol=1e-6)
    assert found["age"].tolist() == order.tolist()
    assert list(found.columns[:2]) == ["score", "file"]
    within = index.search(query, top=15, where='"EVEN" in labels and age < 100')  # of which there are 50
    assert within["file"].tolist() == [f"/f{i}" for i in np.argsort(-scores) if i % 2 == 0 and i < 100][:15]
    assert len(index.search(query, top=1000)) == 120
    assert list(index.search(query, where="age < 0").columns) == list(found.columns)
    assert index.search(vectors(120)[5])["score"].iloc[0] <= 1


def test_a_file_that_comes_again_is_replaced(path: Path, model: EcgTextModel) -> None:
    before = Index.open(path)
    index = build_index(path, model, about(50, 30).assign(age=0.0), vectors(50, seed=2), name="tiny")
    assert len(index) == 120
    assert len(index.search(vectors(1)[0], top=200, where="age == 0")) == 51  # /f0 is of age 0, too
    assert index.search(vectors(50, seed=2)[3], top=1)["file"].tolist() == ["/f33"]
    assert index.search(vectors(120)[33], top=1)["score"].iloc[0] < 0.99
    assert before.search(vectors(120)[33], top=1)["score"].iloc[0] > 0.99  # what was opened stays


def test_joined_parts_hold_the_same(path: Path, model: EcgTextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(path, model, about(40, 40).assign(age=0.0), vectors(40, seed=2), name="tiny")  # a part without rows
    build_index(path, model, about(10, 0).assign(age=0.0), vectors(10, seed=3), name="tiny")
    before = Index.open(path)
    monkeypatch.setattr(indexing, "JOINED", 75)
    with index_writer(path, model, name="tiny") as writer:
        writer.join()
        assert len(writer.known) == 120
    after = Index.open(path)
    assert [part["rows"] for part in after.meta["parts"]] == [70, 50]
    assert len(list((path / "parts").iterdir())) == 4
    for query in vectors(3, seed=4):
        a, b = (index.search(query, top=120).set_index("file") for index in (before, after))
        pd.testing.assert_frame_equal(a.sort_index(), b.sort_index())


def test_a_reader_meets_a_writer_that_joins(path: Path, model: EcgTextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that the manifest names are gone when they are read: the next manifest names others."""
    read = deri.evaluation.search.read_manifest
    calls = []

    def slow(folder: Path) -> dict:
        found = read(folder)
        if not calls:
            with index_writer(path, model, name="tiny") as writer:
                writer.join()
        calls.append(found)
        return found

    monkeypatch.setattr("deri.evaluation.search.read_manifest", slow)
    assert len(Index.open(path)) == 120
    assert len(calls) == 2


@pytest.mark.parametrize("at", ["vectors", "table", "manifest"])
def test_a_write_that_fails_leaves_the_index_as_it_was(
    at: str, path: Path, model: EcgTextModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*{
        "vectors": (indexing.np, "save"), "table": (indexing.pq, "write_table"), "manifest": (indexing, "write_sealed"),
    }[at], fail)  # fmt: skip
    with pytest.raises(DeriError, match="what is done is kept"):
        build_index(path, model, about(5, 200), vectors(5), name="tiny")
    monkeypatch.undo()
    assert len(Index.open(path)) == 120
    assert len(build_index(path, model, about(5, 200), vectors(5), name="tiny")) == 125
    assert len(list((path / "parts").iterdir())) == 8  # nothing is left of what failed


@pytest.mark.parametrize("suffix", [0, 1])
def test_missing_and_damaged_files_are_named(path: Path, suffix: int) -> None:
    file = part_files(path, "part-000001")[suffix]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DeriError, match="part-000001.*is damaged.*index again"):
        Index.open(path)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(DeriError, match="part-000001.*is damaged.*index again"):
        Index.open(path)
    file.write_bytes(part_files(path, "part-000000")[suffix].read_bytes()[:0])
    with pytest.raises(DeriError, match="part-000001.*index again"):
        Index.open(path)
    file.unlink()
    with pytest.raises(DeriError, match="lacks .*part-000001.*index again"):
        Index.open(path)


def test_another_model_another_rule_another_folder_and_two_writers_are_refused(
    path: Path, model: EcgTextModel, tmp_path: Path
) -> None:
    other = tiny.model(seed=1)
    with pytest.raises(DeriError, match="other is not the one that made the index .*tiny"), \
            index_writer(path, other, name="other"):  # fmt: skip
        pass
    with pytest.raises(DeriError, match="made with --windows all"), index_writer(path, model, name="tiny", windows=1):
        pass
    (tmp_path / "mine").write_text("text")
    with pytest.raises(DeriError, match="holds files and no index"), index_writer(tmp_path, model, name="tiny"):
        pass
    with index_writer(path, model, name="tiny"), pytest.raises(DeriError, match="another process writes"), \
            index_writer(path, model, name="tiny"):  # fmt: skip
        pass
    with pytest.raises(DeriError, match="is no index"):
        Index.open(tmp_path)
    model.save_pretrained(tmp_path / "model")
    index = Index.open(path)
    assert isinstance(index.model(str(tmp_path / "model")), EcgTextModel)  # the name does not matter
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(DeriError, match="not the one that made the index"):
        index.model(str(tmp_path / "other"))
    with pytest.raises(DeriError, match="--model"):
        index.model()


@pytest.mark.parametrize("query", [np.zeros(DIM), np.full(DIM, np.nan), np.ones(DIM - 1), np.ones((1, DIM))])
def test_queries_without_direction_and_of_another_width_are_refused(query: np.ndarray, path: Path) -> None:
    with pytest.raises(DeriError, match="query"):
        Index.open(path).search(query)


def test_a_query_of_several_is_the_mean_of_their_directions(model: EcgTextModel) -> None:
    rng = np.random.default_rng(0)
    ecg = deri.ECG(rng.normal(0, 0.3, (12, 5000)).astype(np.float32), 500)
    text, _ = model.encode_labels(["atrial fibrillation"])
    both, _ = query_vector(model, ["atrial fibrillation"], [ecg])
    expected = (text[0] + model.encode_ecg([ecg])[0]) / 2
    np.testing.assert_allclose(both, expected / np.linalg.norm(expected), atol=1e-5)
    one, notes = query_vector(model, ["no atrial fibrillation"])
    np.testing.assert_allclose(one, -text[0], atol=1e-5)
    assert notes  # a denied finding is told
    with pytest.raises(DeriError, match="cancel"):
        query_vector(model, ["atrial fibrillation", "no atrial fibrillation"])
    for nothing in ([], [" "]):
        with pytest.raises(DeriError, match="empty"):
            query_vector(model, nothing)
