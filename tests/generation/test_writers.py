"""Every writer trains, is killed and resumed, saved and loaded, and writes a batch as it writes one ECG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import deri
from deri.cli.main import main
from deri.ecg import ECG, LEADS, standardise, standardise_windows
from deri.errors import DeriError
from deri.generation.config import WriterConfig
from deri.generation.memory import signal_memory
from deri.generation.train import train_writer
from deri.generation.writer import Generated, ReportWriter, calibrate_directory
from deri.models import EcgTextModel
from deri.progress import Progress
from deri.simulate.layouts.wfdb16 import write_record
from deri.store import Store
from support import tiny, writers

EPOCHS = ["epochs=2", "batch_size=16", "checkpoint_steps=2", "log_steps=1", "beams=1"]


class Stop(Exception):
    pass


def encoder() -> EcgTextModel:
    return tiny.model("model.signal.fs=100", "model.signal.samples=1000", pooling="mean")


def config_of(kind: str, folder: Path, *more: str, **fields: Any) -> WriterConfig:
    if kind == "gpt2":
        fields["writer"] = str(writers.save_gpt2(folder / "gpt2"))
    elif kind == "prefix":
        fields["writer"] = f"prefix:{writers.save_llama(folder / 'llama')}"
    elif kind == "lora":
        fields |= {"writer": f"prefix:{writers.save_llama(folder / 'llama')}", "lora": {"rank": 2}}
    elif kind == "r2gen":
        fields["writer"] = "r2gen"
    return writers.config(*EPOCHS, *more, **fields)


def train(store: Store, out: Path, config: WriterConfig, **options: Any) -> Path:
    return train_writer(encoder(), store, out, config, device="cpu", **options)


def written(writer: ReportWriter, signals: np.ndarray, fs: float, *more: Any) -> Generated:
    """The reports of standardised signals; ``more``: valid samples, and which leads are there."""
    valid, mask = (*more, None, None)[:2]
    memory = signal_memory(writer.encoder, signals, fs, valid, mask, writer.config.memory)
    return writer.generate_memory(*memory, writer.config.decoding())


def losses(run: Path, split: str) -> list[float]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["split"] == split]


def test_tokenizers_of_the_language_models_have_no_pad(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for folder in (writers.save_gpt2(tmp_path / "gpt2"), writers.save_llama(tmp_path / "llama")):
        assert AutoTokenizer.from_pretrained(folder).pad_token is None


@pytest.mark.parametrize("kind", ["scratch", "gpt2", "prefix", "lora", "r2gen"])
def test_it_trains_and_writes_the_same_after_loading_and_in_a_batch(
    kind: str, mimic_store: Path, tmp_path: Path
) -> None:
    if kind == "lora":
        pytest.importorskip("peft")
    store = Store.open(mimic_store)
    config = config_of(kind, tmp_path, "lr=0.01", cache=str(tmp_path / "cache"))
    run = train(store, tmp_path / "run", config, model_name=str(tmp_path / "model"))
    assert losses(run, "train")[-1] < losses(run, "train")[0]
    writer = ReportWriter.from_pretrained(run)
    rows = store.rows("val")[:6]
    together = writer.generate_store(store, rows)
    apart = [writer.generate_store(store, rows[i : i + 1]) for i in range(len(rows))]
    assert together.texts == [one.texts[0] for one in apart]
    np.testing.assert_allclose(together.log_probs, [one.log_probs[0] for one in apart], atol=1e-4)
    assert (together.n_tokens <= 24).all()
    assert (together.finished | (together.n_tokens == 24)).all()  # what never ends is cut, and says so
    writer.save_pretrained(tmp_path / "again")
    again = ReportWriter.from_pretrained(tmp_path / "again").generate_store(store, rows)
    assert again.texts == together.texts
    # Nothing in the directory says where it was made.
    calibrate_directory(tmp_path / "again", store)
    kept = [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    folders = [str(folder).encode() for folder in (tmp_path, mimic_store)]
    assert not [path.name for path in kept if any(folder in path.read_bytes() for folder in folders)]
    about = json.loads((tmp_path / "again" / "config.json").read_text())
    assert about["encoder"]["source"] == "model"
    assert about["store"] == {"name": "store", "dataset": "mimic-iv-ecg", "fingerprint": store.fingerprint}
    assert about["writer"]["writer"] == {"gpt2": "gpt2:gpt2", "prefix": "prefix:llama", "lora": "prefix:llama"}.get(
        kind, kind
    )


@pytest.mark.parametrize("kind", ["frozen", "tuned"])
def test_a_stopped_run_ends_with_the_same_bits(kind: str, mimic_store: Path, tmp_path: Path) -> None:
    store = Store.open(mimic_store)
    config = config_of("scratch", tmp_path, "accumulate=2", encoder=kind)
    whole = train(store, tmp_path / "whole", config)

    class StopAtThree(Progress):
        def update(self, done: int, total: int) -> None:
            if done == 3:
                raise Stop

    with pytest.raises(Stop):
        train(store, tmp_path / "killed", config, progress=StopAtThree())
    train(store, tmp_path / "killed", config, resume=True)
    for name in ("checkpoints/last.safetensors", "writer/model.safetensors"):
        expected, found = load_file(whole / name), load_file(tmp_path / "killed" / name)
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[key], found[key]) for key in expected), name
    assert losses(whole, "val") == losses(tmp_path / "killed", "val")
    with pytest.raises(DeriError, match="lr was None and is 0.5"):
        train(store, tmp_path / "killed", config_of("scratch", tmp_path, "lr=0.5", encoder=kind), resume=True)


def test_the_encoder_changes_only_where_it_is_tuned(mimic_store: Path, tmp_path: Path) -> None:
    store = Store.open(mimic_store)
    before = {name: value.clone() for name, value in encoder().state_dict().items()}
    for kind in ("frozen", "tuned"):
        run = train(store, tmp_path / kind, config_of("scratch", tmp_path, encoder=kind))
        after = ReportWriter.from_pretrained(run).encoder.state_dict()
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (kind == "frozen")


@pytest.mark.parametrize("memory", ["tokens", "mixed", "aligned"])
def test_every_memory_and_the_python_interface(memory: str, mimic_store: Path, tmp_path: Path) -> None:
    store = Store.open(mimic_store)
    run = train(store, tmp_path / "run", config_of("scratch", tmp_path, "epochs=1", memory=memory))
    writer = deri.ReportWriter.from_pretrained(run / "writer")
    signals = store.signals(store.rows("val")[:2])
    texts = writer.write([ECG(signal, store.fs) for signal in signals])
    assert texts == written(writer, signals, store.fs).texts
    assert writer.write([]) == []


@pytest.fixture(scope="module")
def run(mimic_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small writer, calibrated."""
    folder = tmp_path_factory.mktemp("writer")
    store = Store.open(mimic_store)
    train(store, folder / "run", config_of("scratch", folder, "lr=0.01"))
    calibrate_directory(folder / "run", store)
    return folder / "run"


