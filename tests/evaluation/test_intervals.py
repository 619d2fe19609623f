"""Intervals and paired tests of few positives: hand-computed values, NumPy restatements and properties."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

from deri.evaluation import intervals
from deri.evaluation.contributions import auroc_contributions, f1_contributions
from deri.evaluation.intervals import (
    auroc_intervals,
    macro_interval,
    mean_interval,
    paired_differences,
    paired_macro_difference,
)


def sample(n=200, classes=4, positives=30, runs=1, seed=0, records=1):
    """Labels, scores (runs, n, classes) and subjects of which each has some records."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, classes), int)
    for c in range(classes):
        labels[rng.permutation(n)[:positives], c] = 1
    scores = rng.normal(size=(runs, n, classes)) + 1.2 * labels
    return labels, scores, 10000 + np.arange(n) // records


def by_pairs(positive, score):
    """Placements by comparing all pairs."""
    high, low = score[positive == 1][:, None], score[positive == 0][None]
    wins = (high > low) + (high == low) / 2
    return wins.mean(axis=1), wins.mean(axis=0)


def delong(positive, scores):
    """AUROCs of models (m, n) and their covariance, by ranks (Sun & Xu 2014)."""
    positive = positive.astype(bool)
    ranks = stats.rankdata(scores, axis=1)
    above = (ranks[:, positive] - stats.rankdata(scores[:, positive], axis=1)) / (~positive).sum()
    below = 1 - (ranks[:, ~positive] - stats.rankdata(scores[:, ~positive], axis=1)) / positive.sum()
    covariance = np.atleast_2d(np.cov(above)) / positive.sum() + np.atleast_2d(np.cov(below)) / (~positive).sum()
    return above.mean(axis=1), covariance


def auroc_interval(positive, score, subjects):
    return auroc_intervals(auroc_contributions(positive[:, None], score[:, None], subjects))[0]


@pytest.mark.parametrize("ties", [False, True])
def test_contributions_are_the_placements_of_all_pairs(ties):
    labels, scores, _ = sample(n=60, positives=9)
    scores = np.round(scores) if ties else scores
    of = auroc_contributions(labels, scores[0], 1000 + np.arange(60))
    for c in range(4):
        y = labels[:, c]
        above, below = by_pairs(y, scores[0, :, c])
        assert of.mean[c] == pytest.approx(roc_auc_score(y, scores[0, :, c]), abs=1e-12)
        np.testing.assert_allclose(of.deviations[0, y == 1, c], (above - above.mean()) / 9, atol=1e-12)
        np.testing.assert_allclose(of.deviations[1, y == 0, c], (below - below.mean()) / 51, atol=1e-12)
    np.testing.assert_array_equal(of.counts.sum(axis=1), [[9] * 4, [51] * 4])


def test_several_runs_are_averaged_and_patients_summed():
    labels, scores, subjects = sample(runs=3, records=4)
    together = auroc_contributions(labels, scores, subjects)
    alone = [auroc_contributions(labels, run, subjects) for run in scores]
    np.testing.assert_allclose(together.deviations, np.mean([of.deviations for of in alone], axis=0), atol=1e-15)
    np.testing.assert_allclose(together.values, np.concatenate([of.values for of in alone]))
    by_record = auroc_contributions(labels, scores, 1000 + np.arange(200))
    np.testing.assert_allclose(together.deviations, by_record.deviations.reshape(2, 50, 4, 4).sum(axis=2), atol=1e-15)


def test_three_positives_that_rank_first_by_hand():
    """No variance is seen: r is (1/3) (1/3 + 1/97); with A = 1, Wilson's lower limit is 1 / (1 + t² r).

    Degrees of freedom by Satterthwaite, from those of 3 and of 97 values and 5 of the prior.
    """
    score = np.arange(100.0)
    found = auroc_interval(score >= 97, score, np.arange(100))
    positive, negative = 1 / 9, 1 / 291
    freedom = (positive + negative) ** 2 / (positive**2 / 7 + negative**2 / (96 + 5))
    t = stats.t.ppf(0.975, freedom)
    assert found.value == 1
    assert found.ci[1] == 1
    assert found.ci[0] == pytest.approx(1 / (1 + t**2 * (positive + negative)), abs=1e-12)


