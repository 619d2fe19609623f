"""The layouts of CPSC2018 and CSN on disk, beside real files and read back by other software."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import wfdb

from deri.datasets import open_dataset
from deri.ecg import LEADS, read_ecg
from deri.simulate import FINDINGS, simulate
from deri.simulate.layouts import cpsc2018, csn
from deri.simulate.studies import Study, draw_studies

N_CSN, N_CPSC = 230, 24


@pytest.fixture(scope="module")
def csn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "csn"
    simulate("csn", N_CSN, root, seed=4)
    return root


@pytest.fixture(scope="module")
def cpsc_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "cpsc"
    simulate("cpsc2018", N_CPSC, root, seed=4)
    return root


@pytest.fixture(scope="module")
def csn_studies() -> list[Study]:
    return list(draw_studies(4, csn.STREAM, N_CSN, more=0.0, mains_hz=50.0))


@pytest.fixture(scope="module")
def cpsc_studies() -> list[Study]:
    drawn = draw_studies(4, cpsc2018.STREAM, 10_000, more=0.0, mains_hz=50.0, seconds=cpsc2018._seconds)
    return list(islice((study for study in drawn if cpsc2018.classes_of(study.tracing.findings)), N_CPSC))


# --- CSN --------------------------------------------------------------------------------------------------


def test_csn_tree(csn_root: Path) -> None:
    headers = sorted(p.relative_to(csn_root).as_posix() for p in csn_root.rglob("*.hea"))
    assert len(headers) == N_CSN
    assert headers[0] == "WFDBRecords/01/010/JS00001.hea"
    assert headers[-1] == "WFDBRecords/01/012/JS00230.hea"
    assert csn.record_name(1000)[0] == "WFDBRecords/02/020"
    assert csn.record_name(45_151) == ("WFDBRecords/46/461", "JS45152")
    assert (csn_root / "RECORDS").read_text().splitlines() == [f"WFDBRecords/01/01{i}/" for i in range(3)]
    assert sorted(p.name for p in csn_root.iterdir()) == ["ConditionNames_SNOMED-CT.csv", "RECORDS", "WFDBRecords"]


def test_csn_headers_have_the_form_of_real_ones(csn_root: Path, ecg_real: Path) -> None:
    """Line by line the same fields: numbers, dates and codes aside."""

    def form(path: Path) -> list[str]:
        text = path.read_text().replace(path.stem, "NAME")
        text = re.sub(r"(?m)^#Dx: [\d,]+$", "#Dx: CODES", text)
        text = re.sub(r"\d\d-\w{3}-\d{4} \d\d:\d\d:\d\d", "DATE", text)
        text = re.sub(r"(?m)^(NAME.mat 16\+24 1000/mV 16 0) -?\d+ -?\d+ 0 ", r"\1 FIRST SUM 0 ", text)
        return re.sub(r"Age: \d+|(?<=Sex: )(Fem|M)ale", "x", text).splitlines()

    real = ecg_real / "csn" / "JS00002"
    ours = csn_root / "WFDBRecords/01/010/JS00002"
    assert form(ours.with_suffix(".hea")) == form(real.with_suffix(".hea"))
    assert "SUM" in form(real.with_suffix(".hea"))[1]
    assert ours.with_suffix(".mat").read_bytes()[:24] == real.with_suffix(".mat").read_bytes()[:24]
    assert ours.with_suffix(".mat").stat().st_size == real.with_suffix(".mat").stat().st_size


def test_csn_record_equals_the_generated_signal(csn_root: Path, csn_studies: list[Study]) -> None:
    for index in (0, 57, 229):
        folder, name = csn.record_name(index)
        path = csn_root / folder / name
        study = csn_studies[index]
        record = wfdb.rdrecord(str(path), physical=False)
        assert record.sig_name == list(LEADS)
        assert (record.fs, record.sig_len) == (500, 5000)
        assert [value % 65536 for value in record.checksum] == record.calc_checksum()
        assert record.init_value == record.d_signal[0].tolist()
        matrix = scipy.io.loadmat(path.with_suffix(".mat"))["val"]
        assert matrix.dtype == np.int16
        np.testing.assert_array_equal(matrix, record.d_signal.T)
        np.testing.assert_allclose(matrix / 1000, study.tracing.signal, atol=0.5 / 1000 + 1e-6)
        ecg = read_ecg(path)
        np.testing.assert_allclose(ecg.signal, matrix / 1000, atol=1e-6)
        assert ecg.metadata["age"] == study.patient.age
        assert ecg.metadata["sex"] == study.patient.sex
        assert set(ecg.metadata["dx"]) == set(csn.snomed_codes(study.tracing.findings))


def test_csn_opens_with_its_labels(csn_root: Path, csn_studies: list[Study]) -> None:
    data = open_dataset("csn", csn_root)
    assert len(data.examples) == N_CSN
    assert data.rejects.empty
    counts = Counter(finding for study in csn_studies for finding in study.tracing.findings)
    known = {"SR": "SR", "STACH": "ST", "AFIB": "AFIB", "PAC": "APB", "PVC": "VPB", "CRBBB": "RBBB", "1AVB": "1AVB"}
    for finding, acronym in known.items():
        assert (acronym in data.tasks["csn"]) == (counts[finding] >= 10), finding
    for study, found in zip(csn_studies, data.examples["csn"], strict=True):
        expected = {known[f] for f in study.tracing.findings if f in known} & set(data.tasks["csn"])
        assert set(found or ()) & set(known.values()) == expected


def test_every_finding_has_a_code() -> None:
    for finding in FINDINGS:
        assert finding == "NORM" or csn.snomed_codes((finding,))
    assert csn.snomed_codes(("IMI", "ASMI")) == ["164865005", "164917005"]


# --- CPSC2018 ---------------------------------------------------------------------------------------------


def test_cpsc_tree_and_reference(cpsc_root: Path, cpsc_studies: list[Study]) -> None:
    assert sorted(p.name for p in cpsc_root.iterdir()) == [
        *(f"A{i:04d}.mat" for i in range(1, N_CPSC + 1)),
        "REFERENCE.csv",
    ]
    table = pd.read_csv(cpsc_root / "REFERENCE.csv")
    assert list(table) == ["Recording", "First_label", "Second_label", "Third_label"]
    names = ["NORM", "AFIB", "1AVB", "CLBBB", "CRBBB", "PAC", "VPC", "STD", "STE"]
    like = dict.fromkeys(("PVC", "BIGU", "TRIGU", "COUP"), "VPC") | {"STD_": "STD", "ISC_": "STD"}
    like |= dict.fromkeys(("ISTEMI", "ASTEMI", "LSTEMI", "PERIC"), "STE")
    data = open_dataset("cpsc2018", cpsc_root)
    assert list(data.examples["record_id"]) == list(table["Recording"])
    for study, found in zip(cpsc_studies, data.examples["cpsc2018"], strict=True):
        assert set(found) == {like.get(f, f) for f in study.tracing.findings if like.get(f, f) in names}


def test_cpsc_struct_is_like_a_real_one(cpsc_root: Path, ecg_real: Path) -> None:
    def form(path: Path) -> object:
        content = scipy.io.loadmat(path)
        struct = content["ECG"]
        fields = {name: struct[name][0, 0] for name in struct.dtype.names}
        shapes = fields["sex"].shape, fields["age"].shape, fields["age"].dtype, fields["data"].dtype
        return content["__header__"], struct.shape, list(fields), shapes, fields["sex"].dtype.kind

    # The descriptions differ in their dates alone.
    ours, real = form(cpsc_root / "A0001.mat"), form(ecg_real / "cpsc2018" / "A1980.mat")
    assert ours == real
    at = slice(124, 132)  # version, byte order, and the type of the one element: compressed
    first = (cpsc_root / "A0001.mat").read_bytes()[at]
    assert first == (ecg_real / "cpsc2018" / "A1980.mat").read_bytes()[at]


def test_cpsc_record_equals_the_generated_signal(cpsc_root: Path, cpsc_studies: list[Study]) -> None:
    lengths = set()
    for index, study in enumerate(cpsc_studies):
        struct = scipy.io.loadmat(cpsc_root / f"A{index + 1:04d}.mat")["ECG"][0, 0]
        assert struct["sex"][0].lower() == study.patient.sex
        assert struct["age"][0, 0] == study.patient.age
        np.testing.assert_allclose(struct["data"], study.tracing.signal, atol=0.5 / 1000 + 1e-6)
        lengths.add(struct["data"].shape[1])
    assert 5000 in lengths
    assert len(lengths) > 5
    assert min(lengths) >= 3000
    assert max(lengths) <= 30_000
    ecg = read_ecg(cpsc_root / "A0002.mat")
    np.testing.assert_allclose(ecg.signal, cpsc_studies[1].tracing.signal, atol=0.5 / 1000 + 1e-6)
    assert ecg.fs == 500