def test_what_stands_in_a_lead_that_was_not_recorded_does_not_count(run: Path, mimic_store: Path) -> None:
    store = Store.open(mimic_store)
    writer = ReportWriter.from_pretrained(run)
    signals = np.array(store.signals(store.rows("val")[:3]))
    mask = np.ones((3, 12), bool)
    mask[0, 6:] = mask[1, :3] = False
    valid = np.full(3, signals.shape[2])
    expected = written(writer, np.where(mask[:, :, None], signals, 0), store.fs, valid, mask)
    whole = written(writer, signals, store.fs, valid)
    assert whole.log_probs[2] == pytest.approx(expected.log_probs[2], abs=1e-4)
    assert (np.abs(whole.log_probs - expected.log_probs)[:2] > 1e-3).all()
    # Recordings say by NaN which leads they lack.
    nan = np.where(mask[:, :, None], signals, np.float32(np.nan))
    ecgs = writer.generate([ECG(signal, store.fs) for signal in nan])
    assert ecgs.texts == expected.texts
    np.testing.assert_allclose(ecgs.log_probs, expected.log_probs, atol=1e-4)


def test_windows_of_long_recordings(run: Path, mimic_store: Path) -> None:
    store = Store.open(mimic_store)
    writer = ReportWriter.from_pretrained(run)
    signals = store.signals(store.rows("val")[:4])
    short, long = ECG(signals[0], store.fs), ECG(np.concatenate(signals[1:], axis=1), store.fs)
    first = writer.generate([long, short])
    assert (list(first.record), list(first.start)) == ([0, 1], [0, 0])
    found = writer.generate(iter([long, short]), windows=None, batch_size=2)
    assert (list(found.record), list(found.start)) == ([0, 0, 0, 1], [0, 10, 20, 0])
    cut = [*standardise_windows(long, 100, 1000), standardise(short, 100, 1000)]
    apart = [written(writer, window.signal[None], 100, np.array([window.valid_samples])) for window in cut]
    assert found.texts == [one.texts[0] for one in apart]
    np.testing.assert_allclose(found.log_probs, [one.log_probs[0] for one in apart], atol=1e-4)
    assert writer.write([long, short]) == first.texts == [found.texts[0], found.texts[3]]
    assert list(writer.generate([long], windows=2).start) == [0, 10]
    # What the ECG model thinks of a report is what it thinks of the same window.
    vectors = writer.encoder.embed_signals(np.stack([w.signal for w in cut]), 100, np.full(4, 1000))
    own = writer.generate([long, short], windows=None, embeddings=True).embedding
    np.testing.assert_allclose(own, vectors, atol=1e-5)
    assert found.embedding is None
    reviewed = writer.review([long, short], windows=None)
    assert [one.text for one in reviewed] == found.texts
    assert [one.findings for one in reviewed] == [
        writer.confidence.check(vector, text) for vector, text in zip(own, found.texts, strict=True)
    ]
    nothing = writer.generate([], windows=None)
    assert (len(nothing), len(nothing.record)) == (0, 0)


