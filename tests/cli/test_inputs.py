"""INPUT of classify and embed: files, a folder with a CSV, a store; bad files are passed over."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deri.cli.inputs import EmbedFiles, Files, Loaded, Reading, Recordings
from deri.datasets import open_dataset
from deri.ecg import ECG, read_ecg
from deri.ecg.read import lead_names
from deri.errors import DeriError, ReadError, install
from deri.models import load_model
from deri.progress import Progress
from deri.simulate import simulate
from deri.store import Store
from deri.store.plan import make_plan
from deri.workers import HERE
from deri.workers.pool import Pool
from support import tiny
from support.command import run

QUESTION = ("--labels", "sinus rhythm", "--labels", "atrial fibrillation")


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "model"
    tiny.model("model.signal.fs=100", "model.signal.samples=1000").save_pretrained(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four arrays of 10 s at 500 Hz with a CSV; the third is a text, the fourth is missing."""
    root = tmp_path / "folder"
    simulate("mimic-iv-ecg", 2, tmp_path / "made", seed=3)
    root.mkdir()
    rows = []
    for i, header in enumerate(sorted((tmp_path / "made").rglob("*.hea"))):
        for suffix in (".hea", ".dat"):
            (root / (header.stem + suffix)).write_bytes(header.with_suffix(suffix).read_bytes())
        rows.append((f"{header.stem}.hea", f"p{i}", ("train", "test")[i], ("AFIB;LVH", "SR")[i]))
    (root / "broken.hea").write_text("broken 12 500 5000\n")
    rows += [("broken.hea", "p2", "test", "SR"), ("gone.hea", "p3", "test", "SR")]
    pd.DataFrame(rows, columns=["file", "subject", "split", "labels"]).to_csv(root / "index.csv", index=False)
    return root


