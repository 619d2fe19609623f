"""Counts that become units of the store by a multiplication of integers: what the way through millivolts gives."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deri.ecg.formats.wfdb import header_file, read_counts
from deri.errors import ReadError
from deri.store import chunk
from deri.store.chunk import Stored, exact_units, read_recording

MIMIC = ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
CANONICAL = [0, 1, 2, 3, 5, 4, 6, 7, 8, 9, 10, 11]  # the column of each lead in a MIMIC file


def beats(seed: int = 0, n: int = 5000, channels: int = 12) -> np.ndarray:
    """Digital samples (n, channels), int16: a spike 70 times a minute on a slow wave and noise, limb leads by law."""
    rng = np.random.default_rng(seed)
    time = np.arange(n)[:, None]
    values = 20 * np.sin(time / 300) + rng.integers(-4, 5, (n, channels))
    values += np.where(time % 429 < 20, 1, 0) * np.hanning(20)[time % 429 % 20] * rng.uniform(60, 250, (1, channels))
    if channels > 5:
        one, two = values[:, 0], values[:, 1]
        limbs = [two - one, -(one + two) / 2, two - one / 2, one - two / 2]  # as Einthoven and Goldberger have it
        values[:, 2:6] = np.stack(limbs, axis=1)
    return np.rint(values).astype(np.int16)


def header(samples: np.ndarray, *, name: str = "40000001", first: str = "", **change) -> str:
    """A header as MIMIC-IV-ECG has it; ``change``: field -> value, for all signals or (of a list) for each."""
    lines = [first or f"{name} {samples.shape[1]} 500 {len(samples)} 08:44:00 23/07/2180"]
    for i, column in enumerate(samples.T):
        line = {
            "file": f"{name}.dat",
            "form": "16",
            "gain": "200.0(0)/mV",
            "bits": "16",
            "zero": "0",
            "start": str(column[0]),
            "sum": str(int(column.astype(np.int64).sum()) & 0xFFFF),
            "block": "0",
            "lead": MIMIC[i % 12] if i < 12 else f"X{i}",
        }
        for key, value in change.items():
            line[key] = value[i] if isinstance(value, list) else value
        lines.append(" ".join(line.values()))
    return "\n".join(lines) + "\n# <subject_id>: 10000017\n"


def write(folder: Path, samples: np.ndarray, text: str, *, name: str = "40000001", extra: bytes = b"") -> Path:
    (folder / f"{name}.hea").write_bytes(text.encode())
    (folder / f"{name}.dat").write_bytes(samples.astype("<i2").tobytes() + extra)
    return folder / name


def exact(path: Path | str) -> np.ndarray | None:
    """The record in units of the store, if a multiplication of integers gives them."""
    try:
        counts = read_counts(header_file(str(path)))
    except ReadError:
        return None
    return None if counts is None else exact_units(counts)


def outcome(path: Path, *, through_millivolts: bool = False) -> object:
    """All that a store keeps of a recording, or the refusal."""
    with pytest.MonkeyPatch.context() as patch:
        if through_millivolts:
            patch.setattr(chunk, "exact_units", lambda _: None)
        try:
            (stored,) = read_recording(path, "lead")
        except ReadError as error:
            return error.reason, str(error)
    values = {field.name: getattr(stored, field.name) for field in fields(Stored)}
    return values | {"signal": stored.signal.tobytes(), "shape": stored.signal.shape, "type": stored.signal.dtype}


def test_a_mimic_record_is_exact(tmp_path: Path) -> None:
    samples = beats()
    path = write(tmp_path, samples, header(samples))
    for name in (path, f"{path}.hea", f"{path}.dat"):
        units = exact(name)
        assert units is not None
        assert np.array_equal(units, samples[:, CANONICAL].T * 5)  # 200 per mV are 5 µV each
    assert outcome(path) == outcome(path, through_millivolts=True)


@pytest.mark.parametrize(
    ("gain", "factor"),
    [("1000/mV", 1), ("1000.0(0)/mV", 1), ("200", 5), ("1/uV", 1), ("0.2/uV", 5), ("500/mv", 2), ("12.5(0)/mV", 80)],
)
def test_gains_that_divide_a_millivolt(tmp_path: Path, gain: str, factor: int) -> None:
    samples = beats()
    path = write(tmp_path, samples, header(samples, gain=gain))
    units = exact(path)
    assert units is not None
    assert np.array_equal(units, samples[:, CANONICAL].T * factor)
    assert outcome(path) == outcome(path, through_millivolts=True)


def wrong_sums(samples: np.ndarray) -> list[str]:
    return [str((int(c.astype(np.int64).sum()) + (i == 4)) & 0xFFFF) for i, c in enumerate(samples.T)]


def with_gap(samples: np.ndarray) -> np.ndarray:
    return np.where(np.arange(samples.size).reshape(samples.shape) == 777, -32768, samples)


S = beats()
UNUSUAL = {
    "a gain that does not divide": (S, header(S, gain="4880/mV"), b""),
    "a gain for each lead": (S, header(S, gain=[*["200/mV"] * 6, *["400/mV"] * 6]), b""),
    "no gain": (S, header(S, gain="0"), b""),
    "negative gain": (S, header(S, gain="-200/mV"), b""),
    "a gain too small": (S, header(S, gain="1e-4/mV"), b""),
    "a baseline": (S, header(S, gain="200(3)/mV"), b""),
    "an ADC zero that is the baseline": (S, header(S, gain="200/mV", zero="7"), b""),
    "no voltage": (S, header(S, gain="200/mmHg"), b""),
    "wrong checksum": (S, header(S, sum=wrong_sums(S)), b""),
    "checksums of 65536, which are not none": (S, header(S, sum="65536"), b""),
    "a gap": (with_gap(S), header(with_gap(S)), b""),
    "surplus bytes": (S, header(S), b"\0\0"),
    "cut off": (S[:-1], header(S), b""),
    "another length": (beats(n=4000), header(beats(n=4000)), b""),
    "another rate": (S, header(S, first="40000001 12 250 5000"), b""),
    "another format": (S, header(S, form="212"), b""),
    "several samples per frame": (S, header(S, form="16x2"), b""),
    "skew": (S, header(S, form="16:1"), b""),
    "an offset": (S, header(S, form="16+24"), b"\0" * 24),
    "eight leads": (S[:, :8], header(S[:, :8]), b""),
    "an unknown lead": (S, header(S, lead=[*MIMIC[:11], "MCL1"]), b""),
    "a lead twice": (S, header(S, lead=[*MIMIC[:11], "V5"]), b""),
    "a file elsewhere": (S, header(S, file="../40000001.dat"), b""),
    "a missing file": (S, header(S, file="40000002.dat"), b""),
    "two files": (S, header(S, file=[*["40000001.dat"] * 6, *["40000002.dat"] * 6]), b""),
    "flat": (S * 0, header(S * 0), b""),
    "a flat lead": (S * (np.arange(12) != 3), header(S * (np.arange(12) != 3)), b""),
    "low": ((S // 20).astype(np.int16), header((S // 20).astype(np.int16)), b""),
    "beyond the range": (S * 60, header(S * 60), b""),
    "µV for mV": (S, header(S, gain="1/mV"), b""),
    "a letter where a number stands": (S, header(S, block="x"), b""),
    "a record line that is a comment": (S, header(S, first="#40000001 12 500 5000"), b""),
    "signal lines that are comments": (S, header(S, file="#0000001.dat"), b""),
    "segments": (S, header(S, first="40000001/2 12 500 5000"), b""),
    "a line too many": (S, header(S) + "40000001.dat 16 200/mV 16 0 0 0 0 V9\n", b""),
    "a line that only splitlines sees": (S, header(S) + "# a\x0cV9 16\n", b""),
}


# Written otherwise than in MIMIC-IV-ECG, with the same meaning.
USUAL = {
    "no length": (S, header(S, first="40000001 12 500"), b""),
    "a channel more": (beats(channels=13), header(beats(channels=13)), b""),
    "two blanks": (S, header(S).replace("16 200.0(0)", "16  200.0(0)"), b""),
    "windows line ends": (S, header(S).replace("\n", "\r\n"), b""),
    "a comment in UTF-8": (S, header(S) + "# µ\n", b""),
}


@pytest.mark.parametrize("case", USUAL)
def test_the_spelling_of_a_header_does_not_matter(tmp_path: Path, case: str) -> None:
    samples, text, extra = USUAL[case]
    path = write(tmp_path, samples, text, extra=extra)
    assert np.array_equal(exact(path), samples[:, CANONICAL].T * 5)
    assert outcome(path) == outcome(path, through_millivolts=True)


@pytest.mark.parametrize("case", UNUSUAL)
def test_what_is_unusual_goes_through_millivolts(tmp_path: Path, case: str) -> None:
    samples, text, extra = UNUSUAL[case]
    path = write(tmp_path, samples, text, extra=extra)
    assert exact(path) is None
    assert outcome(path) == outcome(path, through_millivolts=True)


def test_headers_without_checksums(tmp_path: Path) -> None:
    path = write(tmp_path, S, header(S, sum="0"))
    assert exact(path) is not None
    assert outcome(path) == outcome(path, through_millivolts=True)


token = st.sampled_from(
    ["0", "1", "-1", "12", "16", "200", "200.0(0)/mV", "1000/mV", "mV", "V1", "x", "", "#", "+1", "１"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gain=st.sampled_from(["200.0(0)/mV", "1000/mV", "200", "1/uV", "250(0)/mV", "333/mV", "204.8/mV", "2000/mV"]),
    scale=st.sampled_from([0, 0.004, 0.02, 0.05, 0.3, 1, 1, 1, 20, 26.2, 40]),
    order=st.permutations(MIMIC),
    places=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 9), token), max_size=2),
    spikes=st.lists(st.tuples(st.integers(0, 4999), st.integers(0, 11), st.integers(-32768, 32767)), max_size=2),
)
@example("200.0(0)/mV", 1, MIMIC, [], [])
@example("200.0(0)/mV", 1, MIMIC, [(0, 0, "#")], [])
def test_any_record_comes_out_the_same(tmp_path: Path, gain, scale, order, places, spikes) -> None:
    samples = np.clip(np.rint(S * scale), -32768, 32767).astype(np.int16)
    for row, column, value in spikes:
        samples[row, column] = value
    lines = header(samples, gain=gain, lead=list(order)).splitlines()
    for line, place, word in places:
        words = lines[line].split(" ")
        words[place % len(words)] = word
        lines[line] = " ".join(words)
    path = write(tmp_path, samples, "\n".join(lines) + "\n")
    assert outcome(path) == outcome(path, through_millivolts=True)


def test_gains_that_the_samples_refute_are_replaced_before_anything_looks_at_amplitudes(tmp_path: Path) -> None:
    """As in LUDB: the header brings every lead to 1 mV, the samples are µV. A rail at 3 mV must be seen as one."""
    samples = 4 * S[:, CANONICAL].astype(np.int32)
    samples[:, 2] = samples[:, 1] - samples[:, 0]
    samples[1000:1200, 8] = 3000
    samples = samples.astype(np.int16)
    gains = [f"{np.ptp(column)}(0)/mV" for column in samples.T]
    order = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    path = write(tmp_path, samples, header(samples, gain=gains, lead=order))
    assert exact(path) is None
    (stored,) = read_recording(path, "lead")
    assert np.abs(stored.signal - samples.T).max() <= 1
    assert stored.quality == ("inconsistent_gains", "common_gain", "saturated:V3")


def test_signals_that_are_kept_do_not_change(tmp_path: Path) -> None:
    paths = []
    for seed in range(4):
        samples = beats(seed)
        paths.append(write(tmp_path, samples, header(samples, name=f"r{seed}"), name=f"r{seed}"))
    kept = [exact(path) for path in paths]
    for seed, units in enumerate(kept):
        assert units is not None
        assert np.array_equal(units, beats(seed)[:, CANONICAL].T * 5)


def test_real_records(ecg_real: Path) -> None:
    count = 0
    for path in sorted(ecg_real.rglob("*.hea")):
        stem = path.with_suffix("")
        count += exact(stem) is not None
        assert outcome(stem) == outcome(stem, through_millivolts=True), path
    assert count > 5  # most of the others have another length or rate
