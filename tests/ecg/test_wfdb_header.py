from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deri.ecg.formats.wfdb_header import HeaderError, parse_header, parse_subject


def one(line: str):
    return parse_header(f"r 1 500 10\n{line}\n").signals[0]


def test_complete_line() -> None:
    signal = one("a.mat 16x2:3+24 1000.5(-7)/uV 16 9 -245 -3730 0 Lead aVR, right")
    assert signal == ("a.mat", 16, 2, 3, 24, 1000.5, True, -7, "uV", -245, -3730, "Lead aVR, right")


def test_defaults_of_the_specification() -> None:
    header = parse_header("r 1\nr.dat 16\n")
    assert (header.fs, header.n_samples, header.n_segments) == (250.0, None, None)
    assert header.signals[0] == ("r.dat", 16, 1, 0, 0, 200.0, False, 0, "mV", 0, None, "")


def test_adc_zero_is_the_baseline_unless_one_is_given() -> None:
    assert one("r.dat 16 100/mV 16 1024 0 0 0 I").baseline == 1024
    assert one("r.dat 16 100(0)/mV 16 1024 0 0 0 I").baseline == 0
    assert one("r.dat 16 100(5)/mV").baseline == 5
    assert one("r.dat 212 100 11 512").baseline == 512


def test_gain_zero_means_uncalibrated() -> None:
    assert one("r.dat 16 0/mV 16 0 0 0 0 I")[5:7] == (200.0, False)
    assert one("r.dat 16 0.0(3) 16 0 0 0 0 I")[5:8] == (200.0, False, 3)


def test_partial_lines_keep_their_description() -> None:
    assert one("r.dat 16 II").description == "II"
    assert one("r.dat 16 200 aVR") == ("r.dat", 16, 1, 0, 0, 200.0, True, 0, "mV", 0, None, "aVR")
    assert one("r.dat 16 200/uV 12 3 4 aVF lead") == ("r.dat", 16, 1, 0, 0, 200.0, True, 3, "uV", 4, None, "aVF lead")


def test_record_line_variants() -> None:
    header = parse_header(
        "\ufeff# first\r\nE00001.mat 0 360/73.4(2) 650000 0:0:0 1/1/2000\r\n# second: x \r\n".lstrip("\ufeff")
    )
    assert (header.record, header.n_signals, header.fs, header.n_samples) == ("E00001.mat", 0, 360.0, 650000)
    assert header.comments == ["first", "second: x"]
    assert parse_header("s/3 2 100 300\ns1 100\ns2 100\ns3 100\n").n_segments == 3
    assert parse_header("s 0 100 0\n").n_samples is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("r\n", "number of signals"),
        ("r x 500 10\n", "number of signals"),
        ("r -1 500 10\n", "number of signals"),
        ("r 1 0 10\nr.dat 16\n", "sampling frequency"),
        ("r 1 nan 10\nr.dat 16\n", "sampling frequency"),
        ("r 1 -5 10\nr.dat 16\n", "sampling frequency"),
        ("r 1 500 ten\nr.dat 16\n", "number of samples"),
        ("r 2 500 10\nr.dat 16\n", "2 signals, but 1"),
        ("r 1 500 10\nr.dat 16\nr.dat 16\n", "1 signals, but 2"),
        ("r 1 500 10\nr.dat\n", "lacks a format"),
        ("r 1 500 10\nr.dat sixteen 200\n", "signal format"),
        ("r/2x 1 500 10\n", "1 signals, but 0"),
        ("r 1 500 10\nr.dat 16\0\n", "not a text"),
        ("r 99999999999999999999999 500 10\n", "number of signals"),
    ],
)
def test_what_is_wrong_is_said(text: str, part: str) -> None:
    with pytest.raises(HeaderError, match=part):
        parse_header(text)


@given(st.text(alphabet=st.sampled_from("ri.dat16+x:/()-0123456789emV# \n\t\0µ"), max_size=120))
def test_any_text_parses_or_is_a_header_error(text: str) -> None:
    try:
        parse_header(text)
    except HeaderError as error:
        assert str(error)  # noqa: PT017


def test_subject_of_challenge_ptbxl_and_ludb_headers() -> None:
    assert parse_subject(["Age: 74", "Sex: Male", "Dx: 59118001,426783006", "Rx: Unknown"]) == {
        "age": 74.0,
        "sex": "male",
        "dx": ("59118001", "426783006"),
    }
    assert parse_subject(["Age: NaN", "Sex: Unknown", "Dx:"]) == {"age": None, "sex": None, "dx": ()}
    assert parse_subject(["Age: 300"]) == {"age": 90.0}  # above 89, as PTB-XL writes it
    ludb = ["<age>: 51", "<sex>: F", "<diagnoses>:", "Rhythm: Sinus bradycardia.", "Sex of nobody: M"]
    assert parse_subject(ludb) == {
        "age": 51.0,
        "sex": "female",
        "dx": ("Rhythm: Sinus bradycardia.", "Sex of nobody: M"),
        "interpretation": ["Rhythm: Sinus bradycardia.", "Sex of nobody: M"],
    }
    assert parse_subject(["69 M 1085", "Image: a.png"]) == {}


def test_names_with_the_folder_of_the_header() -> None:
    header = parse_header("a/b/r 2 500 10\na/b/r.dat 16\nc/r.dat 16\n")
    assert (header.record, header.n_segments) == ("r", None)
    assert [signal.file for signal in header.signals] == ["r.dat", "c/r.dat"]  # the second is refused when opened
    assert parse_header("r/2 1 500 20\na 10\nb 10\n").n_segments == 2
