from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deri.ecg import ECG
from deri.evaluation.saliency import draw_saliency, occlude

FS = 50.0


def linear(weights: np.ndarray) -> object:
    return lambda signals: (signals * weights).sum(axis=(1, 2))


def expected(signal: np.ndarray, weights: np.ndarray, width: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Sample by sample, as the definition reads."""
    leads, n = signal.shape
    starts = [a for a in range(n) if a % step == 0 and a + width <= n]
    if starts[-1] + width < n:
        starts.append(n - width)
    fall = {}
    for a in starts:
        for lead in range(leads):
            piece = signal[lead, a : a + width]
            fall[lead, a] = float((weights[lead, a : a + width] * (piece - piece.mean())).sum())
    lead_time = np.zeros((leads, n))
    time = np.zeros(n)
    for t in range(n):
        covering = [a for a in starts if a <= t < a + width]
        for lead in range(leads):
            lead_time[lead, t] = np.mean([fall[lead, a] for a in covering])
        time[t] = np.mean([sum(fall[lead, a] for lead in range(leads)) for a in covering])
    return lead_time, time


@settings(max_examples=20)
@given(n=st.integers(10, 60), seed=st.integers(0, 99), batch=st.sampled_from([1, 7, 64]))
def test_of_a_linear_score_is_what_the_hidden_part_contributes(n: int, seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    signal, weights = rng.normal(size=(2, 12, n))
    found = occlude(linear(weights), signal, FS, window=0.2, stride=0.1, batch_size=batch)  # type: ignore[arg-type]
    lead_time, time = expected(signal, weights, 10, 5)
    assert found.score == pytest.approx((signal * weights).sum())
    np.testing.assert_allclose(found.lead_time, lead_time, atol=1e-9)
    np.testing.assert_allclose(found.time, time, atol=1e-9)
    centred = signal - signal.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.lead, (weights * centred).sum(axis=1), atol=1e-9)


def test_finds_the_one_place_that_matters_and_leaves_the_signal_alone() -> None:
    signal = np.random.default_rng(0).normal(size=(12, 500))
    before = signal.copy()
    found = occlude(lambda s: np.abs(s[:, 7, 210:214]).max(axis=1) * 10, signal, FS)
    np.testing.assert_array_equal(signal, before)
    lead, time = np.unravel_index(found.lead_time.argmax(), found.lead_time.shape)
    assert lead == 7
    assert abs(int(time) - 212) <= 10
    assert found.lead.argmax() == 7
    others = np.delete(found.lead_time, 7, axis=0)
    np.testing.assert_array_equal(others, 0)


@pytest.mark.parametrize(("seconds", "missing"), [(10, []), (4, []), (10, [1, 6])])
def test_overlay_lies_behind_the_lead_it_is_of(seconds: int, missing: list[int]) -> None:
    fs, n = 100.0, 100 * seconds
    signal = 0.05 * np.random.default_rng(1).normal(size=(12, n))
    target = 7  # V2: second row, third column; from 5 s on a sheet of 10 s, else from the start
    at = (500 if seconds == 10 else 0) + 120
    found = occlude(lambda s: np.abs(s[:, target, at : at + 5]).sum(axis=1), signal, fs)
    for lead in missing:
        signal[lead] = np.nan
    figure = draw_saliency(ECG(signal.astype(np.float32), fs, {}), found, title="t", name="X")
    images = figure.axes[0].images
    assert len(images) == 13 - len(missing)
    strength = [np.asarray(image.get_array())[0, :, 3].max() for image in images]
    *leads, strip = strength
    assert strip == pytest.approx(0.75, abs=0.01)
    brightest = int(np.argmax(leads))
    left, right, low, high = images[brightest].get_extent()
    shown = np.asarray(images[brightest].get_array())[0, :, 3]
    assert left + (right - left) * shown.argmax() / len(shown) == pytest.approx(20 + 25 * (5 + 1.2), abs=4)
    assert sum(value > 0.01 for value in leads) == 1
    rows = sorted({round(sum(image.get_extent()[2:]) / 2 / 15) for image in images})
    assert len(rows) == 4
    assert round((low + high) / 2 / 15) == rows[2]  # heights grow upwards: strip, third, second, first row
