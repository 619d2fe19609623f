"""The command line in-process: what it prints, where files land, and that user errors are short and exit with 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from deri.cli.main import main
from deri.ecg import LEADS, read_ecg
from deri.files import write_sealed
from deri.models import load_model
from deri.store.plan import read_json
from support import tiny, windowed
from support.command import run
from support.released import released_merl


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must end with exit code 2 and one or two lines; return them."""
    capsys.readouterr()
    assert run(*arguments) == 2
    text = capsys.readouterr().err
    lines = [
        line for line in text.splitlines() if line.startswith("deri: ") or not line.startswith(("mimic", "folder"))
    ]
    message = "\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith("deri: ")) :])
    assert 1 <= len(message.splitlines()) <= 2, message
    assert "Traceback" not in text
    return message


@pytest.fixture(scope="module")
def mimic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "mimic"
    assert run("simulate", "mimic-iv-ecg", "--records", 24, "--out", folder) == 0
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.model(pooling="mean").save_pretrained(folder)
    return folder


def test_help_answers_fast_and_without_heavy_imports() -> None:
    code = "import os, sys; from deri.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'transformers', 'pandas', 'scipy', 'matplotlib', 'wfdb'} & set(sys.modules)\n"
    code += "assert not heavy, heavy\n"
    code += "assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'  # in time for torch"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 5  # a hang, not a speed figure
    for command in ("simulate", "prepare", "pretrain", "zeroshot", "classify", "convert", "info", "demo"):
        assert command in done.stdout


