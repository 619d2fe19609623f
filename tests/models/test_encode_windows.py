"""Recordings of any length and with any leads through a model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from deri.ecg import ECG, standardise_windows
from deri.errors import DeriError, ReadError
from deri.models import EcgTextModel
from support import tiny


@pytest.fixture(scope="module")
def model() -> EcgTextModel:
    return tiny.model("model.signal.fs=100", "model.signal.samples=1000", pooling="mean")


def ecg(seconds: float, seed: int = 0, fs: float = 200) -> ECG:
    rng = np.random.default_rng(seed)
    return ECG(rng.normal(size=(12, round(seconds * fs))).cumsum(axis=1).astype(np.float32) * 0.05, fs)


def raw(model: EcgTextModel, recording: ECG) -> np.ndarray:
    """(windows, d), not normalised, one window at a time."""
    vectors = []
    for window in standardise_windows(recording, 100, 1000):
        x, valid = model.preprocess(window.signal[None], 100.0, np.array([window.valid_samples]))
        with torch.inference_mode():
            vectors.append(model.ecg_embedding(x, valid).numpy()[0])
    return np.stack(vectors)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_the_embedding_of_a_long_recording_is_the_mean_of_its_windows(model: EcgTextModel) -> None:
    recordings = [ecg(47, 1), ecg(4, 2), ecg(22, 3)]
    expected = np.stack([unit(raw(model, recording).mean(axis=0)) for recording in recordings])
    for size in (2, 64):
        np.testing.assert_allclose(model.encode_ecg(recordings, size), expected, atol=1e-5)
    parts = list(model.window_embeddings(recordings, 3))
    assert [len(part.record) for part in parts] == [3, 3, 2]
    assert np.concatenate([part.record for part in parts]).tolist() == [0] * 5 + [1] + [2] * 2
    assert np.concatenate([part.start for part in parts]).tolist() == [0, 10, 20, 30, 40, 0, 0, 10]
    np.testing.assert_allclose(parts[0].embedding, raw(model, recordings[0])[:3], atol=1e-5)


def test_one_window_is_the_beginning(model: EcgTextModel) -> None:
    long = ecg(35)
    begin = ECG(long.signal[:, :2100], long.fs)  # a little more than 10 s, for the resampling filter
    np.testing.assert_allclose(model.encode_ecg(long, windows=1), model.encode_ecg(begin), atol=1e-4)
    assert np.abs(model.encode_ecg(long) - model.encode_ecg(begin)).max() > 1e-3
    table = model.classify([long], ["sinus rhythm"], windows=1)
    expected = model.encode_ecg(long, windows=1) @ model.encode_labels(["sinus rhythm"])[0].T
    np.testing.assert_allclose(table.to_numpy(), expected, atol=1e-6)
    one = model.classify(long, "sinus rhythm", windows=1)  # one text, no sequence of letters
    assert list(one.columns) == ["sinus rhythm"]
    np.testing.assert_allclose(one.to_numpy(), expected, atol=1e-6)


def test_recordings_are_taken_from_an_iterator_one_at_a_time(model: EcgTextModel) -> None:
    alive: list[int] = []

    class Counted(ECG):
        def __del__(self) -> None:
            alive.pop()

    def read() -> Iterator[ECG]:
        for seed in range(4):
            assert not alive  # the one before is gone when the next is read
            one = Counted(ecg(25, seed).signal, 200)
            alive.append(seed)
            yield one
            del one

    expected = model.encode_ecg([ecg(25, seed) for seed in range(4)])
    np.testing.assert_allclose(model.encode_ecg(read(), batch_size=2), expected, atol=1e-5)
    assert model.encode_ecg([]).shape == (0, 32)


@pytest.mark.parametrize("scale", ["millivolt", "minmax"])
def test_missing_leads_are_zeros_to_the_model(scale: str) -> None:
    model = tiny.model(f"model.signal.normalise={scale}", pooling="mean")
    signal = ecg(10, fs=500).signal.copy()
    signal[[0, 2, 7]] = np.nan
    vector = model.encode_ecg(ECG(signal, 500))
    there = np.isfinite(signal).all(axis=1)
    x = np.zeros_like(signal)
    if scale == "millivolt":
        x[there] = np.clip(signal[there] - signal[there].mean(axis=1, keepdims=True), -10, 10)
    else:
        low, high = signal[there].min(), signal[there].max()
        x[there] = (signal[there] - low) / (high - low)
    with torch.inference_mode():
        expected = F.normalize(model.ecg_embedding(torch.from_numpy(x)[None], torch.tensor([5000])), dim=-1)
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_a_recording_without_a_usable_window_is_refused(model: EcgTextModel) -> None:
    with pytest.raises(ReadError) as caught:
        model.encode_ecg([ecg(10), ECG(np.full((12, 6000), np.nan, np.float32), 200)])
    assert caught.value.reason == "missing_leads"


def test_arrays_and_paths_are_recordings_with_their_rate(model: EcgTextModel, tmp_path: Path) -> None:
    batch = np.stack([ecg(10, seed).signal for seed in range(3)])
    for given in (batch, list(batch), batch[0], torch.from_numpy(batch)):
        with pytest.raises(DeriError, match="does not say its sampling rate: give fs="):
            model.encode_ecg(given)
    expected = model.encode_ecg([ECG(signal, 200) for signal in batch])
    for given in (batch, list(batch), torch.from_numpy(batch)):
        np.testing.assert_allclose(model.encode_ecg(given, fs=200), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode_ecg(batch[0], fs=200), expected[:1], atol=1e-5)
    np.savez(tmp_path / "a.npz", ecg=batch[1], fs=200, units="mV")
    np.testing.assert_allclose(model.encode_ecg([tmp_path / "a.npz"]), expected[1:2], atol=1e-5)
    np.testing.assert_allclose(model.encode_ecg(str(tmp_path / "a.npz")), expected[1:2], atol=1e-5)
    with pytest.raises(DeriError, match="leave fs out"):
        model.encode_ecg([tmp_path / "a.npz"], fs=200)
    with pytest.raises(DeriError, match="counts, not mV"):
        model.encode_ecg((1000 * batch).astype(np.int16), fs=200)
    with pytest.raises(DeriError, match=r"shape \(12, samples\)"):
        model.encode_ecg(batch[0].T, fs=200)
    expected = model.encode_ecg([ECG(signal, 100) for signal in batch[:, :, :1000]])
    np.testing.assert_allclose(model.embed_signals(batch[:, :, :1000], 100), expected, atol=1e-5)


def test_the_next_batch_is_read_while_one_is_encoded_and_no_more(model: EcgTextModel) -> None:
    read: list[int] = []
    second, fourth = threading.Event(), threading.Event()

    def recordings() -> Iterator[ECG]:
        for i in range(8):
            read.append(i)
            if i in (3, 7):
                (second if i == 3 else fourth).set()
            yield ecg(10, i)

    parts = model.window_embeddings(recordings(), 2)
    next(parts)
    assert second.wait(20)  # the second batch, without being asked for
    assert not fourth.is_set()
    assert sum(len(part.record) for part in parts) == 6
    assert read == list(range(8))


def test_an_error_of_reading_comes_in_its_place(model: EcgTextModel) -> None:
    def recordings() -> Iterator[ECG]:
        yield from (ecg(10, i) for i in range(2))
        raise ReadError("the third is gone", "missing_file")

    parts = model.window_embeddings(recordings(), 2)
    assert len(next(parts).record) == 2
    with pytest.raises(ReadError, match="the third is gone"):
        next(parts)
