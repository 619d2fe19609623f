from __future__ import annotations

import pytest

from deri.reports.language import report_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("sinus rhythm. normal ecg.", "en"),
        ("t waves are flat in ii, avf. possible old inferior infarct.", "en"),
        ("pacemaker ecg.", "en"),
        ("sinusrhythmus lagetyp normal normales ecg.", "de"),
        ("vorhofflimmern/-flattern linkstyp qrs(t) abnorm inferiorer infarkt wahrscheinlich alt.", "de"),
        ("Sinusbradykardie, kein Hinweis auf Ischaemie", "de"),
        ("sinus arrhythmie sonst normales ecg.", "de"),
        ("sinusrytm vänster el-axel avvikande qrs(t) förlopp inferior infarkt ålder ej bestämmbar.", "sv"),
        ("förmaksflimmer/-fladder t-förändring, såsom vid inferior myokardaffektion.", "sv"),
        ("lvh. wpw.", None),  # the same in all three
        ("", None),
    ],
)
def test_reports_of_ptb_xl(text: str, language: str | None) -> None:
    assert report_language(text) == language
