"""Answers: Bayes on the odds by hand, labels of the same finding, heads, and the order of findings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deri.ecg import ECG
from deri.errors import DeriError
from deri.evaluation.answers import ALL, answer, ask, read_priors
from deri.models import EcgTextModel
from deri.models.base import WindowEmbeddings
from deri.models.calibration import Finding, StoreIdentity, TaskCalibration, with_task
from deri.models.head import Head
from deri.reports import prompts_for
from support import tiny


def model_with(**prevalence: float) -> EcgTextModel:
    """Calibrated for codes: the log likelihood ratio is twice the cosine."""
    model = tiny.model()
    classes = {
        code: Finding(prompts=tuple(texts), scores=(-1, 1), log_ratios=(-2, 2), prevalence=prevalence[code], n_pos=10)
        for code, texts in prompts_for("labels", list(prevalence)).items()
    }
    store = StoreIdentity(dataset="folder", fingerprint="f")
    task = TaskCalibration(store=store, split="val", n=99, classes=classes, too_few={})
    model.calibration = with_task(model, "labels", task)
    return model


def ecg(seconds: float = 10) -> ECG:
    time = np.arange(round(seconds * 500)) / 500
    return ECG(np.tile(np.exp(-((((time + 0.4) % 0.8 - 0.4) / 0.015) ** 2)), (12, 1)), 500.0)


def test_probabilities_by_hand() -> None:
    """Prior 0.2: odds 1/4. A cosine of 0.5 gives the ratio e; odds e/4. At a prevalence of 0.5 the odds are e."""
    model = model_with(AFIB=0.2)
    question = ask(model, ["AFIB"])
    vector = 0.5 * question.weight[0]
    at_right_angles = np.zeros_like(vector)
    at_right_angles[:2] = question.weight[0, 1], -question.weight[0, 0]
    vector = vector + math.sqrt(0.75) * at_right_angles / np.linalg.norm(at_right_angles)
    parts = [WindowEmbeddings(np.array([0]), np.array([0.0]), 7 * vector[None].astype(np.float32))]
    expected = {None: 0.2, 0.5: 0.5, 0.01: 0.01}
    for given, prior in expected.items():
        scores = ask(model, ["AFIB"], None if given is None else {"AFIB": given}).of_windows(parts)
        assert scores.score[0, 0] == pytest.approx(0.5, abs=1e-6)
        assert scores.likelihood_ratio[0, 0] == pytest.approx(math.e, rel=1e-5)
        odds = math.e * prior / (1 - prior)
        assert scores.probability[0, 0] == pytest.approx(odds / (1 + odds), rel=1e-5)


def test_labels_of_one_finding_have_its_probability() -> None:
    model = model_with(AFIB=0.2, SR=0.7)
    labels = ["AFIB", "atrial fibrillation", "Vorhofflimmern", "no atrial fibrillation", "pizza"]
    with_prior = answer(model, [ecg()], labels, prevalence={"atrial fibrillation": 0.4})[0].findings
    first, *same, denied, other = with_prior
    assert [one.label for one in with_prior] == labels
    assert all(one.probability == first.probability for one in same)
    assert first.probability is not None
    assert first.likelihood_ratio is not None
    assert denied.probability == pytest.approx(1 - first.probability)
    assert denied.likelihood_ratio == pytest.approx(1 / first.likelihood_ratio)
    assert (other.probability, other.likelihood_ratio) == (None, None)
    # A prior for the denied finding is one for it, too.
    again = answer(model, [ecg()], ["AFIB"], prevalence={"no atrial fibrillation": 0.6})[0].findings[0]
    assert again.probability == pytest.approx(first.probability)


def test_without_labels_all_that_is_calibrated_comes_in_order() -> None:
    found = answer(model_with(AFIB=0.01, SR=0.7, STACH=0.1), [ecg(), ecg(20)])
    for one in found:
        assert [finding.label for finding in one.findings] == [
            "sinus rhythm", "sinus tachycardia", "atrial fibrillation",
        ]  # fmt: skip
        assert one.measurements["rate_bpm"] == pytest.approx(75, abs=1)
    assert [*found[0].measurements] == ["rate_bpm", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "axis_deg"]
    equal = answer(model_with(AFIB=0.01, SR=0.7), [ecg()], prevalence={ALL: 0.5, "SR": 0.01})[0].findings
    assert [finding.label for finding in equal] == ["atrial fibrillation", "sinus rhythm"]
    assert answer(tiny.model(), []) == []


def test_findings_that_are_not_listed_are_told() -> None:
    (note,) = ask(model_with(AFIB=0.01, SR=0.7)).notes
    assert note.startswith("not listed, because their probability is not known: sinus tachycardia, ")
    assert "sinus rhythm" not in note
    assert ask(model_with(AFIB=0.01), ["AFIB"]).notes == ask(tiny.model()).notes == ()


def test_a_model_without_calibration_ranks_all_prompts() -> None:
    question = ask(tiny.model())
    assert not question.calibrated.any()
    assert len(set(question.labels)) == len(question.labels) > 90
    found = answer(tiny.model(), [ecg()])[0].findings
    scores = [finding.score for finding in found]
    assert scores == sorted(scores, reverse=True)


def test_a_head_answers_for_its_classes() -> None:
    model = tiny.model()
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(2, 32)).astype(np.float32)
    model.head = Head(weight, np.zeros(2, np.float32), "ptbxl-rhythm", ["AFIB", "SR"], [None, 0.5], [0.2, 0.5])
    mean = model.encode_ecg([ecg()])[0]
    length = np.linalg.norm(model.embed_signals(ecg().signal[None], 500.0, normalise=False)[0])
    logit = float(weight[0] @ mean * length)
    found = answer(model, [ecg()], ["atrial fibrillation"])[0].findings[0]
    assert found.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert found.probability == pytest.approx(found.score)
    assert found.likelihood_ratio == pytest.approx(math.exp(logit) * 4, rel=1e-4)
    half = answer(model, [ecg()], ["AFIB"], prevalence={"AFIB": 0.5})[0].findings[0]
    assert half.score == pytest.approx(found.score)
    assert half.probability == pytest.approx(1 / (1 + 1 / found.likelihood_ratio), abs=1e-5)
    assert {one.label for one in answer(model, [ecg()])[0].findings} == {"AFIB", "SR"}
    with pytest.raises(DeriError, match="'pizza': the model has a head with the classes AFIB, SR"):
        ask(model, ["pizza"])
    model.head = Head(weight, np.zeros(2, np.float32), "other", ["AFIB", "SR"], [None, None])
    unknown = answer(model, [ecg()], ["AFIB"])[0].findings[0]
    assert (unknown.probability, unknown.likelihood_ratio) == (pytest.approx(found.score), None)
    with pytest.raises(DeriError, match="no label of this name"):
        ask(model, ["AFIB"], {ALL: 0.1})


def test_priors_without_a_use_are_refused() -> None:
    model = model_with(AFIB=0.2)
    with pytest.raises(DeriError, match=r"prevalence AFIB=1: give a share between 0 and 1"):
        ask(model, ["AFIB"], {"AFIB": 1})
    with pytest.raises(DeriError, match="prevalence SR=0.1: no label of this name has a probability"):
        ask(model, ["AFIB", "SR"], {"SR": 0.1})
    with pytest.raises(DeriError, match=r"prevalence \*=0.1: no label"):
        ask(tiny.model(), ["AFIB"], {ALL: 0.1})


def test_two_prevalences_of_one_finding_are_refused() -> None:
    model = model_with(AFIB=0.2)
    with pytest.raises(DeriError, match="prevalence AFIB=0.1: 0.02 was given before"):
        read_priors(["AFIB=0.02", "AFIB=0.1"])
    assert read_priors(["0.1", "AFIB=0.02", "AFIB=0.02"]) == {ALL: 0.1, "AFIB": 0.02}
    with pytest.raises(DeriError, match=r"atrial fibrillation=0.1: 0.02 was given for the same finding"):
        ask(model, ["AFIB"], {"AFIB": 0.02, "atrial fibrillation": 0.1})
    ask(model, ["AFIB"], {"AFIB": 0.1, "no atrial fibrillation": 0.9})