def test_from_simulation_to_zero_shot(
    mimic: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prepare", "mimic-iv-ecg", mimic, "--out", tmp_path / "m") == 0
    assert "24 stored, 0 rejected" in capsys.readouterr().out
    assert run("simulate", "ptb-xl", "--records", 40, "--out", tmp_path / "p") == 0
    assert run("prepare", "ptb-xl", tmp_path / "p", "--out", tmp_path / "ps", "--workers", 2) == 0
    out = tmp_path / "result.json"
    zero = ["--data", tmp_path / "ps", "--task", "ptbxl-super", "--split", "all", "--out", out]
    assert run("zeroshot", "--model", model_dir, *zero) == 0
    result = json.loads(out.read_text())
    assert set(result["classes"]) == {"NORM", "MI", "STTC", "CD", "HYP"}
    for path, what in ((tmp_path / "m", "store"), (model_dir, "model")):
        capsys.readouterr()
        assert run("info", path, "--json") == 0
        assert json.loads(capsys.readouterr().out)["what"] == what


def test_info_and_plot_of_a_recording(mimic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = next(mimic.rglob("*.hea"))
    for name in ("ecg.png", "ecg.svg", "ecg.pdf"):
        assert run("info", header, "--plot", tmp_path / name) == 0
        assert (tmp_path / name).stat().st_size > 10_000
    assert "500 Hz" in capsys.readouterr().out


def test_classify_prints_a_table_or_json(mimic: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    headers = sorted(mimic.rglob("*.hea"))[:2]
    labels = ["--labels", "sinus rhythm", "--labels", "atrial fibrillation"]
    capsys.readouterr()
    assert run("classify", *headers, "--model", model_dir, *labels, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == [str(h) for h in headers]
    assert all(-1 <= row["sinus rhythm"] <= 1 for row in rows)
    assert run("classify", headers[0], "--model", model_dir, *labels) == 0
    assert "atrial fibrillation" in capsys.readouterr().out


def test_convert_a_released_checkpoint(
    mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = released_merl("resnet18")
    torch.save(weights, tmp_path / "merl.pth")
    encoder = tiny.text_encoder()
    encoder.model.save_pretrained(tmp_path / "bert")
    encoder.tokenizer.save_pretrained(tmp_path / "bert")
    out = tmp_path / "converted"
    assert run("convert", tmp_path / "merl.pth", "--out", out, "--text-encoder", tmp_path / "bert") == 0
    assert "merl resnet18" in capsys.readouterr().out
    header = next(mimic.rglob("*.hea"))
    assert run("classify", header, "--model", out, "--labels", "sinus rhythm") == 0


def test_embed_files_and_stores(mimic: Path, model_dir: Path, tmp_path: Path) -> None:
    headers = sorted(mimic.rglob("*.hea"))[:3]
    assert run("embed", *headers, "--model", model_dir, "--out", tmp_path / "files.parquet") == 0
    files = pd.read_parquet(tmp_path / "files.parquet")
    assert files["file"].tolist() == [str(h) for h in headers]
    assert run("prepare", "mimic-iv-ecg", mimic, "--out", tmp_path / "s") == 0
    assert run("embed", tmp_path / "s", "--model", model_dir, "--out", tmp_path / "store.parquet") == 0
    stored = pd.read_parquet(tmp_path / "store.parquet").set_index("record_id")
    assert len(stored) == 24
    for file, embedding in zip(files["file"], files["embedding"], strict=True):
        match = stored[[name.endswith(Path(file).stem) for name in stored.index]]["embedding"].iloc[0]
        np.testing.assert_allclose(np.stack(match), np.stack(embedding), atol=1e-4)


def test_retrieval(mimic: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "mimic-iv-ecg", mimic, "--out", tmp_path / "s") == 0
    command = ["retrieval", "--model", model_dir, "--data", tmp_path / "s", "--out", tmp_path / "r.json"]
    assert run(*command, "--split", "all") == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert (result["n"], 1 < result["n_texts"] <= 24) == (24, True)
    for way in ("ecg_to_text", "text_to_ecg"):
        assert 0 <= result[f"{way}_r1"] <= result[f"{way}_r5"] <= result[f"{way}_r10"] <= 1
        assert 1 <= result[f"{way}_median"] <= 24
    assert "two are the least" in fails(capsys, *command, "--split", "test")


def test_prepare_has_a_default_place(
    mimic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("prepare", "mimic-iv-ecg", mimic, "--limit", 5) == 0
    assert (tmp_path / "stores" / "mimic" / "store.json").is_file()


def test_real_recordings_through_the_command(
    ecg_real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every record with a header is stored; those without are counted under their own reasons and sources."""
    index = pd.read_csv(ecg_real / "index.csv")
    capsys.readouterr()
    command = [
        "prepare",
        "folder",
        ecg_real,
        "--labels",
        ecg_real / "index.csv",
        "--out",
        tmp_path / "s",
        "--workers",
        2,
    ]
    assert run(*command) == 0
    summary = capsys.readouterr().out
    from deri.store import Store

    store = Store.open(tmp_path / "s")
    stored = set(store.index["file"])
    assert set(index.loc[index["has_header"], "file"]) <= stored
    assert len(store) + len(store.rejects) == len(index)
    by_source = store.index["source"].value_counts()
    for source, n in index.loc[index["has_header"], "source"].value_counts().items():
        assert by_source[source] >= n
    assert f"{len(index)} recordings, {len(store)} stored, {len(store.rejects)} rejected" in summary
    for source in index["source"].unique():
        assert source in summary
    for reason in store.rejects["reason"].unique():
        assert reason in summary


def test_errors_of_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.hea" in fails(capsys, "info", tmp_path / "gone.hea")
    (tmp_path / "none.hea").write_text("none 0 500 5000\n")
    assert "none.hea" in fails(capsys, "info", tmp_path / "none.hea")
    (tmp_path / "noise.hea").write_bytes(bytes(range(256)))
    assert "noise.hea" in fails(capsys, "info", tmp_path / "noise.hea")
    assert "not a store" in fails(capsys, "info", tmp_path)


def test_errors_of_data_sets(mimic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "mimic-iv-ecg" in fails(capsys, "prepare", "mimic", mimic, "--out", tmp_path / "s")
    assert "record_list.csv" in fails(capsys, "prepare", "mimic-iv-ecg", tmp_path, "--out", tmp_path / "s")
    assert "--shard" in fails(capsys, "prepare", "mimic-iv-ecg", mimic, "--shard", "3/2", "--out", tmp_path / "s")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "record_list.csv").write_bytes((mimic / "record_list.csv").read_bytes())
    (foreign / "machine_measurements.csv").write_text("subject_id,study_id,text\n1,2,sinus rhythm\n")
    message = fails(capsys, "prepare", "mimic-iv-ecg", foreign, "--out", tmp_path / "s")
    assert "report_0" in message
    assert "machine_measurements.csv" in message
    assert not (tmp_path / "s" / "store.json").exists()
    (tmp_path / "labels.csv").write_text("path,labels\na,b\n")
    assert "file" in fails(capsys, "prepare", "folder", tmp_path, "--labels", tmp_path / "labels.csv")
    assert "exists" in fails(capsys, "simulate", "ptb-xl", "--records", 5, "--out", mimic)
    assert "ptb-xl" in fails(capsys, "simulate", "nothing", "--records", 5, "--out", tmp_path / "new")


def test_errors_of_stores_models_and_recipes(
    mimic: Path, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = tmp_path / "s", tmp_path / "out"
    assert run("prepare", "mimic-iv-ecg", mimic, "--out", store) == 0
    pretrain = ["pretrain", "--data", store, "--out", out]
    assert "did you mean 'train.epochs'" in fails(capsys, *pretrain, "train.epoch=3")
    assert "unknown recipe" in fails(capsys, *pretrain, "--recipe", "nothing")
    assert "KEY=VALUE" in fails(capsys, *pretrain, "epochs")
    assert "no such directory" in fails(capsys, *pretrain, "model.text.encoder=./nowhere")
    assert not out.exists()
    zero = ["zeroshot", "--data", store, "--task", "ptbxl-super", "--out", out]
    assert "no such directory" in fails(capsys, *zero, "--model", tmp_path / "none")
    assert "tasks" in fails(capsys, *zero, "--model", model_dir)
    assert not out.exists()
    write_sealed(store / "store.json", read_json(store / "store.json") | {"version": 99})
    assert "99" in fails(capsys, *zero, "--model", model_dir)
    assert "99" in fails(capsys, *pretrain)
    torch.save({"a": torch.zeros(1)}, tmp_path / "x.pth")
    assert "backbone" in fails(capsys, "convert", tmp_path / "x.pth", "--out", tmp_path / "c")
    assert "not empty" in fails(capsys, "convert", tmp_path / "x.pth", "--out", model_dir)


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    from deri.errors import DeriError

    with pytest.raises(DeriError):
        main(["info", str(tmp_path / "gone.hea"), "--debug"])


IMPORT = """
import os, sys, time
import deri.cli.main as m

def work(**_):
    import interrupted  # whose body gets the signal
    time.sleep(20)
    print("the signal was lost")

m.app = work
m.main([])
"""


def test_a_signal_during_an_import_waits_for_its_end(tmp_path: Path) -> None:
    done = tmp_path / "done"
    body = f"import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.2)\nopen({str(done)!r}, 'w')\n"
    (tmp_path / "interrupted.py").write_text(body)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", IMPORT]
    status = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert status.returncode == 143
    assert status.stdout == ""
    assert done.exists()
    assert status.stderr.splitlines() == ["deri: interrupted; run the same command again"]


DESTRUCTOR = """
import os, signal, time
import deri.cli.main as m

class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)

def work(**_):
    held = Held()
    del held
    time.sleep(20)
    print("the signal was lost")

m.app = work
m.main([])
"""


def test_a_signal_during_a_destructor_is_not_lost() -> None:
    status = subprocess.run([sys.executable, "-c", DESTRUCTOR], capture_output=True, text=True, check=False)
    assert status.returncode == 130
    assert status.stdout == ""
    assert status.stderr.splitlines() == ["deri: interrupted; run the same command again"]


def test_few_leads_and_long_recordings_from_prepare_to_classify(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = windowed.dataset(tmp_path / "source").root
    (source / "labels.csv").write_text("file,labels\n" + "".join(f"{name}.npz,AFIB\n" for name in windowed.WINDOWS))
    assert run("prepare", "folder", source, "--out", tmp_path / "s", "--windows", "all", "--min-leads", 1) == 0
    assert "windows: 10 of 10 s, of 2 longer" in capsys.readouterr().out
    assert run("info", tmp_path / "s", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["records"], shown["windows"]) == (6, "10 of 10 s; 2 records are longer than one")
    assert shown["missing leads"] == {"records": 1, **{lead: 1 for lead in LEADS if lead != "II"}}
    assert sum(shown["splits"].values()) == 6
    assert run("info", source / "single.npz") == 0
    assert capsys.readouterr().err == f"{source / 'single.npz'}: 1 of 12 leads (II)\n"

    files = [source / "single.npz", source / "long.npz", source / "eight.npz"]
    question = ["--model", model_dir, "--labels", "atrial fibrillation", "--labels", "sinus rhythm"]
    assert run("classify", *files, *question, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"{files[0]}: 1 of 12 leads (II); the model was trained with 12: expect less, above all of what only the "
        "others show",
        "atrial fibrillation, sinus rhythm: cosine, for ranking only",
    ]
    rows = json.loads(printed.out)
    assert [row["leads"] for row in rows] == [["II"], list(LEADS), list(LEADS)]
    assert [row["windows"] for row in rows] == [1, 4, 1]
    model = load_model(str(model_dir))
    expected = model.classify([read_ecg(file) for file in files], ["atrial fibrillation", "sinus rhythm"])
    np.testing.assert_allclose([row["sinus rhythm"] for row in rows], expected["sinus rhythm"], atol=1e-5)

    assert run("classify", files[1], *question, "--per-window", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["start_s"] for row in rows] == [0, 10, 20, 30]
    first = model.classify(read_ecg(files[1]), ["sinus rhythm"], windows=1)
    np.testing.assert_allclose(rows[0]["sinus rhythm"], first["sinus rhythm"][0], atol=1e-5)
    assert run("classify", files[1], *question, "--windows", 1) == 0
    assert f"{first['sinus rhythm'][0]:.3f}" in capsys.readouterr().out
    for text in ("none", "0", "²"):
        assert f"--windows {text}: a number" in fails(capsys, "classify", files[1], *question, "--windows", text)

    assert run("embed", tmp_path / "s", files[1], "--model", model_dir, "--out", tmp_path / "e.parquet") == 0
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert sorted(table["record_id"][:6]) == sorted(windowed.WINDOWS)
    both = np.stack(table["embedding"][table["record_id"] == "long"])
    np.testing.assert_allclose(both[0], both[1], atol=1e-3)  # the store rounds to 1 µV


@pytest.mark.slow
def test_few_leads_from_prepare_to_pretrain_and_zero_shot(model_dir: Path, tmp_path: Path) -> None:
    """A folder of single-lead, 8-lead and 12-lead files of 2.5 to 30 s through the whole of the command line."""
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file,report,labels,subject,split"]
    kinds = [("II",), ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), LEADS]
    for i in range(36):
        leads, seconds = kinds[i % 3], (2.5, 10, 30)[i // 3 % 3]
        time = np.arange(round(seconds * 250)) / 250
        beat = np.exp(-(((time % (0.5 if i % 2 else 0.9) - 0.2) / 0.02) ** 2))
        signal = rng.uniform(0.5, 1.5, (len(leads), 1)) * beat + rng.normal(0, 0.02, (len(leads), len(time)))
        np.savez(source / f"{i}.npz", signal=signal.astype(np.float32), fs=250, units="mV", leads=leads)
        text, label = ("sinus tachycardia", "STACH") if i % 2 else ("normal sinus rhythm", "NORM")
        lines.append(f"{i}.npz,{text},{label},p{i},{('train', 'train', 'val', 'test')[i % 4]}")
    (source / "labels.csv").write_text("\n".join(lines) + "\n")
    command = ["prepare", "folder", source, "--labels", source / "labels.csv", "--out", tmp_path / "s"]
    assert run(*command, "--windows", "all", "--workers", 2) == 0
    from deri.store import Store

    store = Store.open(tmp_path / "s")
    assert (store.recordings, len(store)) == (36, 36 + 12 * 2)
    assert np.bincount(store.lead_mask(store.rows()).sum(axis=1))[[1, 12]].tolist() == [12, 24]
    encoder = load_model(str(model_dir)).text_encoder
    encoder.model.save_pretrained(tmp_path / "bert")
    encoder.tokenizer.save_pretrained(tmp_path / "bert")
    small = ["model.base_width=4", "model.dim=32", "model.decoder.hidden=16", "model.decoder.head_dim=8"]
    train = ["pretrain", "--data", tmp_path / "s", "--out", tmp_path / "run", *small]
    text = f"model.text.encoder={tmp_path / 'bert'}"
    assert run(*train, text, "train.epochs=1", "train.batch_size=8", "train.warmup_steps=1") == 0
    zero = ["zeroshot", "--model", tmp_path / "run", "--data", tmp_path / "s", "--task", "labels"]
    assert run(*zero, "--split", "all", "--out", tmp_path / "z.json") == 0
    result = json.loads((tmp_path / "z.json").read_text())
    assert result["n"] == 36
    assert 0 <= result["macro_auroc"]["value"] <= 1


def test_merge_and_the_page_of_a_store(mimic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, limit in enumerate((10, 24)):
        assert run("prepare", "mimic-iv-ecg", mimic, "--limit", limit, "--out", tmp_path / f"s{i}") == 0
    capsys.readouterr()
    command = ["merge", tmp_path / "s0", tmp_path / "s1", "--out"]
    assert run(*command, tmp_path / "all") == 0
    printed = capsys.readouterr().out
    assert "mimic-iv-ecg: 34 recordings, 34 stored, 0 rejected" in printed
    assert "duplicates: 10 recordings have the samples of an earlier one" in printed
    assert run(*command, tmp_path / "once", "--duplicates", "drop") == 0
    assert "34 recordings, 24 stored, 10 rejected" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert run("info", tmp_path / "all", "--html", page, "--root", mimic, "--examples", 1, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["page"], about["flags"]["duplicate"], about["duplicates"]["recordings"]) == (str(page), 10, 10)
    assert "data:image/png;base64" in page.read_text()
    assert "exists" in fails(capsys, *command, tmp_path / "all")
    assert "--html" in fails(capsys, "info", mimic, "--html", page)
    assert "--root" in fails(capsys, "info", tmp_path / "all", "--html", page, "--root", tmp_path / "none")
    assert "goes with --html FILE" in fails(capsys, "info", tmp_path / "all", "--root", tmp_path)
