"""`deri index` and `deri search`: files, folders and stores, run again after changes, killed, and asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deri.cli import index as command
from deri.ecg import read_ecg
from deri.errors import ReadError
from deri.evaluation.features import embed_store
from deri.evaluation.search import Index
from deri.models import load_model
from deri.store import Store
from support import tiny
from support.command import run

SAYS = ("--fs", 100, "--units", "mV")  # what the arrays of these tests do not say


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m") / "model"
    tiny.model("model.signal.fs=100", "model.signal.samples=1000").save_pretrained(path)
    return path


def write(folder: Path, number: int, seed: int | None = None) -> Path:
    """A recording of 10 s at 100 Hz, in mV."""
    folder.mkdir(exist_ok=True)
    signal = np.random.default_rng(number if seed is None else seed).normal(0, 0.3, (12, 1000))
    np.save(folder / f"r{number:03d}.npy", signal.astype(np.float32))
    return folder / f"r{number:03d}.npy"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six recordings with a CSV; the last is no recording."""
    root = tmp_path / "folder"
    files = [write(root, i).name for i in range(6)]
    (root / files[5]).write_text("no array")
    rows = {
        "file": files, "subject": list("aabbcc"), "labels": ["AFIB;LVH", "SR", "", "SR", "AFIB", ""],
        "age": [50, 61, "", 70, 80, 90], "sex": ["f", "m", "", "m", "f", "f"],
        "report": [f"text {i}" for i in range(6)],
    }  # fmt: skip
    pd.DataFrame(rows).to_csv(root / "index.csv", index=False)
    return root


