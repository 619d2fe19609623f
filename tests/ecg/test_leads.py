from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deri.ecg.leads import LEADS, MIMIC_LEADS, canonical_lead, lead_plan
from deri.errors import ReadError


@pytest.mark.parametrize(
    ("name", "lead"),
    [
        ("AVR", "aVR"),
        ("aVR", "aVR"),
        ("avr", "aVR"),
        ("i", "I"),
        ("ii", "II"),
        (" III ", "III"),
        ("Lead I", "I"),
        ("LEAD II", "II"),
        ("lead_aVF", "aVF"),
        ("ECG V3", "V3"),
        ("ECG_II", "II"),
        ("MDC_ECG_LEAD_V1", "V1"),
        ("MDC_ECG_LEAD_AVL", "aVL"),
        ("DIII", "III"),
        ("Lead I (Einthoven)", "I"),
        ("v6", "V6"),
    ],
)
def test_aliases(name: str, lead: str) -> None:
    assert canonical_lead(name) == lead


@pytest.mark.parametrize(
    "name", ["-aVR", "-avr", "MLII", "vx", "V7", "V4R", "V", "", "II+", "PLETH", "1", "ECG", "X", "V10"]
)
def test_what_only_resembles_a_lead_is_none(name: str) -> None:
    assert canonical_lead(name) is None


@given(
    st.sampled_from(LEADS), st.sampled_from([str.upper, str.lower, str.swapcase]), st.sampled_from(["", "Lead ", " "])
)
def test_case_and_prefix_never_matter(lead: str, case, prefix: str) -> None:
    assert canonical_lead(prefix + case(lead)) == lead


@given(st.text(max_size=20))
def test_any_text_gives_a_lead_or_none(text: str) -> None:
    assert canonical_lead(text) in (*LEADS, None)


def test_mimic_order_swaps_two_leads() -> None:
    assert sorted(MIMIC_LEADS) == sorted(LEADS)
    assert [i for i in range(12) if MIMIC_LEADS[i] != LEADS[i]] == [4, 5]
    assert MIMIC_LEADS[4] == "aVF"


def test_plan_of_two_limb_leads_derives_the_other_four() -> None:
    plan = lead_plan(("II", "vz", "I", "V1"))
    assert plan.rows == (1, -1, 0, 6)
    assert plan.recorded == (0, 1, 6)
    assert plan.channels == (2, 0, 3)
    assert {LEADS[d.lead]: d.formula for d in plan.derivations} == {
        "III": "II - I",
        "aVR": "-(I + II)/2",
        "aVL": "I - II/2",
        "aVF": "II - I/2",
    }
    assert plan.dropped == ("vz",)
    assert [LEADS[row] for row in plan.missing] == ["V2", "V3", "V4", "V5", "V6"]


def test_one_limb_lead_derives_nothing() -> None:
    plan = lead_plan(("I", "aVF", "V1"))
    assert plan.derivations == ()
    assert len(plan.missing) == 9


def test_duplicate_names_the_two_channels() -> None:
    with pytest.raises(ReadError, match=r"'II' and 'ii'") as caught:
        lead_plan(("I", "II", "ii"))
    assert caught.value.reason == "duplicate_lead"


def test_no_known_lead_lists_what_there_is() -> None:
    with pytest.raises(ReadError, match="PLETH") as caught:
        lead_plan(("PLETH", "-aVR"))
    assert caught.value.reason == "unknown_leads"
