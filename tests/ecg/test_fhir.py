"""FHIR Observations with SampledData, written here by hand from the standard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deri.datasets import open_dataset
from deri.ecg import LEADS, read_ecg
from deri.errors import ReadError
from ecg.writers import digital_ecg

# ISO 11073-10101: MDC_ECG_ELEC_POTL_I, II, III, aVR, aVL, aVF, V1 … V6.
POTENTIALS = [131329, 131330, 131389, 131390, 131391, 131392, *range(131331, 131337)]


def component(code: Any, numbers: Any, origin: Any = None, **more: Any) -> dict[str, Any]:
    code = code if isinstance(code, dict) else {"coding": [{"system": "urn:oid:2.16.840.1.113883.6.24", "code": code}]}
    data = {"origin": origin or {"value": 0, "unit": "uV", "code": "uV"}, "period": 4, "dimensions": 1}
    data |= {"data": numbers if isinstance(numbers, str) else " ".join(map(str, numbers))} | more
    return {"code": code, "valueSampledData": {name: value for name, value in data.items() if value is not None}}


def write(path: Path, components: list[dict[str, Any]], **more: Any) -> Path:
    path.write_text(json.dumps({"resourceType": "Observation", "status": "final", "component": components} | more))
    return path


def test_twelve_leads(tmp_path: Path) -> None:
    digital = digital_ecg(500)
    origin = {"value": 3, "unit": "uV"}
    parts = [component(str(c), row, origin, factor=2.5) for c, row in zip(POTENTIALS, digital, strict=True)]
    path = write(tmp_path / "a.json", parts[::-1])
    ecg = read_ecg(path)
    assert (ecg.fs, ecg.metadata["format"], ecg.missing_leads) == (250, "FHIR Observation", ())
    np.testing.assert_allclose(ecg.signal, (3 + 2.5 * digital) * 1e-3, rtol=1e-6)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content, sort_keys=True, indent=1))  # "resourceType" at the end
    np.testing.assert_array_equal(read_ecg(path).signal, ecg.signal)
    for part in parts:
        data = part["valueSampledData"]
        data["interval"], data["intervalUnit"] = data.pop("period") / 1000, "s"
    assert read_ecg(write(path, parts)).fs == 250
    assert open_dataset("folder", tmp_path).examples["file"].tolist() == ["a.json"]


@pytest.mark.parametrize(
    ("code", "lead"),
    [
        ("131073", "I"),  # MDC_ECG_LEAD_I
        ("MDC_ECG_ELEC_POTL_V3", "V3"),
        ({"text": "Lead II"}, "II"),
        ({"coding": [{"code": "x", "display": "MDC_ECG_LEAD_AVF"}], "text": "foot"}, "aVF"),
        ({"coding": [{"code": "131331", "display": "V2"}]}, "V1"),  # the code beats the label
        ({"coding": [{"code": "131338", "display": "V3"}]}, None),  # another lead of the standard
        ("131328", None),
    ],
)
def test_names_of_leads(code: Any, lead: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [component(code, range(9)), component("131334", range(9))])
    assert set(LEADS) - set(read_ecg(path).missing_leads) == {lead, "V4"} - {None}


def test_an_unnamed_lead_of_the_observation_itself_takes_a_name(tmp_path: Path) -> None:
    own = component({"text": "chest strap"}, [1, 2, 3])
    path = write(tmp_path / "a.json", [], **own)
    with pytest.raises(ReadError, match="--leads") as caught:
        read_ecg(path)
    assert caught.value.reason == "unknown_leads"
    np.testing.assert_allclose(read_ecg(path, leads={"chest strap": "V2"}).signal[7], [1e-3, 2e-3, 3e-3])


def test_parts_of_a_lead_follow_each_other_and_marks_are_gaps(tmp_path: Path) -> None:
    parts = [component("131329", "1 2 E"), component("131329", " 4  U\n-6.5 ")]
    ecg = read_ecg(write(tmp_path / "a.json", parts))
    np.testing.assert_allclose(ecg.signal[0] * 1e3, [1, 2, np.nan, 4, np.nan, -6.5], rtol=1e-6)


def test_a_unit_that_is_not_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [component("131329", [100, 200], {"value": 0})])
    for options, expected in (({"units": "uV"}, [0.1, 0.2]), ({"gain": 200}, [0.5, 1])):
        np.testing.assert_allclose(read_ecg(path, **options).signal[0], expected)
    with pytest.raises(ReadError, match="--units"):
        read_ecg(path)
    write(path, [component("131329", [100, 200])])
    for options in ({"units": "mV"}, {"gain": 200}, {"fs": 500}):
        with pytest.raises(ReadError) as caught:
            read_ecg(path, **options)
        assert caught.value.reason == "stated_by_file"
        assert read_ecg(path, **options, fallback=True).signal[0, 0] == np.float32(0.1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"period": None}, "bad_sampling_rate"),
        ({"period": 0}, "bad_sampling_rate"),
        ({"period": None, "interval": 2, "intervalUnit": "mm"}, "bad_sampling_rate"),
        ({"dimensions": 12}, "unsupported_format"),
        ({"origin": {"value": 0, "unit": "mm[Hg]"}}, "bad_units"),
        ({"factor": "x"}, "bad_gain"),
        ({"numbers": "1 2 low"}, "unreadable_signal"),
        ({"numbers": ""}, "truncated_signal"),
        ({"period": 5}, "unequal_lead_lengths"),
    ],
)
def test_what_cannot_be_used_says_why(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    bad = component("131329", changes.pop("numbers", [1, 2, 3]), **changes)
    path = write(tmp_path / "a.json", [bad, component("131330", [1, 2, 3])])
    with pytest.raises(ReadError) as caught:
        read_ecg(path)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"{path}: ")


def test_other_json_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, match in (
        ('{"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Observation"}}]}', "is a FHIR Bundle"),
        ('{"resourceType": "Observation"}', "no valueSampledData"),
        ('{"resourceType": "Observation", ', "cannot be read as a FHIR"),
        ('{"resourceType": "Observation", "component": [{"valueSampledData": 3}]}', "cannot be read as a FHIR"),
        ('{"resourceType": "Observation", "component": 3}', "cannot be read as a FHIR"),
        ('{"resourceType": "Patient"}', "no known format"),
    ):
        path.write_text(text)
        with pytest.raises(ReadError, match=match):
            read_ecg(path)
