"""Every WFDB signal format, layout and header variant, against samples packed here bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deri.ecg import LEADS, read_ecg
from deri.errors import ReadError
from ecg.wfdb_writer import BITS, record, write


def frames(n: int = 401, top: int = 100, seed: int = 5) -> np.ndarray:
    """Odd lengths leave packed groups incomplete at the end."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.integers(-5, 6, (n, 12)), axis=0)
    return np.clip(walk, -top, top)


@pytest.mark.parametrize("form", sorted(BITS))
def test_every_signal_format(tmp_path: Path, form: int) -> None:
    if form > 500:
        pytest.importorskip("soundfile")
    digital = frames()
    ecg = read_ecg(write(tmp_path, record(digital, form)))
    assert ecg.metadata["warnings"] == {}  # the checksums, too
    np.testing.assert_allclose(ecg.signal, digital.T / 100, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", [16, 24, 32, 61, 80, 160, 212, 310, 311])
def test_extremes_and_gaps(tmp_path: Path, form: int) -> None:
    """The lowest value of a format means "no sample"; the one above and the highest are values."""
    half = 2 ** (BITS[form] - 1)
    digital = frames()
    digital[7], digital[8], digital[9] = -half, -half + 1, half - 1
    ecg = read_ecg(write(tmp_path, record(digital, form)))
    assert np.isnan(ecg.signal[:, 7]).all()
    assert np.isnan(ecg.signal).sum() == 12
    np.testing.assert_allclose(ecg.signal[:, 8:10], digital[8:10].T / 100, rtol=1e-6)


@pytest.mark.parametrize("form", [16, 61, 80, 212])
def test_byte_offset(tmp_path: Path, form: int) -> None:
    digital = frames(400)
    ecg = read_ecg(write(tmp_path, record(digital, form, offset=37)))
    np.testing.assert_allclose(ecg.signal, digital.T / 100, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", [16, 212])
def test_skew(tmp_path: Path, form: int) -> None:
    """A lead with skew s has its sample of time t at frame t + s."""
    digital = frames(400)
    skews = [i % 4 for i in range(12)]
    ecg = read_ecg(write(tmp_path, record(digital, form, skews=skews)))
    assert ecg.n_samples == 397
    for row, skew in enumerate(skews):
        np.testing.assert_allclose(ecg.signal[row], digital[skew : skew + 397, row] / 100, rtol=1e-6, atol=1e-9)


def test_skew_at_the_end_of_the_file(tmp_path: Path) -> None:
    """Where the header counts all frames, a lead with skew s lacks its last s samples."""
    digital = frames(400)
    ecg = read_ecg(write(tmp_path, record(digital, 16, skews=[0, 3] * 6, count=400)))
    assert ecg.n_samples == 400
    np.testing.assert_allclose(ecg.signal[1, :397], digital[3:, 1] / 100, rtol=1e-6, atol=1e-9)
    assert np.isnan(ecg.signal[1::2, 397:]).all()
    assert np.isfinite(ecg.signal[::2]).all()


def test_several_files_of_several_formats(tmp_path: Path) -> None:
    digital = frames(300)
    one, two = (
        record(digital[:, :6], 16, name="a", names=LEADS[:6]),
        record(digital[:, 6:], 16, name="b", names=LEADS[6:]),
    )
    lines = [part.decode().splitlines()[1:] for part in (one["a.hea"], two["b.hea"])]
    text = "\n".join(["m 12 500 300", *lines[0], *lines[1]])
    files = {"m.hea": text.encode(), "a.dat": one["a.dat"], "b.dat": two["b.dat"]}
    np.testing.assert_allclose(read_ecg(write(tmp_path, files)).signal, digital.T / 100, rtol=1e-6, atol=1e-9)
    # Half of them in another format with another mark for gaps.
    files["b.dat"] = record(digital[:, 6:], 212, name="b", names=LEADS[6:])["b.dat"]
    files["m.hea"] = text.replace("b.dat 16", "b.dat 212").encode()
    path = write(tmp_path, files)
    np.testing.assert_allclose(read_ecg(path).signal, digital.T / 100, rtol=1e-6, atol=1e-9)


def test_segments_of_a_fixed_layout_with_other_gains_and_formats(tmp_path: Path) -> None:
    digital = frames(600)
    write(tmp_path, record(digital[:250], 16, name="s1", gain="100/mV"))
    write(tmp_path, record(digital[250:], 212, name="s2", gain="0.2(10)/uV"))
    ecg = read_ecg(write(tmp_path, {"m.hea": b"m/2 12 500 600\ns1 250\ns2 350\n"}))
    np.testing.assert_allclose(ecg.signal[:, :250], digital[:250].T / 100, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(ecg.signal[:, 250:], (digital[250:].T - 10) / 200, rtol=1e-5, atol=1e-8)


def test_segments_of_a_variable_layout(tmp_path: Path) -> None:
    """A layout segment of no samples, a gap, and segments that lack leads or have them in another order."""
    digital = frames(500)
    layout = "\n".join(["s0 12 500 0", *(f"~ 0 100/mV 16 0 0 0 0 {name}" for name in LEADS)])
    write(tmp_path, {"s0.hea": layout.encode()})
    order = [11, 0, 5]
    write(tmp_path, record(digital[:200][:, order], 16, name="s1", names=[LEADS[i] for i in order]))
    write(tmp_path, record(digital[300:], 16, name="s2"))
    ecg = read_ecg(write(tmp_path, {"m.hea": b"m/4 12 500 500\ns0 0\ns1 200\n~ 100\ns2 200\n"}))
    assert ecg.n_samples == 500
    for row in range(12):
        if row in order:
            np.testing.assert_allclose(ecg.signal[row, :200], digital[:200, row] / 100, rtol=1e-6, atol=1e-9)
        else:
            assert np.isnan(ecg.signal[row, :200]).all()
    assert np.isnan(ecg.signal[:, 200:300]).all()
    np.testing.assert_allclose(ecg.signal[:, 300:], digital[300:].T / 100, rtol=1e-6, atol=1e-9)


def test_segments_that_lie_are_refused(tmp_path: Path) -> None:
    digital = frames(400)
    write(tmp_path, record(digital[:200], 16, name="s1"))
    write(tmp_path, record(digital[200:], 16, name="s2"))
    path = write(tmp_path, {"m.hea": b"m/2 12 500 400\ns1 200\ns2 200\n"})
    assert read_ecg(path).n_samples == 400
    for text in (b"m/2 12 500 500\ns1 200\ns2 200\n", b"m/2 12 500 400\ns1 200\n", b"m/2 12 500 500\ns1 200\ns2 300\n"):
        path.write_bytes(text)
        with pytest.raises(ReadError):
            read_ecg(path)


def test_a_single_lead_record(tmp_path: Path) -> None:
    digital = frames(300)[:, 1:2]
    ecg = read_ecg(write(tmp_path, record(digital, 212, names=["II"])))
    assert ecg.missing_leads == tuple(name for name in LEADS if name != "II")
    np.testing.assert_allclose(ecg.signal[1], digital[:, 0] / 100, rtol=1e-6, atol=1e-9)
