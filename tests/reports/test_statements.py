from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deri.reports.labeller import asserted, known_findings
from deri.reports.statements import finding_bits, split_statements

REPORTS = [
    "sinus rhythm. left bundle branch block. abnormal ecg.",
    "poor data quality.",
    "atrial fibrillation with rapid ventricular response. no evidence of acute infarction. abnormal ecg",
    "sinus rhythm. possible left ventricular hypertrophy.",
    "",
]


def names(bits: int) -> set[str]:
    return {code for i, code in enumerate(known_findings()) if bits >> i & 1}


def test_sentences_that_name_a_finding_are_kept_and_numbered_once() -> None:
    found = split_statements(REPORTS)
    assert found.texts == [
        "sinus rhythm.",
        "left bundle branch block.",
        "atrial fibrillation with rapid ventricular response.",
        "possible left ventricular hypertrophy.",
    ]
    assert [names(int(bits)) for bits in found.bits] == [{"SR"}, {"CLBBB"}, {"AFIB"}, {"LVH"}]
    assert [found.ids[a:b].tolist() for a, b in zip(found.starts[:-1], found.starts[1:], strict=True)] == [
        [0, 1], [], [2], [0, 3], [],
    ]  # fmt: skip
    assert [names(int(bits)) for bits in found.report_bits] == [{"SR", "CLBBB"}, set(), {"AFIB"}, {"SR", "LVH"}, set()]


@given(st.lists(st.sampled_from(range(5)), min_size=1, max_size=20), st.integers(0, 99))
def test_a_drawn_statement_is_one_of_its_report(reports: list[int], seed: int) -> None:
    found = split_statements(REPORTS)
    uniform = np.random.default_rng(seed).random(len(reports))
    for report, chosen in zip(reports, found.draw(np.array(reports), uniform), strict=True):
        own = found.ids[found.starts[report] : found.starts[report + 1]]
        assert chosen in own if len(own) else chosen == -1


def test_draws_reach_every_statement() -> None:
    found = split_statements(REPORTS)
    assert found.draw(np.zeros(2, np.int64), np.array([0.0, 0.999])).tolist() == [0, 1]
    nothing = split_statements(["poor data quality.", ""])
    assert nothing.draw(np.array([0, 1]), np.array([0.1, 0.9])).tolist() == [-1, -1]


def test_bits_are_the_asserted_findings() -> None:
    for text in REPORTS:
        assert names(finding_bits(text)) == set(asserted(text))
