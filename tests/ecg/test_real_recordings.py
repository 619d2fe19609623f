"""Every real recording with a header is read right, or refused with a true reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import wfdb

from deri.ecg import ECG, LEADS, canonical_lead, read_ecg, standardise
from deri.errors import ReadError

# Records whose header states a gain that contradicts its samples, see docs/ecg.md.
FALSE_GAINS = {"E00018", "E00793", "HR00599", "HR20715"}


def headers(ecg_real: Path) -> list[Path]:
    found = sorted(path for path in ecg_real.rglob("*.hea") if "wfdb-broken-header" not in path.parts)
    assert len(found) > 270
    return found


def test_all_headed_recordings(ecg_real: Path) -> None:
    """Values against the checksums and initial values of the headers, an expectation that needs no other reader."""
    corrected = set()
    for path in headers(ecg_real):
        ecg = read_ecg(path)
        assert "checksum_mismatch" not in ecg.metadata["warnings"], path
        assert ecg.missing_leads == ()
        assert ecg.metadata["derived_leads"] == {}
        lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert (ecg.fs, ecg.n_samples) == (float(lines[0][2]), int(lines[0][3]))
        if "gain_corrected" in ecg.metadata["warnings"]:
            corrected.add(path.stem)
        for line in lines[1:]:
            row = ecg.signal[LEADS.index(canonical_lead(line[8]))].astype(np.float64)
            gain, _, rest = line[2].partition("/")[0].partition("(")
            gain = 1000.0 if path.stem in FALSE_GAINS else float(gain)
            counts = np.rint(row * gain + float(rest.strip(")") or 0)).astype(np.int64)
            assert counts[0] == int(line[5]), path
            assert (int(counts.sum()) - int(line[6])) % 65536 == 0, path
    assert corrected == FALSE_GAINS


@pytest.mark.slow
def test_all_headed_recordings_equal_wfdb(ecg_real: Path) -> None:
    compared = 0
    for path in headers(ecg_real):
        try:
            record = wfdb.rdrecord(str(path.with_suffix("")))
        except ValueError:
            assert path.stem.startswith("E0")  # record names with .mat
            continue
        if path.stem in FALSE_GAINS:
            record.p_signal *= record.adc_gain[0] / 1000
        order = [[canonical_lead(name) for name in record.sig_name].index(lead) for lead in LEADS]
        np.testing.assert_allclose(
            read_ecg(path).signal, record.p_signal.T[order].astype(np.float32), rtol=1e-6, err_msg=str(path)
        )
        compared += 1
    assert compared > 260


def test_all_headed_recordings_standardise_to_plausible_amplitudes(ecg_real: Path) -> None:
    spans: dict[str, list[float]] = {}
    for path in headers(ecg_real):
        ecg = read_ecg(path)
        done = standardise(ecg)
        assert done.signal.shape == (12, 5000)
        assert done.valid_samples == min(5000, round(ecg.n_samples * 500 / ecg.fs))
        spans.setdefault(path.parent.name, []).append(float(np.median(np.ptp(done.signal, axis=1))))
    assert min(map(min, spans.values())) > 0.3
    for source, values in spans.items():
        assert 0.8 < np.median(values) < 4, source


def test_index_agrees_with_the_files(ecg_real: Path) -> None:
    with open(ecg_real / "index.csv", newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    headed = [row for row in rows if row["has_header"] == "True"]
    assert len(headed) > 270
    for row in headed:
        ecg = read_ecg(ecg_real / row["file"])
        assert (ecg.fs, ecg.n_samples) == (float(row["fs"]), int(float(row["samples"]))), row["file"]
    others = [row for row in rows if row["has_header"] != "True"]
    assert {Path(row["file"]).suffix for row in others} == {".mat", ".h5"}
    for row in others:
        ecg = read_ecg(ecg_real / row["file"])
        assert (ecg.fs, ecg.n_samples) == (float(row["fs"]), int(float(row["samples"]))), row["file"]


def test_broken_headers(ecg_real: Path) -> None:
    folder = ecg_real / "formats" / "wfdb-broken-header"
    early, later = read_ecg(folder / "E00001"), read_ecg(ecg_real / "georgia" / "E00001")
    assert np.array_equal(early.signal, later.signal)  # one signal under two headers: 4880/mV and 1000/mV
    assert "gain_corrected" in early.metadata["warnings"]
    assert "gain_corrected" not in later.metadata["warnings"]
    assert early.metadata["dx"] == ()
    with pytest.raises(ReadError, match=r"S0001\.mat is missing; besides, the header states 2e\+06/mV"):
        read_ecg(folder / "S0001")


def test_early_ptb_header_over_real_samples(ecg_real: Path, tmp_path: Path) -> None:
    """The 2000000/mV generation, for which only a header exists here: its text on a PTB signal file."""
    later = ecg_real / "ptb" / "S0002.hea"
    (tmp_path / "S0002.hea").write_text(later.read_text().replace("1000/mv", "2000000/mV"))
    (tmp_path / "S0002.mat").write_bytes(later.with_suffix(".mat").read_bytes())
    ecg = read_ecg(tmp_path / "S0002")
    assert np.array_equal(ecg.signal, read_ecg(later).signal)
    assert "2e+06/mV" in ecg.metadata["warnings"]["gain_corrected"]


def test_ludb_gains_are_flagged_and_made_one_by_standardising(ecg_real: Path) -> None:
    done = standardise(read_ecg(ecg_real / "ludb" / "1"))
    assert {"inconsistent_gains", "common_gain"} <= set(done.flags)
    digital = np.fromfile(ecg_real / "ludb" / "1.dat", "<i2").reshape(-1, 12)[:5000].T
    baseline = [
        int(line.split("(")[1].split(")")[0]) for line in (ecg_real / "ludb" / "1.hea").read_text().splitlines()[1:13]
    ]
    np.testing.assert_allclose(done.signal, (digital - np.array(baseline)[:, None]) / 1000, atol=2e-5)
    assert "Rhythm: Sinus bradycardia." in read_ecg(ecg_real / "ludb" / "1").metadata["dx"]


def test_every_ludb_recording_obeys_einthoven_once_standardised(ecg_real: Path) -> None:
    for path in sorted((ecg_real / "ludb").glob("*.hea")):
        signal = standardise(read_ecg(path)).signal
        signal = signal - signal.mean(axis=1, keepdims=True)
        assert np.abs(signal[0] + signal[2] - signal[1]).max() < 0.01, path.name
        assert np.abs(signal[3:6].sum(axis=0)).max() < 0.02, path.name


def test_twins_at_100_and_500_hertz_agree(ecg_real: Path) -> None:
    correlations = []
    for path in sorted((ecg_real / "ptbxl").glob("*_lr.hea")):
        low = standardise(read_ecg(path)).signal
        high: ECG = read_ecg(str(path).replace("_lr", "_hr"))
        correlations += [np.corrcoef(low[i], high.signal[i])[0, 1] for i in range(12)]
    assert np.median(correlations) > 0.98
