"""SCP-ECG, against hand-made files and another reader."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ecg.in_bytes import read, reason_of
from ecg.writers import LEADS, digital_ecg, scp


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("coded", [True, False])
def test_scp_values(tmp_path: Path, order: int, coded: bool) -> None:
    digital = digital_ecg(1000) // 2
    ecg = read(tmp_path, scp(digital, LEADS, coded=coded, order=order))
    assert (ecg.fs, ecg.metadata["format"], ecg.metadata["warnings"]) == (500.0, "SCP-ECG", {})
    np.testing.assert_allclose(ecg.signal, digital * 2.5e-3, rtol=1e-6)
    assert (ecg.metadata["age"], ecg.metadata["sex"]) == (63.0, "female")
    assert ecg.metadata["interpretation"] == ["Sinus rhythm"]


def test_scp_with_eight_leads_and_odd_rate(tmp_path: Path) -> None:
    digital = digital_ecg(400)
    stored = [0, 1, 6, 7, 8, 9, 10, 11]
    ecg = read(tmp_path, scp(digital[stored], [LEADS[i] for i in stored], avm=5000, interval=3003))
    assert ecg.fs == pytest.approx(1e6 / 3003, rel=1e-12)
    np.testing.assert_allclose(ecg.signal[stored], digital[stored] * 5e-3, rtol=1e-6)
    assert set(ecg.metadata["derived_leads"]) == {"III", "aVR", "aVL", "aVF"}


def test_scp_adds_the_reference_beat_back(tmp_path: Path) -> None:
    digital = digital_ecg(1000)
    beat = np.stack([np.round(200 * np.hanning(100) * (k + 1) / 12) for k in range(12)]).astype(np.int16)
    for start in (101, 401, 701):
        digital[:, start - 1 : start + 99] += beat
    ecg = read(tmp_path, scp(digital, LEADS, beat=beat, beats_at=(101, 401, 701)))
    np.testing.assert_allclose(ecg.signal, digital * 2.5e-3, rtol=1e-6)


def test_scp_that_cannot_be_used(tmp_path: Path) -> None:
    good = scp(digital_ecg(300), LEADS)
    assert reason_of(tmp_path, good[:-10]) == "truncated_signal"
    assert reason_of(tmp_path, scp(digital_ecg(300), LEADS, bimodal=1)) == "bad_header"  # no reference beat
    assert reason_of(tmp_path, scp(digital_ecg(300), LEADS, avm=0)) == "bad_gain"
    at = good.index(b"Sinus rhythm")
    assert "checksum_mismatch" in read(tmp_path, good[:at] + b"X" + good[at + 1 :]).metadata["warnings"]


def with_beats(seed: int = 3) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Residual-free ECG of 1000 samples, its reference beat (12, 100) and where it lies."""
    rng = np.random.default_rng(seed)
    beat = np.stack([np.round(rng.integers(50, 200) * np.hanning(100)) for _ in range(12)]).astype(np.int16)
    digital = np.zeros((12, 1000), dtype=np.int16)
    starts = (101, 401, 701)
    for start in starts:
        digital[:, start - 1 : start + 99] += beat
    return digital, beat, starts


def own_tables() -> bytes:
    """Two tables: small values in the first, bytes in the second; each can switch to the other."""

    def entry(prefix: str, total: int, mode: int, value: int) -> bytes:
        return struct.pack("<BBBhI", len(prefix), total, mode, value, int(prefix[::-1], 2))

    one = [
        entry("0", 1, 1, 0),
        entry("10", 2, 1, 1),
        entry("110", 3, 1, -1),
        entry("1110", 20, 1, 7),
        entry("1111", 4, 0, 2),
    ]
    two = [entry("1", 9, 1, -3), entry("01", 2, 0, 1)]
    return struct.pack("<H", 2) + b"".join(struct.pack("<H", len(codes)) + b"".join(codes) for codes in (one, two))