def test_large_samples_agree_with_delong_and_the_normal_interval():
    labels, scores, subjects = sample(n=20000, classes=1, positives=8000)
    values, covariance = delong(labels[:, 0], scores[0].T)
    found = auroc_intervals(auroc_contributions(labels, scores, subjects))[0]
    half = 1.96 * covariance[0, 0] ** 0.5
    np.testing.assert_allclose(found.ci, (values[0] - half, values[0] + half), atol=half * 0.02)


def test_a_difference_of_large_samples_agrees_with_delong():
    labels, scores, subjects = sample(n=4000, classes=1, positives=1500, runs=2)
    a, b = (auroc_contributions(labels, run, subjects) for run in scores)
    found = paired_differences(a, b)[0]
    values, covariance = delong(labels[:, 0], scores[..., 0])
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    assert found.value == pytest.approx(values[0] - values[1])
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(1.96 * error, rel=0.01)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.value) / error), rel=0.03)


def test_records_doubled_as_the_same_patients_tell_nothing_new():
    """Twice the records of the same patients: the interval stays; taken as new patients it would shrink by √2."""
    labels, scores, subjects = sample(n=400, classes=1, positives=150)
    twice = [np.concatenate([x, x], axis=-2) for x in (labels, scores)]
    once = auroc_intervals(auroc_contributions(labels, scores, subjects))[0]
    same = auroc_intervals(auroc_contributions(*twice, np.r_[subjects, subjects]))[0]
    new = auroc_intervals(auroc_contributions(*twice, np.arange(800)))[0]
    width = [x.ci[1] - x.ci[0] for x in (once, same, new)]
    assert width[1] == pytest.approx(width[0], rel=0.02)
    assert width[2] == pytest.approx(width[0] / 2**0.5, rel=0.02)


def test_macro_variance_has_the_covariances_of_classes():
    """The same class four times is one class; four independent ones have half its width."""
    labels, scores, subjects = sample(n=3000, classes=4, positives=800)
    copies = [np.repeat(x[..., :1], 4, axis=-1) for x in (labels, scores)]
    one = auroc_intervals(auroc_contributions(labels, scores, subjects))[0]
    same = macro_interval(auroc_contributions(*copies, subjects))
    independent = macro_interval(auroc_contributions(labels, scores, subjects))
    assert same.ci[1] - same.ci[0] == pytest.approx(one.ci[1] - one.ci[0], rel=0.02)
    assert independent.ci[1] - independent.ci[0] == pytest.approx((one.ci[1] - one.ci[0]) / 2, rel=0.1)


def test_macro_value_is_the_mean_of_defined_classes_and_lies_within():
    labels, scores, subjects = sample(classes=5, positives=4)
    labels[:, 2] = 0
    of = auroc_contributions(labels, scores, subjects)
    defined = [roc_auc_score(labels[:, c], scores[0, :, c]) for c in (0, 1, 3, 4)]
    found = macro_interval(of)
    assert found.value == pytest.approx(np.mean(defined))
    assert found.ci[0] < found.value < found.ci[1]
    some = macro_interval(of, [0, 2, 3])
    assert some.value == pytest.approx((defined[0] + defined[2]) / 2)


def test_macro_of_runs_is_wider_where_other_runs_could_have_been_drawn():
    labels, scores, subjects = sample(runs=3)
    scores[1] += 0.5 * labels
    of = auroc_contributions(labels, scores, subjects)
    fixed, drawn = macro_interval(of), macro_interval(of, draw_runs=True)
    assert drawn.value == fixed.value
    assert drawn.ci[1] - drawn.ci[0] > 1.5 * (fixed.ci[1] - fixed.ci[0])
    alone = macro_interval(auroc_contributions(labels, scores[:1], subjects), draw_runs=True)
    assert alone.ci is None
    assert alone.reason == "one run does not show how runs differ"


@pytest.mark.parametrize(
    ("positives", "has_ci", "has_p"), [(0, False, False), (1, False, False), (2, True, False), (3, True, True)]
)
def test_below_what_can_be_told_there_is_null_and_a_reason(positives, has_ci, has_p):
    labels, scores, subjects = sample(classes=1, positives=positives, runs=2)
    a, b = (auroc_contributions(labels, run, subjects) for run in scores)
    one, difference = auroc_intervals(a)[0], paired_differences(a, b)[0]
    macro = macro_interval(a)
    assert (one.ci is not None) == has_ci == (one.reason is None) == (macro.ci is not None)
    assert (difference.p is not None) == has_p == (difference.ci is not None) == (difference.reason is None)
    assert (one.value is None) == (positives == 0)


