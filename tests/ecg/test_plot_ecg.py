from __future__ import annotations

import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from deri.ecg import ECG, LEADS, plot_ecg
from deri.ecg.plot import save_plot
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
    with pytest.raises(DeriError, match=r"\.png, \.svg or \.pdf"):
        plot_ecg(waves(), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_pdf_page_is_in_true_millimetres_and_equal_drawings_are_equal_files(tmp_path: Path) -> None:
    figure = plot_ecg(waves(), tmp_path / "a.pdf")
    plot_ecg(waves(), tmp_path / "b.pdf")
    data = (tmp_path / "a.pdf").read_bytes()
    assert data == (tmp_path / "b.pdf").read_bytes()
    width, height = map(float, re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", data).groups())
    assert width / 72 * 25.4 == pytest.approx(280, abs=0.01)
    assert height / 72 * 25.4 == pytest.approx(figure.get_size_inches()[1] * 25.4, abs=0.01)


@pytest.mark.parametrize(("kind", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_save_plot_writes_to_open_files(kind: str, head: bytes) -> None:
    handle = io.BytesIO()
    save_plot(waves(), handle, format=kind, width=700)
    assert handle.getvalue().startswith(head)


def test_save_plot_wants_a_format_it_knows(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="format= one of png, svg, pdf"):
        save_plot(waves(), io.BytesIO())
    with pytest.raises(DeriError, match="format=gif"):
        save_plot(waves(), tmp_path / "a.png", format="gif")
    save_plot(waves(), tmp_path / "a.png", width=700)
    assert matplotlib.image.imread(tmp_path / "a.png").shape[1] == 700


def test_head_and_foot_say_what_was_measured_and_what_the_file_tells() -> None:
    ecg = dataclasses.replace(waves(), metadata={"date": "2011-12-01T07:27:34", "filters": "low-pass 150 Hz"})
    shown = texts(plot_ecg(ecg))
    assert "2011-12-01 07:27:34" in shown
    assert any("filters: low-pass 150 Hz" in text for text in shown)
    assert any(text.startswith("rate –     PR –     QRS –     QT/QTc –     axis –") for text in shown)


def test_doubtful_gains_are_said_and_refuted_ones_not_drawn() -> None:
    ecg = waves()
    spans = np.ptp(ecg.signal, axis=1)
    gains = dict(zip(LEADS, 1000 / spans, strict=True))
    note = {"warnings": {"inconsistent_gains": "…"}, "header_gains": gains}
    figure = plot_ecg(dataclasses.replace(ecg, metadata=note))
    assert any("contradict the samples. All leads are drawn at one gain" in text for text in texts(figure))
    first = traces(figure)[0][1]
    assert np.ptp(first) == pytest.approx(10 * np.ptp(ecg.signal[0, :1251]) / spans[0], rel=1e-3)
    uncalibrated = dataclasses.replace(ecg, metadata={"warnings": {"uncalibrated": "…"}})
    assert any("not to be trusted: the file states no gain" in text for text in texts(plot_ecg(uncalibrated)))
    microvolts = ECG(ecg.signal * 1000, ecg.fs)
    assert any("probably µV" in text for text in texts(plot_ecg(microvolts)))
    assert not any("Amplitudes" in text for text in texts(plot_ecg(ecg)))


def test_lead_names_lie_on_no_trace() -> None:
    t = np.arange(5000) / 500
    spikes = 1.3 * (np.mod(t, 0.25) < 0.03) - 0.4 * (np.mod(t - 0.1, 0.25) < 0.03)
    figure = plot_ecg(ECG(np.tile(spikes, (12, 1)).astype(np.float32), 500.0))
    figure.canvas.draw()
    to_mm = figure.axes[0].transData.inverted().transform
    names = [text for text in figure.axes[0].texts if text.get_text() in LEADS]
    assert len(names) == 13
    for text in names:
        (left, low), (right, high) = to_mm(text.get_window_extent())
        for line in figure.axes[0].lines:
            x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
            at = np.linspace(0, len(x) - 1, 20 * len(x))
            x, y = np.interp(at, np.arange(len(x)), x), np.interp(at, np.arange(len(x)), y)
            assert not ((x > left) & (x < right) & (y > low) & (y < high)).any(), text.get_text()


def test_one_recorded_lead_has_rows_of_ten_seconds() -> None:
    ecg = waves(25.0)
    ecg.signal[1:] = np.nan
    figure = plot_ecg(ecg)
    curves = traces(figure)
    assert [len(x) for x, _ in curves] == [5001, 5001, 2500]
    assert {x[0] for x, _ in curves} == {20.0}
    assert {"I", "I (10.0 s)", "I (20.0 s)"} <= set(texts(figure))


def test_a_printed_lead_of_another_time_than_its_column_is_shown_with_its_time() -> None:
    ecg = waves()
    ecg.signal[LEADS.index("V1"), : 5000 - 1250] = np.nan
    figure = plot_ecg(ecg)
    assert "V1 (7.5 s)" in texts(figure)
    assert np.isfinite(traces(figure)[2][1]).sum() == 1250


def test_a_notebook_shows_the_sheet_and_what_the_file_says() -> None:
    ecg = waves()
    ecg.metadata["device"] = "<b>maker</b>"
    shown = ecg._repr_html_()
    picture = re.search(r"data:image/png;base64,([^']+)'", shown)
    assert picture is not None
    assert base64.b64decode(picture[1]).startswith(b"\x89PNG")
    for part in ("10 s at 500 Hz", "63.0", "female", "&lt;b&gt;maker&lt;/b&gt;", "a/rec7.hea"):
        assert part in shown
    assert "missing leads" not in shown
    assert len(shown) < 300_000


def test_the_signal_as_a_table() -> None:
    ecg = waves(2.0)
    table = ecg.to_dataframe()
    assert list(table.columns) == list(LEADS)
    assert table.index[500] == 1.0
    np.testing.assert_array_equal(table["V2"], ecg.signal[7])
