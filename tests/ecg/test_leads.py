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
        ("ECG-V1", "V1"),
        ("ECG Lead II", "II"),
        ("EKG-I", "I"),
        ("EKG V3", "V3"),
        ("II-Ref", "II"),
        ("I_uV", "I"),
        ("aVL mV", "aVL"),
        ("V1 [µV]", "V1"),
        ("V1 [μV]", "V1"),
        ("Lead 1", "I"),
        ("LEAD_3", "III"),
        ("LII", "II"),
        ("D1", "I"),
        ("Ableitung I", "I"),
        ("Abl. II", "II"),
        ("Afleiding I", "I"),
        ("\u2161", "II"),
        ("aVR, augmented voltage, right", "aVR"),
        ("aVL, augmented", "aVL"),
        ("II, Einthoven", "II"),
        ("Einthoven III", "III"),
        ("aV R", "aVR"),
        ("a-VF", "aVF"),
        ("V_1", "V1"),
        ("ECG V-4", "V4"),
        ("V06", "V6"),
        ("D II", "II"),
        ("V3 ECG", "V3"),
        ("aVL_lead", "aVL"),
        ("ECG LA-RA", "I"),
        ("LL-RA", "II"),
        ("LL-LA", "III"),
        ("Brustwandableitung V2", "V2"),
        ("Derivación aVF", "aVF"),
        ("derivac\u0327a\u0303o V5", "V5"),
        ("Derivazione II", "II"),
        ("Avledning V1", "V1"),
        ("Odprowadzenie III", "III"),
    ],
)
def test_aliases(name: str, lead: str) -> None:
    assert canonical_lead(name) == lead


@pytest.mark.parametrize(
    "name", ["-aVR", "-avr", "MLII", "vx", "V7", "V4R", "V", "", "II+", "PLETH", "1", "ECG", "X", "V10"]
)
@pytest.mark.parametrize("prefix", ["", "Lead "])
def test_what_only_resembles_a_lead_is_none(name: str, prefix: str) -> None:
    assert canonical_lead(prefix + name) is None or (prefix, name) == ("Lead ", "1")


@pytest.mark.parametrize(
    "name",
    [
        # What stands in brackets, or behind the name, says that it is another lead.
        *["V1 (V3R)", "V4 (V4R)", "aVF (inv)", "aVF (inverted)", "aVR-inv", "V1 (EASI)", "V1-V2", "I-II", "I+"],
        # MDC_ECG_LEAD_dI is a lead computed from others (ISO 11073-10102), and no case of DI.
        *["MDC_ECG_LEAD_dI", "MDC_ECG_LEAD_V3R", "MDC_ECG_LEAD_LII", "dV1"],
        *["IV", "MCL1", "CM5", "Lead 4", "L1", "C3"],
        # Opposite signs, leads without augmentation, channels that are numbered, another tracing of a lead.
        *["RA-LA", "RA-LL", "VR", "aVR-", "V-R", "ECG 1", "Channel II", "CH I", "V1_2", "I-2", "II-III", "VI", "V 10"],
    ],
)
def test_another_lead_is_none(name: str) -> None:
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


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([f"V{k}" for k in range(1, 13)], "numbered"),  # the columns of an R matrix
        ([f"V{k}" for k in range(1, 9)], "numbered"),
        ([f"V_{k:02d}" for k in range(1, 13)], 'numbered.*--leads "V_01=I"'),
        ([f"Lead {k}" for k in range(1, 9)], "numbered"),  # I, II and V1 to V6, perhaps
        ([f"D{k}" for k in range(1, 13)], "numbered"),
        (["ES", "AS", "AI"], "EASI"),
        ([f"V{k} (EASI)" for k in range(1, 7)], "EASI"),
        (["MLII", "CM5"], "MLII=II"),
    ],
)
def test_channels_that_are_no_leads_are_refused_with_the_reason(names: list[str], reason: str) -> None:
    with pytest.raises(ReadError, match=reason) as caught:
        lead_plan(tuple(names))
    assert caught.value.reason == "unknown_leads"


def test_leads_of_the_back_beside_limb_leads() -> None:
    plan = lead_plan(("I", "II", *[f"V{k}" for k in range(1, 10)]))
    assert plan.dropped == ("V7", "V8", "V9")
    assert len(plan.recorded) == 8
