from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

from deri.errors import DeriError
from deri.store import Store, TextFeatures, prepare, text_features
from support.told import Told


class FakeEncoder:
    """A token per word, each a fixed function of the word."""

    def __init__(self, fingerprint: str = "fake", width: int = 8, scale: float = 1.0) -> None:
        self.fingerprint = fingerprint
        self.width = width
        self.scale = scale
        self.batches: list[list[str]] = []
        self.texts: list[str] = []

    def encode(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        self.batches.append(texts)
        self.texts += texts
        return [self.one(text) for text in texts]

    def one(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        words = [np.random.default_rng(list(word.encode())).normal(size=self.width) for word in text.split()]
        tokens = np.asarray(words, np.float32) * np.float32(self.scale)
        return tokens, tokens.mean(0) / 3


@pytest.fixture
def store(make_dataset, records: Path, tmp_path: Path) -> Store:
    """25 recordings with 23 distinct reports of 1 to 23 words, in no order of length."""
    names = [f"a{i:03d}" for i in range(7)] * 4
    lengths = [(7 * i) % 23 + 1 for i in range(25)]
    texts = [" ".join(f"w{n}x{k}" for k in range(n)) for n in lengths]
    prepare(make_dataset(records, names[:25], report=texts), tmp_path / "store")
    return Store.open(tmp_path / "store")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch) -> None:
    monkeypatch.setattr(text_features, "PART", 5)
    monkeypatch.setattr(text_features, "BATCH", 2)


def test_features_are_those_of_each_report(store: Store) -> None:
    encoder = FakeEncoder()
    features = TextFeatures.build(store, encoder, dtype="float32")
    ids = [3, 22, 0, 3]
    tokens, mask = features.tokens(ids)
    pooled = features.pooled(ids)
    assert tokens.dtype == pooled.dtype == np.float32
    assert mask.dtype == bool
    lengths = [len(store.reports[i].split()) for i in ids]
    assert tokens.shape == (4, max(lengths), 8)
    assert features.lengths(ids).tolist() == lengths == mask.sum(1).tolist()
    for k, i in enumerate(ids):
        expected = encoder.one(store.reports[i])
        np.testing.assert_array_equal(tokens[k, : lengths[k]], expected[0])
        assert not tokens[k, lengths[k] :].any()
        assert mask[k, : lengths[k]].all()
        np.testing.assert_array_equal(pooled[k], expected[1])


def test_every_text_is_encoded_once_in_batches_of_like_length(store: Store) -> None:
    encoder = FakeEncoder()
    TextFeatures.build(store, encoder)
    assert sorted(encoder.texts) == sorted(store.reports)
    first = encoder.texts[:5]
    assert [len(text) for text in first] == sorted(len(text) for text in store.reports[:5])
    again = FakeEncoder()
    features = TextFeatures.build(store, again)
    assert not again.batches
    assert len(features) == len(store.reports) == 23


def test_half_precision_by_default(store: Store) -> None:
    encoder = FakeEncoder()
    features = TextFeatures.build(store, encoder)
    tokens, _ = features.tokens([4])
    expected = encoder.one(store.reports[4])[0]
    np.testing.assert_array_equal(tokens[0], expected.astype(np.float16).astype(np.float32))
    assert np.load(features.path / "tokens.npy").dtype == np.float16
    np.testing.assert_array_equal(features.pooled([4])[0], encoder.one(store.reports[4])[1])
    exact = TextFeatures.build(store, encoder, dtype="float32")
    assert exact.path != features.path


def test_files_are_as_documented(store: Store) -> None:
    features = TextFeatures.build(store, FakeEncoder())
    assert sorted(path.name for path in features.path.iterdir()) == [
        "checksums.npy", "meta.json", "offsets.npy", "pooled.npy", "tokens.npy",
    ]  # fmt: skip
    offsets = np.load(features.path / "offsets.npy")
    assert offsets.dtype == np.int64
    np.testing.assert_array_equal(np.diff(offsets), [len(text.split()) for text in store.reports])
    assert np.load(features.path / "tokens.npy").shape == (offsets[-1], 8)
    assert np.load(features.path / "pooled.npy").shape == (23, 8)


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("batches", [0, 1, 4, 8, 11])
def test_a_killed_build_continues_to_the_same_bytes(store: Store, content, batches: int) -> None:
    whole = TextFeatures.build(store, FakeEncoder())
    expected = content(whole.path)
    other = FakeEncoder("other")
    encode = other.encode

    def dies(texts):
        if len(other.batches) == batches:
            raise KilledError
        return encode(texts)

    other.encode = dies
    with pytest.raises(KilledError):
        TextFeatures.build(store, other)
    # What a kill leaves beyond the last mark: bytes without a meaning.
    for name in ("tokens.npy", "pooled.npy", "offsets.npy", "checksums.npy"):
        with open(next((store.path / "text_features").glob("*.work")) / name, "ab") as file:
            file.write(b"garbage")
    done = batches // 3  # parts of 5 texts are 3 batches of at most 2
    rest = FakeEncoder("other")
    features = TextFeatures.build(store, rest)
    assert len(rest.texts) == 23 - 5 * done
    found = content(features.path)
    assert {name: found[name] for name in found if name.endswith("npy")} == {
        name: expected[name] for name in expected if name.endswith("npy")
    }
    assert not list((store.path / "text_features").glob("*.work"))


def test_a_kill_before_the_last_rename_costs_nothing(store: Store, monkeypatch) -> None:
    def dies(self, target):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KilledError):
            TextFeatures.build(store, FakeEncoder())
    encoder = FakeEncoder()
    features = TextFeatures.build(store, encoder)
    assert not encoder.batches
    assert (features.path / "meta.json").is_file()
    assert not (features.path / "progress.json").exists()