def test_positives_of_one_patient_are_one():
    labels, scores, subjects = sample(classes=1, positives=0)
    labels[:6] = 1
    found = auroc_intervals(auroc_contributions(labels, scores, np.where(np.arange(200) < 6, 0, subjects)))[0]
    assert found.value is not None
    assert found.ci is None
    assert found.reason == "fewer than 2 patients with a positive, or with a negative"


def test_models_that_rank_alike_have_no_p():
    labels, scores, subjects = sample()
    a, b = auroc_contributions(labels, scores, subjects), auroc_contributions(labels, 3 * scores + 1, subjects)
    for found in (*paired_differences(a, b), paired_macro_difference(a, b)):
        assert (found.value, found.ci, found.p) == (0, None, None)
        assert found.reason == "the difference does not vary"


def test_swapping_models_turns_the_difference_round():
    labels, scores, subjects = sample(runs=2, positives=5, records=2)
    a, b = (auroc_contributions(labels, run, subjects) for run in scores)
    for one, other in [
        *zip(paired_differences(a, b), paired_differences(b, a), strict=True),
        (paired_macro_difference(a, b), paired_macro_difference(b, a)),
    ]:
        assert one.value == pytest.approx(-other.value)
        assert one.p == pytest.approx(other.p)
        np.testing.assert_allclose(one.ci, [-other.ci[1], -other.ci[0]])


def test_other_labels_are_refused():
    labels, scores, subjects = sample()
    a, b = auroc_contributions(labels, scores, subjects), auroc_contributions(labels[::-1], scores, subjects)
    with pytest.raises(ValueError, match="not scored on the same records"):
        paired_differences(a, b)
    with pytest.raises(ValueError, match="1 scores are not finite"):
        auroc_contributions(labels, np.where(np.arange(800).reshape(200, 4) == 7, np.nan, scores[0]), subjects)


@given(st.integers(2, 12), st.integers(0, 10**6), st.integers(1, 3), st.sampled_from([0.0, 1.0, 9.0]))
def test_intervals_are_within_bounds_around_the_value_and_see_ranks_alone(positives, seed, records, gain):
    labels, scores, subjects = sample(n=36, classes=3, positives=positives, seed=seed, records=records)
    scores = scores + gain * labels
    of = auroc_contributions(labels, scores, subjects)
    monotone = auroc_contributions(labels, np.exp(scores / 9), subjects)
    for found, again in zip(
        [*auroc_intervals(of), macro_interval(of)], [*auroc_intervals(monotone), macro_interval(monotone)], strict=True
    ):
        if found.ci is None:
            assert found.reason
            continue
        assert 0 <= found.ci[0] <= found.value <= found.ci[1] <= 1
        assert found.ci[1] - found.ci[0] > 0
        np.testing.assert_allclose(again.ci, found.ci)


@given(st.integers(0, 10**6))
def test_a_lower_level_lies_within_a_higher_one(seed):
    labels, scores, subjects = sample(n=60, positives=5, seed=seed)
    of = auroc_contributions(labels, scores, subjects)
    narrow, wide = (macro_interval(of, level=level).ci for level in (0.8, 0.95))
    assert wide[0] <= narrow[0] <= narrow[1] <= wide[1]


def test_f1_is_scikit_learns_and_its_deviations_are_a_jackknife():
    rng = np.random.default_rng(3)
    truth = rng.random((400, 3)) < 0.3
    called = truth ^ (rng.random((400, 3)) < 0.2)
    of = f1_contributions(truth, called, 1000 + np.arange(400))
    for k in range(3):
        whole = f1_score(truth[:, k], called[:, k])
        assert of.mean[k] == pytest.approx(whole)
        without = [f1_score(np.delete(truth[:, k], i), np.delete(called[:, k], i)) for i in range(40)]
        np.testing.assert_allclose(of.deviations[0, :40, k], whole - np.array(without), atol=5e-5)