def test_a_folder_with_bad_files(
    folder: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.csv"
    assert run("classify", folder, "--model", model_dir, *QUESTION, "--out", out) == 0
    told = capsys.readouterr().err
    assert "2 of 4 recordings could not be used" in told
    assert "broken.hea" in told
    assert "gone" in told
    table = pd.read_csv(out)
    assert table["subject"].tolist() == ["p0", "p1"]
    assert table["split"].tolist() == ["train", "test"]
    assert table["labels"].tolist() == ["AFIB;LVH", "SR"]
    model = load_model(model_dir)
    expected = model.classify([read_ecg(file) for file in table["file"]], list(QUESTION[1::2]))
    np.testing.assert_allclose(table[list(QUESTION[1::2])], expected, atol=1e-5)
    assert run("classify", folder, "--model", model_dir, *QUESTION, "--strict") == 2
    assert "broken" in capsys.readouterr().err


def test_a_store_and_a_folder_embed_alike(folder: Path, model_dir: Path, tmp_path: Path) -> None:
    assert run("prepare", "folder", folder, "--out", tmp_path / "s") == 0
    for source, name in ((folder, "f"), (tmp_path / "s", "s")):
        assert run("embed", source, "--model", model_dir, "--out", tmp_path / f"{name}.parquet") == 0
    a, b = (pd.read_parquet(tmp_path / f"{name}.parquet").sort_values("subject") for name in "fs")
    assert a["subject"].tolist() == b["subject"].tolist() == ["p0", "p1"]
    assert [list(x) for x in a["labels"]] == [list(x) for x in b["labels"]] == [["AFIB", "LVH"], ["SR"]]
    np.testing.assert_allclose(np.stack(a["embedding"]), np.stack(b["embedding"]), atol=1e-3)
    assert run("embed", folder, "--model", model_dir, "--out", tmp_path / "f.csv") == 0
    flat = pd.read_csv(tmp_path / "f.csv")
    np.testing.assert_allclose(
        flat[[f"e{i}" for i in range(32)]], np.stack(pd.read_parquet(tmp_path / "f.parquet")["embedding"]), atol=1e-6
    )


def test_excel_holds_what_csv_does(folder: Path, model_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    for command in (("classify", *QUESTION), ("embed",)):
        for suffix in ("csv", "xlsx"):
            assert run(*command, folder, "--model", model_dir, "--out", tmp_path / f"x.{suffix}") == 0
        written, expected = pd.read_excel(tmp_path / "x.xlsx"), pd.read_csv(tmp_path / "x.csv")
        assert written["labels"].tolist() == ["AFIB;LVH", "SR"]
        pd.testing.assert_frame_equal(written, expected, check_dtype=False, atol=1e-6)


def test_labels_called_like_columns_and_labels_twice(
    folder: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = next(folder.glob("[0-9]*.hea"))
    ask = ["classify", header, "--model", model_dir, "--json"]
    capsys.readouterr()
    assert run(*ask, "--labels", "file", "--labels", "a", "--labels", "a") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["file"] == str(header)
    assert {"score: file", "a"} <= set(row)
    assert all(-1 <= row[name] <= 1 for name in ("score: file", "a"))
    assert run(*ask, "--labels", "file", "--labels", " ") == 2
    assert "empty" in capsys.readouterr().err


def test_what_a_file_does_not_say_is_given(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.normal(0, 300, (12, 2500)).astype(np.float32))
    ask = ["classify", tmp_path / "x.npy", "--model", model_dir, *QUESTION]
    assert run(*ask) == 2
    assert "passed over" not in capsys.readouterr().err  # of one file its own error is enough
    assert run(*ask, "--fs", 250, "--units", "uV") == 0
    assert lead_names("MLII=II, ecg=I") == {"MLII": "II", "ecg": "I"}
    for bad in ("MLII", "=II", "a=b=c", ""):
        with pytest.raises(DeriError, match="--leads"):
            lead_names(bad)


def test_options_of_a_batch_are_for_files_that_do_not_say_it(
    folder: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """WFDB headers state 500 Hz and their gain; the arrays beside them need both."""
    (folder / "index.csv").unlink()
    headers = sorted(folder.glob("[0-9]*.hea"))
    signals = [read_ecg(header).signal for header in headers]
    np.save(folder / "z.npy", np.stack([np.rint(signal[:, ::2] * 200) for signal in signals]).astype(np.int16))
    asked = ("--fs", 250, "--gain", 200)
    names = [*(str(header) for header in headers), f"{folder}/z.npy::0", f"{folder}/z.npy::1"]

    assert run("embed", folder, "--model", model_dir, *asked, "--out", tmp_path / "e.parquet") == 0
    told = capsys.readouterr().err
    assert "--fs, --gain: for files that do not say it" in told
    assert "1 of 5 recordings could not be used" in told
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert table["file"].tolist() == names
    expected = load_model(model_dir).encode_ecg(
        [ECG(signal, 500) for signal in signals] + [ECG(np.rint(signal[:, ::2] * 200) / 200, 250) for signal in signals]
    )
    np.testing.assert_allclose(np.stack(table["embedding"]), expected, atol=1e-5)

    assert run("prepare", "folder", folder, "--out", tmp_path / "s", *asked) == 0
    store = Store.open(tmp_path / "s")
    assert [f"{folder}/{file}" for file in store.index["file"]] == names
    assert store.index["fs"].tolist() == [500, 500, 250, 250]
    np.testing.assert_allclose(store.signals([0])[0], signals[0], atol=1e-3)
    np.testing.assert_allclose(store.signals([2])[0][:, ::2], np.rint(signals[0][:, ::2] * 200) / 200, atol=0.05)
    capsys.readouterr()
    assert run("prepare", "folder", folder, "--out", tmp_path / "s", "--fs", 250, "--gain", 100) == 2
    assert "another preparation (--fs, --units, --gain or --leads" in capsys.readouterr().err
    assert run("prepare", "folder", folder, "--out", tmp_path / "s") == 2
    assert run("prepare", "folder", folder, "--out", tmp_path / "t", "--units", "mm") == 2
    assert "(--units) is no voltage" in capsys.readouterr().err
    assert run("prepare", "ptb-xl", folder, "--out", tmp_path / "t", "--fs", 250) == 2
    assert "--fs: ptb-xl has its own tables and files" in capsys.readouterr().err


def test_names_of_leads_are_mapped_in_prepare(folder: Path, tmp_path: Path) -> None:
    assert run("prepare", "folder", folder, "--out", tmp_path / "plain") == 0
    for header in folder.glob("[0-9]*.hea"):
        header.write_text(re.sub(r" II$", " MLII", header.read_text(), flags=re.MULTILINE))
    assert run("prepare", "folder", folder, "--out", tmp_path / "mapped", "--leads", "MLII=II") == 0
    assert run("prepare", "folder", folder, "--out", tmp_path / "without") == 0
    plain, mapped, without = (Store.open(tmp_path / name) for name in ("plain", "mapped", "without"))
    np.testing.assert_array_equal(mapped.signals([0, 1]), plain.signals([0, 1]))
    assert mapped.lead_mask([0, 1]).all()
    assert "derived_lead:II" not in str(mapped.index["quality"].tolist())
    assert "derived_lead:II" in str(without.index["quality"].tolist())


def test_a_store_without_reading_options_has_the_plan_that_it_always_had(folder: Path) -> None:
    plan = make_plan(open_dataset("folder", folder), split="patient", seed=0, repair="lead")
    assert "reading" not in plan
    given = make_plan(open_dataset("folder", folder, reading={"fs": 500}), split="patient", seed=0, repair="lead")
    assert given == {**plan, "reading": {"fs": 500}}


def test_a_single_batch_is_many_recordings(model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).normal(0, 0.3, (3, 4096, 12)).astype(np.float32)
    values[1] = 0
    path = tmp_path / "exams_part3.hdf5"
    with h5py.File(path, "w") as file:
        file["tracings"], file["exam_id"] = values, [77, 88, 99]
    ask = ("classify", path, "--model", model_dir, *QUESTION, "--fs", 400, "--units", "mV")
    assert run(*ask, "--out", tmp_path / "x.csv") == 0
    assert f"passed over: {path}::88: every lead" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "x.csv")
    assert table["record_id"].tolist() == ["exams_part3::77", "exams_part3::99"]
    assert table["file"].tolist() == [f"{path}::77", f"{path}::99"]
    scores = load_model(model_dir).classify([ECG(values[i].T, 400) for i in (0, 2)], list(QUESTION[1::2]))
    np.testing.assert_allclose(table[list(QUESTION[1::2])], scores, atol=1e-5)
    assert run(*ask, "--strict") == 2


def test_nothing_usable_is_an_error(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "a.hea", tmp_path / "b.hea"]
    assert run("classify", *files, "--model", model_dir, *QUESTION) == 2
    told = capsys.readouterr().err
    assert all(str(file) in told for file in files)
    assert "no recording could be used" in told
    assert run("embed", *files, "--model", model_dir, "--out", tmp_path / "x.txt") == 2
    assert ".parquet" in capsys.readouterr().err
    monkeypatch.setattr("deri.cli.inputs.find_spec", lambda name: None)
    assert run("classify", *files, "--model", model_dir, *QUESTION, "--out", tmp_path / "x.xlsx") == 2
    assert install("formats") in capsys.readouterr().err


def test_a_file_that_killed_its_workers_is_passed_over_or_ends_a_strict_reading(folder: Path) -> None:
    class Heard(Progress):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def message(self, text: str) -> None:
            self.lines.append(text)

    rows = [{"file": str(file)} for file in sorted(folder.glob("[0-9]*.hea"))]
    heard, task = Heard(), EmbedFiles(Files(rows, Reading({})), Loaded(load_model, "none", None), None)
    recordings = Recordings(task.without(0, "killed").files, heard)
    assert [ecg.metadata["source_file"] for ecg in recordings] == [rows[1]["file"]]
    assert recordings.failed == 1
    assert heard.lines == [f"passed over: {rows[0]['file']}: killed"]
    with pytest.raises(ReadError, match=f"{rows[0]['file']}: killed"):
        list(Recordings(Files(rows, Reading({}, strict=True), refused={0: "killed"}), heard))


def test_a_model_is_loaded_once_here_and_once_in_a_worker() -> None:
    calls: list[str] = []

    def load(name: str, *, device: str | None) -> list[str]:
        calls.append(f"{name} on {device}")
        return [name]

    model = Loaded(load, "m", "cuda")
    assert model() is model()
    assert model.beside(HERE) is model()
    assert calls == ["m on cuda"]
    with Pool([], "cpu") as cluster:
        assert model.beside(cluster) == ["m"]
    assert calls == ["m on cuda", "m on cpu"]
    again, given = model.__reduce__()
    assert again(*given)() is again(*given)()
    assert calls == ["m on cuda", "m on cpu", "m on cuda"]
