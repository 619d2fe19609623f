from __future__ import annotations

import numpy as np
import pytest
import torch

from deri.errors import DeriError
from deri.reports import load_prompts, prompts_for
from deri.reports.words import label_texts
from support import tiny

AFIB = tuple(load_prompts("labels")["AFIB"])


@pytest.mark.parametrize(
    ("label", "texts", "note"),
    [
        ("AFIB", AFIB, None),
        ("atrial fibrillation", AFIB, None),
        ("A-Fib.", AFIB, None),
        ("Possible atrial fibrillation.", ("Possible atrial fibrillation.",), None),
        ("anteroseptal infarct", ("anteroseptal infarct",), None),
        ("ventricular tachycardia", tuple(load_prompts("labels")["VT"]), None),
        ("Vorhofflimmern", AFIB, "is scored as atrial fibrillation"),
        ("absolute Arrhythmie bei Vorhofflimmern", AFIB, "is scored as atrial fibrillation"),
        (
            "Sinusrhythmus, kein Vorhofflimmern",
            tuple(load_prompts("labels")["SR"]),
            "which is left out: scored as sinus",
        ),
        ("pizza", ("pizza",), "names no finding"),
        ("AF with rapid response", ("atrial fibrillation with rapid response",), "is scored as"),
        ("Ischämie", tuple(load_prompts("labels")["ISC_"]), None),
        ("myocardial ischemia", tuple(load_prompts("labels")["ISC_"]), None),
        ("anterolateral ischemia", tuple(load_prompts("labels")["ISCAL"]), None),
        ("file", ("file",), "names no finding"),
    ],
)
def test_what_is_made_of_a_label(label: str, texts: tuple[str, ...], note: str | None) -> None:
    (found,) = label_texts([label])
    assert found.texts == texts
    assert found.note is None if note is None else note in str(found.note)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("AFIB", "atrial fibrillation; tachyabsolute Arrhythmie; VHF; Arrhythmia absoluta"),
        ("CLBBB", "left bundle branch block; LBBB.; Linksschenkelblock; kompletter Linksschenkelblock; LSB"),
        ("CRBBB", "right bundle branch block; kompletter Rechtsschenkelblock; Rechtsschenkelblockbild"),
        ("PVC", "premature ventricular complexes; ventrikuläre Extrasystolen; VES; ventrikulärer Extraschlag"),
        ("STACH", "sinus tachycardia; Sinustachykardie; tachykarder Sinusrhythmus"),
        ("SBRAD", "sinus bradycardia; Sinusbradykardie"),
        ("LVH", "left ventricular hypertrophy; Linksherzhypertrophie; Hypertrophie des linken Ventrikels"),
        ("IMI", "inferior myocardial infarction; Hinterwandinfarkt; inferiorer Myokardinfarkt; HW-Infarkt"),
        ("AMI", "anterior myocardial infarction; Vorderwandinfarkt; anteriorer Myokardinfarkt"),
        ("NORM", "normal ecg; normales EKG; EKG o.B.; unauffälliges ECG"),
        ("ABQRS", "abnormal QRS complexes; QRS abnorm; auffällige QRS-Komplexe; pathologischer QRS-Komplex"),
        ("QWAVE", "pathological Q waves; pathologische Q-Zacken"),
        ("PVC", "ventrikuläre Extrasystolie; Kammerextrasystolie"),
        ("PAC", "supraventrikuläre Extrasystolie"),
        ("NST_", "unspezifische ST-Veränderungen; unspezifische T-Wellen-Veränderungen; abnormes T"),
        ("AMI", "Vorderwandseptuminfarkt"),
        ("1AVB", "first degree av block; AV-Block I. Grades; AV-Block ersten Grades; verlängerte PQ-Zeit"),
    ],
)
def test_all_words_for_a_finding_have_one_score(code: str, words: str) -> None:
    expected = tuple(prompts_for("labels", [code])[code])
    assert {
        word: found.texts for word, found in zip(words.split("; "), label_texts(words.split("; ")), strict=True)
    } == dict.fromkeys(words.split("; "), expected)


@pytest.mark.parametrize(
    "label", ["no atrial fibrillation", "kein Vorhofflimmern", "No evidence of atrial fibrillation."]
)
def test_a_denied_finding_is_scored_as_its_opposite(label: str) -> None:
    (found,) = label_texts([label])
    assert (found.texts, found.sign) == (AFIB, -1)
    assert "denies atrial fibrillation: scored as the opposite" in str(found.note)
    vectors, notes = tiny.model(pooling="mean").encode_labels(["AFIB", label])
    np.testing.assert_allclose(vectors[1], -vectors[0], atol=1e-6)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("label", "words"),
    [("no f waves", "f waves"), ("kein Zusatzbefund", "Zusatzbefund"), ("ohne Delta-Zacke.", "Delta-Zacke"),
     ("epsilon waves are not seen", "epsilon waves")],
)  # fmt: skip
def test_denied_words_of_no_finding_are_scored_as_their_opposite(label: str, words: str) -> None:
    (found,) = label_texts([label])
    assert (found.texts, found.sign) == ((words,), -1)
    assert "scored as the opposite" in str(found.note)


def test_two_german_findings_are_one_text() -> None:
    (found,) = label_texts(["Sinusrhythmus, Linksschenkelblock"])
    assert found.texts == ("sinus rhythm. normal sinus rhythm. left bundle branch block.",)


@pytest.mark.parametrize(("labels", "message"), [([], "no labels"), (["  "], "is empty"), (["AF"], "ambiguous")])
def test_labels_without_a_meaning_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(DeriError, match=message):
        label_texts(labels)


def test_a_model_scores_a_code_by_the_mean_of_its_prompts_and_warns() -> None:
    model = tiny.model(pooling="mean")
    vectors, notes = model.encode_labels(["AFIB", "possible sinus rhythm", "pizza"])
    mean = model.encode_text(AFIB).mean(axis=0)
    np.testing.assert_allclose(vectors[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(vectors[1], model.encode_text("possible sinus rhythm")[0], atol=1e-6)
    assert len(notes) == 1
    with pytest.warns(UserWarning, match="pizza"):
        assert list(model.classify([], ["pizza"]).columns) == ["pizza"]


def test_a_model_of_nan_gives_no_scores() -> None:
    model = tiny.model(pooling="mean")
    torch.nn.init.constant_(next(model.text_projection.parameters()), float("nan"))
    with pytest.raises(DeriError, match="not finite for 3 of 3 texts"):
        model.classify([], ["sinus rhythm"])
    signals = np.full((2, 12, 5000), 0.1, np.float32)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, float("nan"))
    with pytest.raises(DeriError, match="not finite for 2 of 2 recordings"):
        model.embed_signals(signals, 500.0)
