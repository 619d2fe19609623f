from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from deri.ecg import ECG, LEADS, plot_ecg
from deri.errors import DeriError


def waves(seconds: float = 10.0, fs: float = 500.0) -> ECG:
    t = np.arange(round(seconds * fs)) / fs
    rows = [np.sin(2 * np.pi * t) * (i + 1) / 10 + i for i in range(12)]
    return ECG(np.array(rows, dtype=np.float32), fs, {"age": 63.0, "sex": "female", "source_file": "a/rec7.hea"})


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def traces(figure) -> list[np.ndarray]:
    """The drawn curves in mm, without the calibration pulses."""
    return [np.array(line.get_data()) for line in figure.axes[0].lines if len(line.get_xdata()) > 10]


def test_paper_is_in_true_millimetres() -> None:
    figure = plot_ecg(waves())
    axes = figure.axes[0]
    millimetres = figure.get_size_inches() * 25.4
    assert axes.get_position().bounds == (0, 0, 1, 1)  # so one axis unit is one millimetre
    np.testing.assert_allclose(millimetres, [axes.get_xlim()[1], axes.get_ylim()[1]])
    assert (np.round(millimetres, 6) % 5 == 0).all()


def test_layout_scale_and_time() -> None:
    ecg = waves()
    curves = traces(plot_ecg(ecg))
    assert len(curves) == 13
    order = ["I", "aVR", "V1", "V4", "II", "aVL", "V2", "V5", "III", "aVF", "V3", "V6"]
    for place, name in enumerate(order):
        x, y = curves[place]
        lead, column = LEADS.index(name), place % 4
        assert x[0] == pytest.approx(20 + 62.5 * column)
        assert x[500] - x[0] == pytest.approx(25)  # one second
        piece = ecg.signal[lead, 1250 * column : 1250 * column + len(x)]
        np.testing.assert_allclose(y - y[0], 10 * (piece - piece[0]), atol=1e-4)  # 10 mm per mV
        assert (y[0] - 10 * (piece[0] - np.median(ecg.signal[lead]))) % 5 == pytest.approx(0, abs=1e-4)
    x, y = curves[12]
    assert len(x) == 5000
    np.testing.assert_allclose(y - y[0], 10 * (ecg.signal[1] - ecg.signal[1, 0]), atol=1e-4)


def test_calibration_pulse_is_one_millivolt_and_a_fifth_of_a_second() -> None:
    pulses = [np.array(line.get_data()) for line in plot_ecg(waves()).axes[0].lines if len(line.get_xdata()) == 6]
    assert len(pulses) == 4
    for x, y in pulses:
        assert np.ptp(y) == 10
        assert x[3] - x[2] == 5


def test_texts() -> None:
    shown = texts(plot_ecg(waves(), title="Case 1", annotations=["AF 0.9", "100 $ and 5 $"]))
    for part in ("Case 1", "63 years, female", "AF 0.9", r"100 \$ and 5 \$", *LEADS):
        assert part in shown
    facts = next(text for text in shown if "mm/s" in text)
    assert "25 mm/s" in facts
    assert "10 mm/mV" in facts
    assert "rec7" in texts(plot_ecg(waves()))


def test_missing_leads_are_said_and_the_rhythm_strip_takes_another() -> None:
    ecg = waves()
    ecg.signal[[1, 8]] = np.nan
    figure = plot_ecg(ecg)
    assert texts(figure).count("not recorded") == 2
    assert texts(figure).count("V1") == 2
    assert len(traces(figure)) == 11
    ecg.signal[:] = np.nan
    assert texts(plot_ecg(ecg)).count("not recorded") == 13


def test_gaps_stay_gaps() -> None:
    ecg = waves()
    ecg.signal[0, 100:200] = np.nan
    assert np.isnan(traces(plot_ecg(ecg))[0][1]).sum() == 100


def test_short_recordings_show_the_beginning_of_each_lead() -> None:
    ecg = waves(3.0)
    curves = traces(plot_ecg(ecg))
    x, y = curves[3]
    assert x[0] == pytest.approx(20 + 3 * 62.5)
    piece = ecg.signal[LEADS.index("V4"), : len(x)]
    np.testing.assert_allclose(y - y[0], 10 * (piece - piece[0]), atol=1e-4)
    assert any("3.0 s, columns all from 0 s" in text for text in texts(plot_ecg(ecg)))


def test_png_has_ten_pixels_per_millimetre(tmp_path: Path) -> None:
    ecg = waves()
    figure = ecg.plot(tmp_path / "new" / "a.png")
    image = matplotlib.image.imread(tmp_path / "new" / "a.png")
    height, width = image.shape[:2]
    np.testing.assert_allclose([width, height], figure.get_size_inches() * 254, atol=1)
    assert image[..., :3].min() < 0.2  # ink
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.png"]


def test_svg_size_and_reproducibility(tmp_path: Path) -> None:
    figure = plot_ecg(waves(), tmp_path / "a.svg")
    plot_ecg(waves(), tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    assert float(root.attrib["width"].removesuffix("pt")) == pytest.approx(figure.get_size_inches()[0] * 72)


def test_other_suffixes_are_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match=r"\.png or \.svg"):
        plot_ecg(waves(), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []
