"""Layouts on disk (MIMIC-IV-ECG, PTB-XL): exact names, columns, headers, read back by other software; all or none."""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import signal
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb
from scipy.signal import resample_poly

from deri.datasets import open_dataset
from deri.ecg import LEADS, read_ecg
from deri.errors import DeriError
from deri.progress import Progress
from deri.simulate import FINDINGS, LAYOUTS, simulate
from deri.simulate.layouts import mimic, ptbxl
from deri.simulate.layouts.wfdb16 import digitise, write_record
from deri.simulate.studies import Study, draw_studies
from support import forked
from support.told import Told

N = 60
WITHOUT_STATEMENT = {code for code, finding in FINDINGS.items() if not finding.scp}


@pytest.fixture(scope="module")
def mimic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "mimic"
    simulate("mimic-iv-ecg", N, root, seed=4)
    return root


@pytest.fixture(scope="module")
def ptbxl_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("simulated") / "ptbxl"
    simulate("ptb-xl", N, root, seed=4)
    return root


def studies_of(stream: int, more: float, mains: float, count: int = N, seed: int = 4) -> list[Study]:
    return list(draw_studies(seed, stream, count, more=more, mains_hz=mains))


def fingerprints(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def header(path: Path) -> list[str]:
    with open(path, encoding="utf-8") as handle:
        return next(csv.reader(handle))


# --- WFDB format 16 ---------------------------------------------------------------------------------------


def test_written_record_is_what_wfdb_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(scale=3, size=(12, 777)).astype(np.float32)
    values[0, 5], values[1, 6] = 400.0, -400.0  # beyond 16 bit at 200/mV: clipped, and never the code for "no sample"
    digital = digitise(values, 200.0)
    write_record(tmp_path, "abc", digital, LEADS, fs=500, gain=200.0, comments=["one", "two"])
    record = wfdb.rdrecord(str(tmp_path / "abc"), physical=False)
    assert record.sig_name == list(LEADS)
    assert record.fs == 500
    assert record.sig_len == 777
    assert record.comments == ["one", "two"]
    assert record.units == ["mV"] * 12
    assert record.fmt == ["16"] * 12
    assert record.adc_gain == [200.0] * 12
    assert record.baseline == [0] * 12
    assert record.adc_res == [16] * 12
    exact = np.clip(values.T.astype(np.float64) * 200, -32767, 32767)
    np.testing.assert_allclose(record.d_signal, exact, atol=0.5 + 1e-4)
    assert record.checksum == record.calc_checksum()
    assert record.init_value == record.d_signal[0].tolist()
    physical = wfdb.rdrecord(str(tmp_path / "abc")).p_signal
    assert np.isfinite(physical).all()
    with pytest.raises(ValueError, match="lead names"):
        write_record(tmp_path, "x", digital, LEADS[:3], fs=500, gain=200.0)


def test_checksum_is_exact_for_a_long_full_scale_record(tmp_path: Path) -> None:
    digital = np.full((100_001, 1), 32767, dtype="<i2")
    write_record(tmp_path, "r", digital, ["I"], fs=500, gain=200.0)
    line = (tmp_path / "r.hea").read_text().splitlines()[1].split()
    assert int(line[6]) == (32767 * 100_001) % 65536


# --- MIMIC-IV-ECG -----------------------------------------------------------------------------------------


def test_mimic_tables_have_the_published_columns(mimic_root: Path, shared: Path) -> None:
    assert header(mimic_root / "machine_measurements.csv") == header(
        shared / "text/mimic_machine_measurements_1row.csv"
    )


def test_mimic_tree_and_record_list(mimic_root: Path) -> None:
    records = pd.read_csv(mimic_root / "record_list.csv")
    assert list(records) == ["subject_id", "study_id", "file_name", "ecg_time", "path"]
    assert len(records) == N
    assert records["study_id"].is_unique
    assert records["subject_id"].between(10_000_000, 19_999_999).all()
    assert records["study_id"].between(40_000_000, 49_999_999).all()
    assert records.equals(records.sort_values(["subject_id", "study_id"], ignore_index=True))
    for row in records.itertuples():
        subject, study = str(row.subject_id), str(row.study_id)
        assert row.path == f"files/p{subject[:4]}/p{subject}/s{study}/{study}"
        assert (mimic_root / f"{row.path}.hea").is_file()
    assert sorted(p.name for p in mimic_root.iterdir()) == ["files", "machine_measurements.csv", "record_list.csv"]
    assert len([p for p in mimic_root.rglob("*") if p.is_file()]) == 2 * N + 2


def test_mimic_record_equals_the_generated_signal(mimic_root: Path) -> None:
    records = pd.read_csv(mimic_root / "record_list.csv").set_index("study_id")
    for study in studies_of(mimic.STREAM, 0.5, 60.0)[:8]:
        row = records.loc[mimic.study_id(study.patient_index, study.study_index)]
        assert row["subject_id"] == mimic.subject_id(study.patient_index)
        record = wfdb.rdrecord(str(mimic_root / row["path"]))
        assert record.sig_name == ["I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6"]
        assert record.p_signal.shape == (5000, 12)
        assert str(record.base_datetime) == row["ecg_time"]
        assert record.comments == [f"<subject_id>: {row['subject_id']}"]
        by_name = study.tracing.signal[[LEADS.index(name) for name in record.sig_name]]
        np.testing.assert_allclose(record.p_signal.T, by_name, atol=0.5 / 200 + 1e-6)
        digital = wfdb.rdrecord(str(mimic_root / row["path"]), physical=False)
        assert digital.checksum == digital.calc_checksum()
        assert digital.init_value == digital.d_signal[0].tolist()


def test_mimic_header_text(mimic_root: Path) -> None:
    row = pd.read_csv(mimic_root / "record_list.csv", dtype=str).iloc[0]
    lines = (mimic_root / f"{row['path']}.hea").read_text().splitlines()
    date, time = row["ecg_time"].split()
    assert lines[0] == f"{row['study_id']} 12 500 5000 {time} {'/'.join(reversed(date.split('-')))}"
    assert lines[1].startswith(f"{row['study_id']}.dat 16 200.0(0)/mV 16 0 ")
    assert lines[1].endswith(" 0 I")
    assert lines[13:] == [f"# <subject_id>: {row['subject_id']}"]


def test_mimic_measurements_are_those_of_the_studies(mimic_root: Path) -> None:
    table = pd.read_csv(mimic_root / "machine_measurements.csv").set_index("study_id")
    for study in studies_of(mimic.STREAM, 0.5, 60.0):
        row, true = table.loc[mimic.study_id(study.patient_index, study.study_index)], study.tracing.measurements
        assert row["rr_interval"] == round(true.rr)
        assert row["qrs_end"] - row["qrs_onset"] == pytest.approx(true.qrs, abs=1)
        assert row["t_end"] - row["qrs_onset"] == pytest.approx(true.qt, abs=1)
        assert row["qrs_axis"] == round(true.qrs_axis)
        if true.pr is None:
            assert row["p_onset"] == row["p_end"] == row["p_axis"] == 29999
        else:
            assert row["qrs_onset"] - row["p_onset"] == pytest.approx(true.pr, abs=1)
            assert row["p_onset"] < row["p_end"] <= row["qrs_onset"]


def test_mimic_opens_as_a_data_set(mimic_root: Path) -> None:
    data = open_dataset("mimic-iv-ecg", mimic_root)
    assert len(data.examples) == N
    assert len(data.rejects) == 0
    assert data.examples["report"].nunique() > N // 4
    ecg = read_ecg(mimic_root / data.examples["file"].iloc[0])
    assert ecg.fs == 500
    assert ecg.missing_leads == ()


# --- PTB-XL -----------------------------------------------------------------------------------------------


def test_ptbxl_tables_have_the_published_columns(ptbxl_root: Path, shared: Path) -> None:
    assert header(ptbxl_root / "ptbxl_database.csv") == header(shared / "text/ptbxl_database_union.csv")
    ours, published = (
        pd.read_csv(p, index_col=0) for p in (ptbxl_root / "scp_statements.csv", shared / "text/scp_statements.csv")
    )
    pd.testing.assert_frame_equal(ours, published)


def test_ptbxl_tree(ptbxl_root: Path) -> None:
    table = pd.read_csv(ptbxl_root / "ptbxl_database.csv")
    assert table["ecg_id"].tolist() == list(range(1, N + 1))
    assert table["filename_hr"].iloc[0] == "records500/00000/00001_hr"
    assert table["filename_lr"].iloc[-1] == f"records100/00000/{N:05d}_lr"
    for name in [*table["filename_hr"], *table["filename_lr"]]:
        assert (ptbxl_root / f"{name}.dat").is_file()
    lines = (ptbxl_root / "records500/00000/00001_hr.hea").read_text().splitlines()
    assert lines[0] == "00001_hr 12 500 5000"
    assert [line.split()[-1] for line in lines[1:]] == [
        "I",
        "II",
        "III",
        "AVR",
        "AVL",
        "AVF",
        "V1",
        "V2",
        "V3",
        "V4",
        "V5",
        "V6",
    ]
    assert lines[4].startswith("00001_hr.dat 16 1000.0(0)/mV 16 0 ")


def test_ptbxl_records_hold_the_generated_signal_at_both_rates(ptbxl_root: Path) -> None:
    for number, study in enumerate(studies_of(ptbxl.STREAM, 0.2, 50.0)[:6], start=1):
        high = wfdb.rdrecord(str(ptbxl_root / f"records500/00000/{number:05d}_hr"))
        np.testing.assert_allclose(high.p_signal.T, study.tracing.signal, atol=0.5 / 1000 + 1e-5)
        low = wfdb.rdrecord(str(ptbxl_root / f"records100/00000/{number:05d}_lr"), physical=False)
        assert low.fs == 100
        assert low.checksum == low.calc_checksum()
        expected = resample_poly(high.p_signal * 1000, 1, 5, axis=0)
        # The ends differ: SciPy takes the signal to be 0 outside, the layout takes it to stay where it is.
        np.testing.assert_allclose(low.d_signal[12:-12], expected[12:-12], atol=0.6)
        assert np.abs(low.d_signal).max() < 1.2 * np.abs(high.p_signal).max() * 1000


def test_ptbxl_rows_describe_their_studies(ptbxl_root: Path) -> None:
    table = pd.read_csv(ptbxl_root / "ptbxl_database.csv")
    for row, study in zip(table.itertuples(), studies_of(ptbxl.STREAM, 0.2, 50.0), strict=True):
        codes = ast.literal_eval(row.scp_codes)
        assert set(study.tracing.findings) - WITHOUT_STATEMENT <= set(codes)
        assert all(0 <= likelihood <= 100 for likelihood in codes.values())
        assert row.patient_id == ptbxl.patient_id(study.patient_index)
        assert row.sex == (study.patient.sex == "female")
        assert row.age == study.patient.age
        assert row.strat_fold == study.fold
        assert (row.pacemaker == "ja, pacemaker") == ("PACE" in codes)


def test_ptbxl_opens_as_a_data_set(ptbxl_root: Path) -> None:
    data = open_dataset("ptb-xl", ptbxl_root)
    assert len(data.examples) == N
    assert len(data.rejects) == 0
    assert {"ptbxl-super", "ptbxl-sub", "ptbxl-form", "ptbxl-rhythm"} <= set(data.tasks)
    assert set(data.examples["split"]) == {"train", "val", "test"}


# --- who is drawn -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def population() -> dict[str, list[tuple[int, int, str, tuple[str, ...]]]]:
    """(patient, fold, main finding, findings) of 800 studies of each layout."""
    layouts = {"mimic-iv-ecg": (mimic.STREAM, 0.5), "ptb-xl": (ptbxl.STREAM, 0.2)}
    return {
        name: [
            (s.patient_index, s.fold, s.main_finding, s.tracing.findings)
            for s in draw_studies(0, stream, 800, more=more, mains_hz=50.0)
        ]
        for name, (stream, more) in layouts.items()
    }


@pytest.mark.parametrize("layout", ["mimic-iv-ecg", "ptb-xl"])
def test_enough_positives_of_most_findings(layout: str, population: dict) -> None:
    counts = Counter(code for *_, findings in population[layout] for code in findings)
    assert set(counts) == set(FINDINGS)
    assert sum(count >= 12 for count in counts.values()) >= 20
    assert min(counts.values()) >= 3
    assert 0.12 < counts["NORM"] / 800 < 0.35
    # Exactly one rhythm each.
    rhythms = [code for code, finding in FINDINGS.items() if finding.group == "rhythm"]
    assert all(sum(code in rhythms for code in findings) == 1 for *_, findings in population[layout])


def test_several_studies_of_a_patient_share_findings(population: dict) -> None:
    rows = population["mimic-iv-ecg"]
    patients = Counter(patient for patient, *_ in rows)
    assert 1.7 < 800 / len(patients) < 2.3
    assert max(patients.values()) <= 8
    assert 800 / len({patient for patient, *_ in population["ptb-xl"]}) < 1.5
    alike: dict[bool, list[float]] = {True: [], False: []}
    for (first, *_, a), (second, *_, b) in pairwise(rows):
        alike[first == second].append(len(set(a) & set(b)) / len(set(a) | set(b)))
    assert np.mean(alike[True]) > np.mean(alike[False]) + 0.3


def test_folds_keep_patients_together_and_are_balanced(population: dict) -> None:
    rows = population["ptb-xl"]
    by_patient: dict[int, set[int]] = {}
    for patient, fold, *_ in rows:
        by_patient.setdefault(patient, set()).add(fold)
    assert all(len(folds) == 1 for folds in by_patient.values())
    sizes = Counter(fold for folds in by_patient.values() for fold in folds)
    assert set(sizes) == set(range(1, 11))
    assert max(sizes.values()) < 1.5 * min(sizes.values())
    # Every main finding with at least ten patients is in every fold.
    counts = Counter(code for code in {(p, t): t for p, _, t, _ in rows}.values())
    for code, count in counts.items():
        if count >= 20:
            assert {fold for _, fold, t, _ in rows if t == code} == set(range(1, 11))


# --- determinism, all or nothing --------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_seed_same_bytes_and_other_seed_other_signals(layout: str, tmp_path: Path) -> None:
    for name, seed in (("a", 9), ("b", 9), ("c", 10)):
        simulate(layout, 12, tmp_path / name, seed=seed)
    first, second, other = (fingerprints(tmp_path / name) for name in "abc")
    assert first == second
    signals = {v for k, v in first.items() if k.endswith((".dat", ".mat"))}
    assert len(signals) >= 12
    assert not signals & set(other.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_record_does_not_depend_on_how_many_follow(layout: str, tmp_path: Path) -> None:
    simulate(layout, 9, tmp_path / "few", seed=2)
    simulate(layout, 17, tmp_path / "more", seed=2)
    few, more = fingerprints(tmp_path / "few"), fingerprints(tmp_path / "more")
    records = {k: v for k, v in few.items() if k.endswith((".dat", ".hea", ".mat"))}
    assert len(records) >= (9 if layout == "cpsc2018" else 18)
    assert records.items() <= more.items()
    table = {
        "mimic-iv-ecg": "machine_measurements.csv", "ptb-xl": "ptbxl_database.csv", "cpsc2018": "REFERENCE.csv",
        "csn": "ConditionNames_SNOMED-CT.csv",
    }[layout]  # fmt: skip
    lines = [(tmp_path / name / table).read_text(encoding="utf-8").splitlines() for name in ("few", "more")]
    assert set(lines[0]) <= set(lines[1])


def test_layouts_share_no_patient(mimic_root: Path, ptbxl_root: Path) -> None:
    ids = set(pd.read_csv(mimic_root / "record_list.csv")["subject_id"])
    assert not ids & set(pd.read_csv(ptbxl_root / "ptbxl_database.csv")["patient_id"].astype(int))
    one, two = studies_of(mimic.STREAM, 0.5, 60.0, 20), studies_of(ptbxl.STREAM, 0.5, 60.0, 20)
    axes = {s.patient.seed for s in one}
    assert not axes & {s.patient.seed for s in two}


def test_ids_stay_unique_and_in_range() -> None:
    subjects = {mimic.subject_id(i) for i in range(50_000)}
    studies = {mimic.study_id(i, k) for i in range(20_000) for k in range(8)}
    assert len(subjects) == 50_000
    assert len(studies) == 160_000
    assert all(10_000_000 <= s < 20_000_000 for s in subjects)
    assert len({mimic.subject_id(i) // 10_000 for i in range(2000)}) > 500  # spread over the folders


def test_summary_and_progress(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    class Record(Progress):
        def update(self, done: int, total: int) -> None:
            calls.append((done, total))

    summary = simulate("ptb-xl", 7, tmp_path / "x", progress=Record())
    assert calls == [(i, 7) for i in range(1, 8)]
    assert summary.records == 7
    assert 1 <= summary.patients <= 7
    table = pd.read_csv(tmp_path / "x/ptbxl_database.csv")
    assert summary.patients == table["patient_id"].nunique()
    counted = Counter(code for codes in table["scp_codes"] for code in ast.literal_eval(codes) if code in FINDINGS)
    assert all(counted[code] >= count for code, count in summary.findings.items() if code not in WITHOUT_STATEMENT)
    assert "7 simulated records" in summary.text()


@pytest.mark.parametrize(
    ("layout", "records", "seed", "message"),
    [
        ("sph", 5, 0, "mimic-iv-ecg, ptb-xl, cpsc2018, csn"),
        ("cpsc2018", 10_000, 0, "9,999"),
        ("ptb-xl", 0, 0, "records"),
        ("ptb-xl", 100_000, 0, "99,999"),
        ("ptb-xl", 5, -1, "seed"),
    ],
)
def test_bad_requests(layout: str, records: int, seed: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(DeriError, match=message):
        simulate(layout, records, tmp_path / "x", seed=seed)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/keep.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(DeriError, match="not an empty folder"):
            simulate("ptb-xl", 2, tmp_path / name)
    assert (tmp_path / "full/keep.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    simulate("ptb-xl", 2, tmp_path / "empty")
    assert (tmp_path / "empty/ptbxl_database.csv").is_file()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeriError, match="cannot write"):
        simulate("ptb-xl", 2, tmp_path / "file" / "below")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    class Interrupt(Progress):
        def update(self, done: int, total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate("mimic-iv-ecg", 5, tmp_path / "x", progress=Interrupt())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_finished_looking_layout(tmp_path: Path) -> None:
    out = tmp_path / "x"

    def kill(done: int, total: int) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    process = forked.fork(partial(simulate, "ptb-xl", 9, out, progress=Told(kill)))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    assert not list(tmp_path.rglob("ptbxl_database.csv"))
    simulate("ptb-xl", 9, out)
    assert len(pd.read_csv(out / "ptbxl_database.csv")) == 9
