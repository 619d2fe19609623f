"""Names of people are cut out of sentences about an ECG, and nothing else."""

from __future__ import annotations

import pytest

from deri.ecg.people import without_names


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("Confirmed by Dr. Smith", None),
        ("Confirmed by: DOE, JOHN (9) on 3/4/2020 10:22:33 AM", None),
        ("Referred by: Smith   Confirmed By: JONES, MARY", None),
        ("Electronically signed by ROE, RICHARD MD", None),
        ("Referring MD: Foo Bar", None),
        ("Technician: jd", None),
        ("Jane Roe, MD", None),
        ("Sinus rhythm. Confirmed by Dr. J. Doe on 12-MAR-2020. Abnormal ECG", "Sinus rhythm. Abnormal ECG"),
        ("Confirmed by Dr. Smith: atrial fibrillation", "atrial fibrillation"),
        ("Ectopic beats; edited by A. Smith; Left axis deviation", "Ectopic beats; Left axis deviation"),
        ("Sinus rhythm (overread by Kim)", "Sinus rhythm"),
        ("Befundet von Dr. med. Hans Müller am 3.4.2020. Vorhofflimmern", "Vorhofflimmern"),
        ("Sinusrhythmus, bestätigt durch Oberarzt Meier", "Sinusrhythmus"),
        ("von Hans Müller befundet: Linksschenkelblock", "Linksschenkelblock"),
        ("ARZT: MÜLLER", None),
        ("Vorhofflimmern, Frau Dr. Schmidt informiert", "Vorhofflimmern, informiert"),
    ],
)
def test_names_go(line: str, left: str | None) -> None:
    assert without_names([line]) == ([] if left is None else [left])


@pytest.mark.parametrize(
    "line",
    [
        "SINUS RHYTHM (normal P axis, V-rate 60-99)",
        "(SB) SINUS BRADYCARDIA, V-rate<60,",
        "Ventricular beats followed by a pause",
        "T wave abnormality, read as ischemia",
        "Unconfirmed report",
        "When compared with ECG of 12-MAR-2019 09:20, no change.",
        "QT 400 ms, corrected 450 ms",
        "Linksschenkelblock, bestätigt",
    ],
)
def test_the_rest_stays(line: str) -> None:
    assert without_names([line]) == [line]


def test_a_name_in_the_line_after_its_phrase() -> None:
    assert without_names(["Sinus rhythm", "Confirmed by", "DOE, JANE", "Normal ECG"]) == ["Sinus rhythm", "Normal ECG"]
    assert without_names(["Referred by:", "Sinus rhythm"]) == ["Sinus rhythm"]