def test_long_files_by_command(
    run: Path, mimic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store.open(mimic_store)
    signals = store.signals(store.rows("val")[:3])
    for name, values in (("long", np.concatenate(signals, axis=1)), ("short", signals[0])):
        digital = np.round(values.T * 1000).astype(np.int16)
        write_record(tmp_path, name, digital, LEADS, fs=int(store.fs), gain=1000)
    files, out = [str(tmp_path / f"{name}.hea") for name in ("long", "short")], tmp_path / "out.parquet"
    command = ["report", "generate", *files, "--writer", str(run), "--out", str(out)]

    def result(*more: str) -> tuple[pd.DataFrame, str]:
        with pytest.raises(SystemExit) as stop:
            main([*command, *more])
        assert not stop.value.code
        return pd.read_parquet(out), capsys.readouterr().err

    table, said = result()
    assert list(table["record_id"]) == ["long", "short"]
    assert f"{files[0]}: longer than 10 s, the report is of its beginning alone (--windows all" in said
    every, said = result("--windows", "all")
    assert list(every["record_id"]) == ["long"] * 3 + ["short"]
    assert list(every["start_s"]) == [0, 10, 20, 0]
    assert "longer" not in said
    assert list(every["generated"])[::3] == list(table["generated"])
    assert len(every["flags"]) == 4
    stored = ["report", "generate", "--data", str(mimic_store), *command[4:], "--windows", "all"]
    for wrong, message in (
        ([*command, "--windows", "none"], "a number from 1 on, or all"),
        ([*command, "--data", "x"], "either"),
        (stored, "a store holds the windows"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


def test_generate_takes_folders_and_stores_and_passes_over_bad_files(
    run: Path, mimic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, folder, out = Store.open(mimic_store), tmp_path / "folder", tmp_path / "out.jsonl"
    folder.mkdir()
    signals = store.signals(store.rows("val")[:2])
    for name, values in zip("ab", signals, strict=True):
        np.save(folder / f"{name}.npy", values)
    (folder / "broken.npy").write_text("no array")
    (folder / "index.csv").write_text(
        "file,subject,report,labels\na.npy,p1,Sinus rhythm,SR;LVH\nbroken.npy,p2,,\nb.npy,p3,,AFIB\n", encoding="utf-8"
    )
    array = tmp_path / "alone.npy"
    np.save(array, signals[0])

    def generate(*more: object) -> int:
        command = ["report", "generate", "--writer", run, "--out", out, "--fs", store.fs, "--units", "mV", *more]
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in command])
        return int(stop.value.code or 0)

    assert generate(folder, mimic_store, array) == 0
    told = capsys.readouterr().err
    assert f"passed over: {folder / 'broken.npy'}" in told
    assert f"1 of {len(store) + 4} recordings could not be used" in told
    table = pd.read_json(out, lines=True, dtype={"record_id": str})
    assert list(table["record_id"]) == ["a", "b", *store.index["record_id"].astype(str), "alone"]
    assert list(table["subject"].astype(str))[:2] == ["p1", "p3"]
    assert table["reference"].iloc[0] == "Sinus rhythm"
    assert table["labels"].iloc[:2].tolist() == [["SR", "LVH"], ["AFIB"]]
    assert table["split"].iloc[2:-1].tolist() == store.index["split"].tolist()
    assert table["reference"].iloc[[1, -1]].isna().all()
    assert table["generated"].iloc[0] == table["generated"].iloc[-1]  # the same recording
    assert table["start_s"].iloc[2:-1].isna().all()
    assert generate(folder, mimic_store, "--limit", 4, "--split", "val") == 0
    table = pd.read_json(out, lines=True, dtype={"record_id": str})
    assert list(table["record_id"]) == ["a", "b", str(store.index["record_id"].iloc[store.rows("val")[0]])]
    capsys.readouterr()
    assert generate(folder, "--strict") == 2
    assert generate(folder / "broken.npy") == 2
    assert "passed over" not in capsys.readouterr().err


def test_long_reports_are_cut_and_records_without_one_left_out(mimic_store: Path, tmp_path: Path) -> None:
    store = Store.open(mimic_store)
    ids = store.report_ids.copy()
    ids[store.rows("train")[:5]] = -1
    texts = list(store.reports)
    texts[ids[store.rows("train")[5]]] = "sinus rhythm. " * 1000
    texts.append(" \n")
    ids[store.rows("train")[6]] = len(texts) - 1
    store.__dict__ |= {"report_ids": ids, "reports": texts}
    run = train(store, tmp_path / "run", config_of("scratch", tmp_path, "epochs=1"))
    records = json.loads((run / "run.json").read_text())["records"]
    assert records["without_report"] == 6  # five have none, one is blank
    assert records["cut"] >= 1
    assert records["train"] == len(store.rows("train")) - 6


def test_commands_write_reports_that_evaluate_reads(mimic_store: Path, tmp_path: Path) -> None:
    encoder().save_pretrained(tmp_path / "model")
    run, out = tmp_path / "run", tmp_path / "reports.jsonl"
    small = [*writers.SMALL, *EPOCHS]

    def command(*arguments: object) -> None:
        with pytest.raises(SystemExit) as stop:
            main([str(a) for a in arguments])
        assert not stop.value.code

    command("report", "train", "--model", tmp_path / "model", "--data", mimic_store, "--out", run, *small)
    command("report", "generate", "--writer", run, "--data", mimic_store, "--split", "val", "--out", out)
    table = pd.read_json(out, lines=True)
    assert list(table["record_id"].astype(str)) == list(
        Store.open(mimic_store).index.query("split == 'val'")["record_id"]
    )
    assert {"reference", "generated", "log_prob", "n_tokens", "finished", "sentences", "flags"} <= set(table.columns)
    command("report", "evaluate", out, "--out", tmp_path / "scores.json", "--draws", 10)
    assert json.loads((tmp_path / "scores.json").read_text())["pairs"] == len(table)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--writer", "scratch", "--lora", "4"], "lora is for prefix writers"),
        (["--writer", "nowhere/at/all"], "nowhere/at/all"),
        (["epoch=3"], "did you mean 'epochs'"),
    ],
)
def test_wrong_options_are_told(
    more: list[str], message: str, mimic_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder().save_pretrained(tmp_path / "model")
    arguments = ["--model", tmp_path / "model", "--data", mimic_store, "--out", tmp_path / "run"]
    with pytest.raises(SystemExit) as stop:
        main(["report", "train", *map(str, arguments), *more])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def in_two_languages(path: Path) -> Store:
    """A store whose reports are German where their number is even."""
    store = Store.open(path)
    texts = store.reports
    store.__dict__["reports"] = ["sinusrhythmus." if i % 2 == 0 else text for i, text in enumerate(texts)]
    return store


def test_it_writes_in_the_language_asked_for(mimic_store: Path, tmp_path: Path) -> None:
    store = in_two_languages(mimic_store)
    run = train(store, tmp_path / "run", config_of("scratch", tmp_path, "lr=0.02", "epochs=6", "network.width=32"))
    writer = ReportWriter.from_pretrained(run)
    assert set(writer.languages) == {"en", "de"}
    rows = store.rows("val")
    german = writer.generate_store(store, rows[:4], language="de")
    assert all(text.startswith("sinusrhythmus") for text in german.texts)
    assert (german.n_tokens < 24).all()  # the tag is part of the longest length
    assert not any("sinusrhythmus" in text for text in writer.generate_store(store, rows[:4], language="en").texts)
    assert not any(text.startswith(("de:", "en:")) for text in writer.generate_store(store, rows[:4]).texts)
    # That of each record's own report, in the order of the rows.
    asked = writer.generate_store(store, rows, language="reference")
    own = store.report_ids[rows] % 2 == 0
    german_text = np.array([text.startswith("sinusrhythmus") for text in asked.texts])
    assert (german_text == own).mean() > 0.8  # a writer of seconds obeys most of the time
    with pytest.raises(DeriError, match="language 'sv'.* knows .*en"):
        writer.generate_store(store, rows[:1], language="sv")