def test_macro_f1_is_over_the_same_findings_on_both_sides():
    truth = np.array([[1, 1], [1, 0], [0, 0], [1, 0], [1, 0], [0, 0]])
    a = np.array([[1, 0], [1, 0], [0, 0], [0, 0], [1, 0], [1, 0]])
    b = np.array([[1, 1], [0, 0], [0, 0], [0, 0], [0, 0], [1, 0]])
    one, other = (f1_contributions(truth, called, np.arange(6)) for called in (a, b))
    found = paired_macro_difference(one, other, [0, 1])
    assert found.a == pytest.approx((6 / 8 + 0) / 2)
    assert found.b == pytest.approx((2 / 6 + 1) / 2)
    assert found.ci is not None
    assert found.ci[0] < found.value < found.ci[1]


def test_mean_interval_is_students_of_independent_records():
    values = np.random.default_rng(0).normal(size=50)
    found = mean_interval(values, np.arange(50))
    low, high = stats.t.interval(0.95, 49, values.mean(), values.std(ddof=1) / 50**0.5)
    # The fourth moment may leave fewer degrees of freedom than n - 1.
    assert low - 0.02 < found.ci[0] <= low + 1e-9
    assert high - 1e-9 <= found.ci[1] < high + 0.02
    doubled = mean_interval(np.r_[values, values], np.r_[:50, :50])
    np.testing.assert_allclose(doubled.ci, found.ci)
    assert mean_interval(values, np.zeros(50)).ci is None
    assert mean_interval(np.ones(5), np.arange(5)).ci == (1, 1)


def test_few_positives_are_held_as_often_as_said():
    """AUROC 0.8 with 5 positives of 120: by 300 simulations the old percentile bootstrap held 0.83."""
    rng = np.random.default_rng(2)
    positive = np.arange(120) < 5
    held = 0
    for _ in range(300):
        score = rng.normal(size=120) + 1.19 * positive  # AUROC Φ(1.19 / √2) = 0.80
        low, high = auroc_interval(positive, score, np.arange(120)).ci
        held += low <= 0.8 <= high
    assert 0.92 <= held / 300 <= 0.995


def test_equal_models_rarely_differ():
    rng = np.random.default_rng(4)
    labels = np.zeros((150, 6), int)
    for c, positives in enumerate((1, 3, 4, 6, 20, 40)):
        labels[rng.permutation(150)[:positives], c] = 1
    found = 0
    for _ in range(200):
        common = rng.normal(size=(150, 6))
        a, b = (
            auroc_contributions(labels, labels + common + rng.normal(size=(150, 6)), np.arange(150)) for _ in range(2)
        )
        found += paired_macro_difference(a, b).p < 0.05
    assert found / 200 <= 0.09


def test_seventy_classes_of_five_runs_take_a_second():
    labels, scores, subjects = sample(n=2000, classes=70, positives=25, runs=5)
    start = time.perf_counter()
    of = auroc_contributions(labels, scores, subjects)
    auroc_intervals(of)
    macro_interval(of)
    assert time.perf_counter() - start < 5  # 0.3 s on an idle core


def test_minimum_is_what_the_constants_say():
    assert (intervals.MIN_PATIENTS, intervals.MIN_PATIENTS_PAIRED) == (2, 3)


def test_coverage_benchmark_runs():
    script = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    out = subprocess.run(
        [sys.executable, script, "--quick", "--bootstrap", "20", "--only", "auroc,difference,f1"],
        capture_output=True,
        text=True,
        check=True,
    )
    tables = json.loads(out.stdout)["tables"]
    assert set(tables) == {"auroc", "difference", "f1"}
    rows = itertools.chain.from_iterable(table.values() for table in tables.values())
    assert all(0 <= row["new"]["cover"] <= 1 and "bootstrap" in row for row in rows)


def test_an_interval_of_f1_holds_its_value_or_is_none() -> None:
    told = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, findings = int(rng.integers(12, 60)), 9
        truth = rng.random((n, findings)) < rng.choice([0.03, 0.1, 0.3], findings)
        better, worse = (
            np.where(rng.random(truth.shape) < right, truth, rng.random(truth.shape) < 0.1) for right in (0.8, 0.1)
        )
        subjects = np.arange(n)
        of = [f1_contributions(truth, called, subjects) for called in (better, worse)]
        for one in of:
            estimate = macro_interval(one)
            if estimate.ci is not None:
                told += 1
                assert estimate.value is not None
                assert estimate.ci[0] <= estimate.value <= estimate.ci[1]
        gap = paired_macro_difference(*of)
        if gap.ci is not None:
            assert gap.value is not None
            assert gap.ci[0] <= gap.value <= gap.ci[1]
        else:
            assert gap.p is None
    assert told > 40