def own_code(values: Sequence[int]) -> bytes:
    small = {0: "0", 1: "10", -1: "110"}
    bits = ""
    second = False
    for value in values:
        short = -131 <= value <= 124
        if second and not short:
            bits, second = bits + "01", False
        elif not second and short and value not in small:
            bits, second = bits + "1111", True
        if second:
            bits += "1" + f"{(value + 3) & 0xFF:08b}"
        else:
            bits += small.get(value) or "1110" + f"{(value - 7) & 0xFFFF:016b}"
    bits += "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:]


def test_scp_with_tables_of_its_own(tmp_path: Path) -> None:
    digital = digital_ecg(600)
    digital[3, 200] += 900
    ecg = read(tmp_path, scp(digital, LEADS, tables=own_tables(), encode=own_code))
    np.testing.assert_allclose(ecg.signal, digital * 2.5e-3, rtol=1e-6)
    assert ecg.metadata["warnings"] == {}


@pytest.mark.parametrize("case", ["second", "first", "plain", "tables", "beats", "eight"])
def test_scp_equals_another_reader(tmp_path: Path, case: str) -> None:
    parser = pytest.importorskip("ecgdatakit").FileParser
    digital, names = digital_ecg(800) // 3, list(LEADS)
    options: dict[str, dict[str, object]] = {
        "first": {"order": 1},
        "plain": {"order": 0, "coded": False},
        "tables": {"tables": own_tables(), "encode": own_code},
    }
    data = scp(digital, names, **options.get(case, {}))  # type: ignore[arg-type]
    if case == "beats":
        more, beat, starts = with_beats()
        data = scp(more + np.roll(digital_ecg(1000), 5, axis=1) // 9, names, beat=beat, beats_at=starts)
    if case == "eight":
        names = ["I", "II", *names[6:]]
        data = scp(digital[[0, 1, *range(6, 12)]], names, avm=1250)
    ecg = read(tmp_path, data)
    (tmp_path / "recording.scp").write_bytes(data)
    theirs = parser().parse(tmp_path / "recording.scp")
    assert len(theirs.leads) == len(names)
    for name, lead in zip(names, theirs.leads, strict=True):
        assert lead.label.lower() == name.lower()
        assert lead.units == "mV"
        np.testing.assert_allclose(ecg.signal[LEADS.index(name)], lead.samples, rtol=1e-6)


def test_scp_bimodal_restores_what_averages_can_tell(tmp_path: Path) -> None:
    """Within the zones every sample; outside, a line through the middles of the blocks, flat at the ends."""
    digital, beat, starts = with_beats()
    ramp = (np.arange(1000) // 100 * 4 - 20).astype(np.int16)  # steps at multiples of 4: blocks are not mixed
    noise = np.zeros(1000, dtype=np.int16)
    zones = [(start, start + 99) for start in starts]
    for first, last in zones:
        noise[first - 1 : last] = np.random.default_rng(1).integers(-9, 9, last - first + 1)
    ecg = read(tmp_path, scp(digital + ramp + noise, LEADS, beat=beat, beats_at=starts, bimodal=1, factor=4))
    assert (ecg.fs, ecg.n_samples) == (500.0, 1000)
    assert set(ecg.metadata["warnings"]) == {"lossy_compression"}
    expected = (digital + ramp + noise).astype(float)
    inside = np.zeros(1000, dtype=bool)
    for first, last in zones:
        inside[first - 1 : last] = True
    np.testing.assert_allclose(ecg.signal[:, inside], expected[:, inside] * 2.5e-3, rtol=1e-6, atol=1e-9)
    # The step at sample 600 lies between two blocks of four, with the middles 597.5 and 601.5.
    before, after = expected[0, 596], expected[0, 603]
    assert after - before == 4
    for at, share in {597: 0, 598: 1 / 8, 599: 3 / 8, 600: 5 / 8, 601: 7 / 8, 602: 1}.items():
        assert ecg.signal[0, at] == pytest.approx((before + share * (after - before)) * 2.5e-3, abs=1e-7)


def test_scp_bimodal_ramp_is_exact_between_blocks(tmp_path: Path) -> None:
    """The mean of a line is its middle, so a line comes back but for the two samples at each end of a stretch."""
    _, beat, starts = with_beats()
    ramp = np.tile(np.arange(-500, 500) * 2, (12, 1))
    digital = ramp.copy()
    for start in starts:
        digital[:, start - 1 : start + 99] += beat
    ecg = read(tmp_path, scp(digital, LEADS, beat=beat, beats_at=starts, bimodal=1, factor=4, order=1))
    off = np.abs(ecg.signal / 2.5e-3 - digital)
    edges = {0, 1, 998, 999} | {start - 1 + k for start in starts for k in (-2, -1, 100, 101)}
    inner = [at for at in range(1000) if at not in edges]
    assert off[:, inner].max() < 1e-2
    assert off[:, sorted(edges)].max() < 4


def test_scp_decimated_throughout(tmp_path: Path) -> None:
    """A reference beat at full rate over a rhythm at half of it."""
    digital, beat, starts = with_beats()
    ecg = read(tmp_path, scp(digital + 7, LEADS, beat=beat, beats_at=starts, factor=2))
    np.testing.assert_allclose(ecg.signal, (digital + 7) * 2.5e-3, rtol=1e-6)


def test_scp_zones_that_cut_blocks(tmp_path: Path) -> None:
    digital, beat, starts = with_beats()
    zones = [(start + 1, start + 97) for start in starts]
    ecg = read(tmp_path, scp(digital + 3, LEADS, beat=beat, beats_at=starts, bimodal=1, factor=4, protected=zones))
    np.testing.assert_allclose(ecg.signal, (digital + 3) * 2.5e-3, rtol=1e-6)
    # Where the bytes do not end with the values, the count is in doubt and nothing is read.
    moved = [(first + 2, last) for first, last in zones]
    good = scp(digital + 3, LEADS, beat=beat, beats_at=starts, bimodal=1, factor=4, protected=zones, coded=False)
    swapped = good
    for old, new in zip(zones, moved, strict=True):
        swapped = swapped.replace(struct.pack("<II", *old), struct.pack("<II", *new), 1)
    assert swapped != good
    assert reason_of(tmp_path, swapped) in ("unsupported_format", "truncated_signal")


def test_scp_claims_are_checked(tmp_path: Path) -> None:
    good = scp(digital_ecg(300), LEADS)
    shorter = good.replace(struct.pack("<IIB", 1, 300, 1), struct.pack("<IIB", 1, 200, 1))
    ecg = read(tmp_path, shorter)
    assert "surplus_data" in ecg.metadata["warnings"]
    assert np.isnan(ecg.signal[0, 200:]).all()
    np.testing.assert_allclose(ecg.signal[0, :200], digital_ecg(300)[0, :200] * 2.5e-3, rtol=1e-6)
    huge = good.replace(struct.pack("<IIB", 1, 300, 1), struct.pack("<IIB", 1, 2**32 - 1, 1))
    assert reason_of(tmp_path, huge) == "truncated_signal"
    zero = good.replace(struct.pack("<IIB", 1, 300, 1), struct.pack("<IIB", 0, 300, 1))
    assert reason_of(tmp_path, zero) == "bad_header"


def test_scp_sections_that_the_samples_do_not_need(tmp_path: Path) -> None:
    """A false pointer to the texts, or to a private section, costs the text, not the recording."""
    good = scp(digital_ecg(300), LEADS)
    at = good.index(struct.pack("<H", 8), 22)
    size, index = struct.unpack_from("<II", good, at + 2)
    assert good[index - 1 + 2 : index - 1 + 4] == b"\x08\0"
    lost = good[: at + 6] + struct.pack("<I", len(good) + 99) + good[at + 10 :]
    ecg = read(tmp_path, lost)
    assert "8" in ecg.metadata["warnings"]["inconsistent_header"]
    assert "interpretation" not in ecg.metadata
    np.testing.assert_allclose(ecg.signal, digital_ecg(300) * 2.5e-3, rtol=1e-6)
    private = good[:at] + struct.pack("<HII", 200, size, index) + good[at + 10 :]
    assert "200" in read(tmp_path, private).metadata["warnings"]["inconsistent_header"]
    rhythm = good.index(struct.pack("<H", 6), 22)
    assert reason_of(tmp_path, good[: rhythm + 6] + struct.pack("<I", len(good)) + good[rhythm + 10 :]) == (
        "truncated_signal"
    )