@pytest.fixture
def index(folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run("index", "--model", model, folder, *SAYS, "--out", tmp_path / "index") == 0
    told = capsys.readouterr()
    assert "r005.npy" in told.err
    assert "5 recordings (5 added, 0 changed, 0 unchanged, 0 dropped)" in told.out
    return tmp_path / "index"


def content(path: Path, query: np.ndarray | None = None) -> pd.DataFrame:
    query = np.ones(32) if query is None else query
    return Index.open(path).search(query, top=10_000).set_index("file").sort_index()


def test_a_folder_is_indexed_and_asked(
    folder: Path, model: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_model(model)
    files = [str(folder / f"r{i:03d}.npy") for i in range(5)]
    ecgs = [read_ecg(file, fs=100, units="mV") for file in files]
    scores = loaded.classify(ecgs, ["atrial fibrillation"])["atrial fibrillation"].to_numpy()

    assert run("search", "atrial fibrillation", "--index", index, "--top", 3, "--json") == 0
    told = capsys.readouterr()
    assert 'query: text "atrial fibrillation"' in told.err
    found = json.loads(told.out)
    order = np.argsort(-scores)[:3]
    assert [row["file"] for row in found] == [files[i] for i in order]
    assert [row["rank"] for row in found] == [1, 2, 3]
    np.testing.assert_allclose([row["score"] for row in found], scores[order], atol=1e-5)

    assert run("search", files[2], "--index", index, *SAYS, "--out", tmp_path / "found.csv") == 0
    table = pd.read_csv(tmp_path / "found.csv").set_index("file")
    assert table.index[0] == files[2]
    np.testing.assert_allclose(table["score"], (loaded.encode_ecg(ecgs) @ loaded.encode_ecg([ecgs[2]])[0])[
        [files.index(file) for file in table.index]], atol=1e-5)  # fmt: skip
    first = table.loc[files[0]]
    assert (first["subject"], first["labels"], first["age"], first["sex"]) == ("a", "AFIB;LVH", 50, "female")
    assert first["report"] == "text 0"

    asked = ("search", "AFIB", files[2], "--index", index, *SAYS)
    assert run(*asked, "--where", 'age > 55 and "SR" in labels') == 0
    told = capsys.readouterr()
    assert f'query: text "AFIB" + ECG {files[2]}' in told.err
    assert sorted(re.findall(r"r\d+\.npy", told.out)) == ["r001.npy", "r003.npy"]
    assert run(*asked, "--where", "age > 99", "--json") == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == []
    assert "none of 5 recordings fits" in told.err
    assert run(*asked, "--where", "age > 99") == 0
    assert capsys.readouterr().out == ""
    assert run(*asked, "--where", "age > 99", "--out", tmp_path / "none.csv") == 0
    assert list(pd.read_csv(tmp_path / "none.csv").columns[:3]) == ["rank", "score", "file"]


def test_a_second_run_embeds_what_is_new_or_changed(
    folder: Path, index: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(*more: object) -> str:
        capsys.readouterr()
        monkeypatch.chdir(folder.parent)
        assert run("index", folder.name, *SAYS, "--out", index, *more) == 0  # the model is that of the index
        return capsys.readouterr().out

    before = content(index)
    assert "5 recordings (0 added, 0 changed, 5 unchanged, 0 dropped)" in again()
    write(folder, 1, seed=77)
    write(folder, 5)
    (folder / "r002.npy").unlink()
    (folder / "r003.npy").write_text("no array any more")
    csv = folder / "index.csv"
    csv.write_text(csv.read_text().replace("text 4", "another text"))
    monkeypatch.setattr(command, "PART", 2)
    # What the index held of r002 and r003 is true no more: the CSV names them, and they cannot be used.
    assert "4 recordings (1 added, 2 changed, 1 unchanged, 2 dropped)" in again()
    after = content(index)
    names = [Path(file).name for file in after.index]
    assert names == ["r000.npy", "r001.npy", "r004.npy", "r005.npy"]
    file = {name: str(folder / name) for name in names}
    assert after["score"][file["r001.npy"]] != pytest.approx(before["score"][file["r001.npy"]], abs=1e-4)
    assert after["score"][file["r004.npy"]] == pytest.approx(before["score"][file["r004.npy"]], abs=1e-6)
    assert after["report"][file["r004.npy"]] == "another text"


def test_prune_drops_what_is_gone_and_nothing_else(
    folder: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write(tmp_path / "other", 9)
    assert run("index", other, *SAYS, "--out", index) == 0
    (folder / "index.csv").unlink()
    (folder / "r000.npy").unlink()
    (folder / "r005.npy").unlink()
    capsys.readouterr()
    assert run("index", folder, *SAYS, "--out", index) == 0
    assert "6 recordings (0 added, 4 changed, 0 unchanged, 0 dropped)" in capsys.readouterr().out
    assert run("index", folder, *SAYS, "--out", index, "--prune") == 0
    assert "5 recordings (0 added, 0 changed, 4 unchanged, 1 dropped)" in capsys.readouterr().out
    assert [Path(file).name for file in content(index).index] == [*(f"r00{i}.npy" for i in range(1, 5)), "r009.npy"]


def test_a_store_is_indexed_as_the_folder_it_was_made_of(
    folder: Path,
    model: Path,
    index: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("prepare", "folder", folder, *SAYS, "--out", tmp_path / "store") == 0
    monkeypatch.chdir(tmp_path)
    for store, counts in (
        (tmp_path / "store", "5 added, 0 changed, 0 unchanged"),
        ("store", "0 added, 0 changed, 5 unchanged"),
    ):
        capsys.readouterr()
        assert run("index", "--model", model, store, "--out", tmp_path / "index2") == 0
        assert f"5 recordings ({counts}" in capsys.readouterr().out
    a, b = (content(path).reset_index().set_index("record_id").sort_index() for path in (index, tmp_path / "index2"))
    assert set(b["file"]) == {str(tmp_path / "store")}
    store = Store.open(tmp_path / "store")
    expected = embed_store(load_model(model), store, store.rows()) @ np.ones(32) / np.sqrt(32)
    np.testing.assert_allclose(b["score"], pd.Series(expected, store.index["record_id"])[b.index], atol=1e-5)
    assert a["age"].fillna(0).tolist() == b["age"].fillna(0).tolist() == [50, 61, 0, 70, 80]
    for name in ("subject", "sex", "report"):  # a store ends reports with a full stop
        assert a[name].fillna("").tolist() == b[name].fillna("").str.rstrip(".").tolist(), name
    assert [x if x is None else list(x) for x in a["labels"]] == [x if x is None else list(x) for x in b["labels"]]
    assert run("search", "sinus rhythm", "--index", tmp_path / "index2") == 0
    assert "r004" in capsys.readouterr().out  # its record_id: the file is the store's for all


def test_a_case_is_read_as_it_was_indexed_or_not_at_all(folder: Path, index: Path, tmp_path: Path) -> None:
    found = Index.open(index)
    expected = read_ecg(folder / "r000.npy", fs=100, units="mV")
    np.testing.assert_array_equal(found.recording(0).signal, expected.signal)  # with --fs and --units of deri index
    write(folder, 0, seed=77)
    with pytest.raises(ReadError, match=r"r000\.npy: is gone, or was changed since it was indexed"):
        found.recording(0)


def test_a_case_of_a_merged_store_is_not_another_of_the_same_id(model: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        write(tmp_path / name, 0, seed=seed)
        assert run("prepare", "folder", tmp_path / name, *SAYS, "--out", tmp_path / f"{name}.store") == 0
    stores = [tmp_path / "a.store", tmp_path / "b.store"]
    assert run("merge", *stores, "--out", tmp_path / "ab") == 0
    assert run("index", "--model", model, tmp_path / "ab", "--out", tmp_path / "index") == 0
    found = Index.open(tmp_path / "index")
    signals = [found.recording(i).signal for i in range(2)]
    for signal, store in zip(signals, stores, strict=True):
        np.testing.assert_array_equal(signal, Store.open(store).recording(0).signal)
    assert not np.array_equal(*signals)


def test_what_is_told_before_the_work(
    folder: Path, model: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.model("model.signal.fs=100", "model.signal.samples=1000", seed=1).save_pretrained(tmp_path / "other")
    np.save(tmp_path / "batch.npy", np.zeros((3, 12, 1000), np.float32))
    for arguments, named in (
        (["search", "AFIB", "--index", tmp_path], "is no index"),
        (["search", "AFIB", "--index", index, "--model", tmp_path / "other"], "not the one that made the index"),
        (["index", folder, "--out", index, "--model", tmp_path / "other"], "not the one that made the index"),
        (["index", folder, "--out", index, "--windows", 1], "made with --windows all"),
        (["search", "gone.dcm", "--index", index], "gone.dcm: is no ECG file"),
        (["search", "./gone", "--index", index], "./gone: is no ECG file"),
        (["search", folder, "--index", index], "is no ECG file"),
        (["search", tmp_path / "batch.npy", "--index", index], "holds 3 recordings: name one"),
        (["search", " ", "--index", index], "the query is empty"),
        (["search", "AFIB", "--index", index, "--where", "weight > 3"], "no column weight"),
        (["search", "AFIB", "--index", index, "--out", tmp_path / "x.doc"], "ends in"),
    ):
        capsys.readouterr()
        assert run(*arguments) == 2, arguments
        told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("query: ")]
        assert named in told[0]
        assert len(told) <= 2


KILLS = """
import json, os, random, signal, sys, time
from deri.cli import index, main
from deri.evaluation.search import Index

index.PART = 2
seed, count, place, *arguments = sys.argv[1:]
rng = random.Random(int(seed))

def run(out):
    try:
        main.main([*arguments, "--out", out])
    except SystemExit as stop:
        assert not stop.code

def in_child(out):
    child = os.fork()  # with all that was imported: it has nothing to do but to index
    if child == 0:
        try:
            run(out)
        finally:
            os._exit(0)
    return child

run(place + "warm")
begin = time.perf_counter()
run(place + "whole")
whole = time.perf_counter() - begin
counts = [[]]
for kill in range(10):
    out = f"{place}{len(counts)}"
    child = in_child(out)
    time.sleep(rng.uniform(0, 0.9 * whole))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    counts[-1].append(len(Index.open(out)) if os.path.exists(out + "/index.json") else 0)
    if counts[-1][-1] == int(count) or kill == 9:
        run(out)
        counts += [[]] if kill < 9 else []
print(json.dumps(counts))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_ten_times_it_ends_as_if_undisturbed(model: Path, tmp_path: Path, fresh_seed: int) -> None:
    """Nothing that was committed is lost at a kill, and the last run ends in the index of a run without kills."""
    n = 40
    for i in range(n):
        write(tmp_path / "many", i)
    given = [fresh_seed, n, f"{tmp_path}/", "index", "--model", model, tmp_path / "many", *SAYS, "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", KILLS, *map(str, given)],
        capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    print(counts)
    assert sum(map(len, counts)) == 10
    assert any(0 < count < n for of_one in counts for count in of_one)
    whole = [content(tmp_path / "whole", axis) for axis in np.eye(32)]  # each a coordinate of the embeddings
    for number, of_one in enumerate(counts, 1):
        assert of_one == sorted(of_one)
        for expected, axis in zip(whole, np.eye(32), strict=True):
            pd.testing.assert_frame_equal(content(tmp_path / str(number), axis), expected, atol=1e-6)
        left = {file.stem for file in (tmp_path / str(number) / "parts").iterdir()}
        assert left == {part["name"] for part in Index.open(tmp_path / str(number)).meta["parts"]}
