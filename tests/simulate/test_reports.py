"""Simulated reports say what the study has, in the columns and the manner of the originals."""

from __future__ import annotations

import ast
from collections import Counter

import numpy as np
import pytest

from deri.simulate import FINDINGS, Noise, Patient, draw_tracing
from deri.simulate.findings import clash
from deri.simulate.layouts.ptbxl import scp_codes
from deri.simulate.phrases import phrases
from deri.simulate.reports import clinical_report, draw_certainty, heart_axis, machine_report

REPEATS = 40
WORDS = phrases().findings


def tracing(*codes: str, seed: int = 0, noise: Noise | None = None):
    rng = np.random.default_rng(seed)
    return draw_tracing(codes, Patient.draw(rng), rng, noise=noise)


def reports(*codes: str, noise: Noise | None = None) -> list[list[str]]:
    drawn = tracing(*codes, noise=noise)
    return [machine_report(drawn, np.random.default_rng(i)) for i in range(REPEATS)]


def test_every_finding_has_words() -> None:
    assert set(WORDS) == set(FINDINGS)
    assert all(words.german and words.english for words in WORDS.values())
    assert all(len(words.cart) >= 2 for code, words in WORDS.items() if code != "NORM")
    assert set(phrases().german_axis) == {"LAD", "ALAD", "MID", "RAD", "ARAD"}


def test_no_two_findings_share_a_statement() -> None:
    lines = Counter(line for words in WORDS.values() for line in set(words.cart))
    assert max(lines.values()) == 1


@pytest.mark.parametrize("code", [c for c in FINDINGS if c not in ("NORM", "SR")])
def test_a_report_names_its_finding_and_no_other(code: str) -> None:
    names = {
        code: {*words.cart, *words.nouns, FINDINGS[code].name, words.terse or FINDINGS[code].name}
        for code, words in WORDS.items()
        if words.cart
    }
    for columns in reports(code):
        text = ". ".join(columns).lower()
        assert any(name.lower() in text for name in names[code])
        for other in names:
            if other != code and clash(other, code) and FINDINGS[other].group != "axis":
                said = {name for name in names[other] if name in columns}
                assert not said, (code, columns)


def test_columns_gaps_and_judgement() -> None:
    seen_gap = seen_ruler = seen_ekg = False
    for columns in (c for codes in (["LVH", "LAO/LAE", "LAFB"], ["NORM"], ["AFIB"]) for c in reports(*codes)):
        assert len(columns) == 18
        filled = [i for i, line in enumerate(columns) if line]
        seen_gap |= filled != list(range(len(filled)))
        text = " ".join(columns)
        seen_ruler |= "***" in text or "==" in text
        seen_ekg |= "EKG" in text
        assert any(word in text.lower().replace("ekg", "ecg") for word in ("ecg", "ormal limits", "no abnormality"))
        assert all("," not in line or line for line in columns)
    assert seen_gap
    assert seen_ruler
    assert seen_ekg


def test_wordings_vary_and_some_are_hedged() -> None:
    texts = {tuple(columns) for columns in reports("IMI")}
    assert len(texts) > 15
    hedged = sum(
        any(line.startswith(("Possible", "Probable", "Consider", "Cannot", "Suggests")) for line in c)
        for c in reports("IMI")
    )
    assert 0.05 < hedged / REPEATS < 0.5
    assert not any("Possible" in line for columns in reports("AFIB") for line in columns)


def test_normal_and_abnormal() -> None:
    assert all(not any("abnormal e" in line.lower() for line in columns) for columns in reports("NORM"))
    assert all(any("abnormal e" in line.lower() for line in columns) for columns in reports("CLBBB"))
    assert any(any("Borderline" in line for line in columns) for columns in reports("1AVB"))


def test_noise_is_remarked_on() -> None:
    loud = reports("SR", noise=Noise(0.2, 0.05, 0.05, quality="muscle"))
    assert 0.2 < sum("uality" in "".join(c) or "rtifact" in "".join(c) for c in loud) / REPEATS < 0.8
    assert not any("rtifact" in "".join(c) for c in reports("SR"))


@pytest.mark.parametrize(
    ("degrees", "name"), [(-60, "ALAD"), (-30, "LAD"), (0, "LAD"), (60, "MID"), (90, "RAD"), (120, "ARAD")]
)
def test_heart_axis(degrees: float, name: str) -> None:
    assert heart_axis(degrees) == name


def test_clinical_reports_are_german_or_english_and_name_all_findings() -> None:
    drawn = tracing("CRBBB", "1AVB")
    languages = Counter()
    for i in range(100):
        rng = np.random.default_rng(i)
        text = clinical_report(drawn, draw_certainty(drawn.findings, rng), rng)
        german = "rechtsschenkelblock" in text
        assert german != ("right bundle branch block" in text)
        assert ("av-block i." in text or "pq-zeit" in text) if german else ("av block" in text or "pr interval" in text)
        languages[german] += 1
    assert 45 < languages[True] < 75


def test_scp_codes_follow_ptb_xl() -> None:
    """Diagnostic statements carry a likelihood, form and rhythm 0; a hedge lowers it; QWAVE follows from an infarct."""
    rng = np.random.default_rng(0)
    sure = scp_codes(("SR", "IMI"), {"SR": True, "IMI": True}, rng)
    assert sure["IMI"] >= 80
    assert sure["SR"] == sure["QWAVE"] == 0
    assert next(iter(sure)) == "IMI"
    assert scp_codes(("SR", "IMI"), {"SR": True, "IMI": False}, rng)["IMI"] <= 50
    assert ast.literal_eval(str(sure)) == sure