def test_features_of_other_reports_or_cut_files_are_made_anew(store: Store) -> None:
    features = TextFeatures.build(store, FakeEncoder())
    meta = json.loads((features.path / "meta.json").read_text())
    (features.path / "meta.json").write_text(json.dumps(meta | {"reports_sha256": "0"}))
    encoder = FakeEncoder()
    TextFeatures.build(store, encoder)
    assert encoder.batches
    with open(features.path / "tokens.npy", "r+b") as file:
        file.truncate(200)
    encoder = FakeEncoder()
    TextFeatures.build(store, encoder)
    assert encoder.batches


def test_processes_that_build_at_once_share_the_work(store: Store) -> None:
    encoder = FakeEncoder()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(TextFeatures.build(store, encoder).pooled([7])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(encoder.texts) == 23


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_refused(store: Store, bad: float) -> None:
    encoder = FakeEncoder()
    one = encoder.one

    def broken(text: str):
        tokens, pooled = one(text)
        if text == store.reports[9]:
            tokens[0, 0] = bad
        return tokens, pooled

    encoder.one = broken
    with pytest.raises(DeriError, match="NaN or infinity for report 9"):
        TextFeatures.build(store, encoder)


def test_too_large_for_half_precision_is_refused(store: Store) -> None:
    with pytest.raises(DeriError, match="cache_dtype=float32"):
        TextFeatures.build(store, FakeEncoder(scale=1e5))
    big = TextFeatures.build(store, FakeEncoder(scale=1e5), dtype="float32")
    assert np.abs(big.tokens([0, 1, 2])[0]).max() > 65504


def test_an_encoder_of_another_width_is_refused(store: Store) -> None:
    encoder = FakeEncoder()
    encoder.width = 8
    encoder.encode = lambda texts: [(np.zeros((3, 9)), np.zeros(9)) for _ in texts]
    with pytest.raises(ValueError, match=r"tokens \(3, 9\)"):
        TextFeatures.build(store, encoder)


def test_a_row_without_a_report_has_no_features(store: Store) -> None:
    features = TextFeatures.build(store, FakeEncoder())
    for ids in ([-1], [23]):
        with pytest.raises(IndexError):
            features.pooled(ids)
        with pytest.raises(IndexError):
            features.tokens(ids)


def test_a_store_without_reports_is_refused(make_dataset, records: Path, tmp_path: Path) -> None:
    prepare(make_dataset(records, ["a000"], report=[None]), tmp_path / "mute")
    with pytest.raises(DeriError, match="has no reports"):
        TextFeatures.build(Store.open(tmp_path / "mute"), FakeEncoder())


def test_pickled_features_and_progress(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    features = TextFeatures.build(store, FakeEncoder(), progress=Told(lambda done, total: seen.append((done, total))))
    assert seen == [(5, 23), (10, 23), (15, 23), (20, 23), (23, 23)]
    features.tokens([1])
    again = pickle.loads(pickle.dumps(features))
    np.testing.assert_array_equal(again.tokens([5, 2])[0], features.tokens([5, 2])[0])
