from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deri.reports import clean_report, count_words, join_report, without_stamps

# Characters that the rules act on, so that random texts hit them often.
TEXTS = st.text(alphabet=st.sampled_from(list("eEkKgGcab.=-*?: \t\n 5ÄßİΣ")), max_size=40) | st.text(max_size=40)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (["Sinus rhythm", "Normal ECG", None], "sinus rhythm. normal ecg."),
        (["Sinus rhythm.", "Normal EKG"], "sinus rhythm. normal ecg."),
        (["Sinus rhythm", "", "  ", math.nan, "Normal ECG."], "sinus rhythm. normal ecg."),
        ("Abnormal EKG", "abnormal ecg."),
        ("Ruhe-EKG: ekg normal", "ruhe-ecg: ecg normal."),
        ("*** Age not entered, assumed to be 50 years old ***", "age not entered, assumed to be 50 years old."),
        (["Sinus rhythm", "*** ***", "Normal ECG"], "sinus rhythm. normal ecg."),
        ("** ** * ACUTE MI * ** **", "acute mi."),
        ("====== Sinus rhythm =-=-=-=", "sinus rhythm."),
        ("= = = = Sinus\trhythm\n\n= =", "sinus rhythm."),
        ("QTc = 450 ms, axis=-60", "qtc = 450 ms, axis=-60."),
        ("--- Recording unsuitable - please repeat ---", "--- recording unsuitable - please repeat ---."),
        ("Filter 0.05 Hz . Ende", "filter 0.05 hz. ende."),
        ("sinus rhythm...", "sinus rhythm."),
        ("infarct?", "infarct?."),
        ("LINKSHYPERTROPHIE MÖGLICH, ÜBERLEITUNG 0,2", "linkshypertrophie möglich, überleitung 0,2."),
        ("", ""),
        ([], ""),
        ([None, math.nan], ""),
        (" ... ", ""),
        ("*** ===", ""),
    ],
)
def test_rules(raw: str | list[str | None], clean: str) -> None:
    assert clean_report(raw) == clean


@pytest.mark.parametrize(
    ("report", "clean"),
    [
        ("Sinusrhythmus Lagetyp normal 4.46 unbestÄtigter Bericht", "sinusrhythmus lagetyp normal."),
        ("sinusrhythmus linkstyp 4.46 unbestätigter beri.", "sinusrhythmus linkstyp."),  # cut by the archive
        ("t abnorm in lateralen ableitungen 4.46.", "t abnorm in lateralen ableitungen."),
        ("sinus rhythm. normal ecg. edit: norm 100, rsiii(norm 50).", "sinus rhythm. normal ecg."),
        ("normales ecg 4.46 unbestätigter bericht edit: imi 15, crbbb, (imi 15).", "normales ecg."),
        ("sinus rhythm. *** unconfirmed analysis ***", "sinus rhythm."),
        ("lvh. electronically signed by Dr. J. Doe", "lvh."),
        ("sinus rhythm. confirmed by smith, john. lvh", "sinus rhythm. lvh."),
        ("trace only requested. edit: lvh, isc_.", ""),
        # What looks alike and belongs to the report:
        ("inferiorer infarkt alter unbest.", "inferiorer infarkt alter unbest."),
        ("av block confirmed by a long strip, lvh", "av block confirmed by a long strip, lvh."),
        ("st elevation of 4.4 mm, pr 0.24", "st elevation of 4.4 mm, pr 0.24."),
        ("repeated to confirm the appearances in v2.", "repeated to confirm the appearances in v2."),
    ],
)
def test_stamps_of_devices_and_editors(report: str, clean: str) -> None:
    assert without_stamps(report) == clean
    assert without_stamps(clean) == clean


@given(TEXTS)
@example("a =-\n= b")
@example(". . a")
@example("..b")
def test_idempotent_and_normal(text: str) -> None:
    clean = clean_report(text)
    assert clean_report(clean) == clean
    if clean:
        assert clean.endswith(".")
        assert not clean.endswith("..")
        assert clean == " ".join(clean.split()) == clean.lower()
        assert not {"*", "ekg"} & {*clean, *(clean[i : i + 3] for i in range(len(clean)))}
        assert "==" not in clean


@given(st.lists(TEXTS | st.none() | st.just(math.nan), max_size=6))
def test_joining_first_changes_nothing(parts: list[str | None]) -> None:
    assert clean_report(join_report(parts)) == clean_report(parts)


@given(st.lists(st.sampled_from(["sinus", "rhythm", "normal", "st-t"]), min_size=1, max_size=8))
def test_words_are_kept_and_counted(words: list[str]) -> None:
    clean = clean_report([" ".join(words)])
    assert clean == " ".join(words) + "."
    assert count_words(clean) == len(words)


def test_nothing_has_no_words() -> None:
    assert count_words(clean_report("***")) == 0


def test_a_number_is_no_report() -> None:
    with pytest.raises(TypeError, match="int"):
        join_report(["Sinus rhythm", 5])  # type: ignore[list-item]
