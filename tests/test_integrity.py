"""A byte that changes on the disk is noticed, or changes no result: stores, what lies beside them, models, runs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deri.errors import DeriError
from deri.evaluation.search import build_index
from deri.files import write_yaml
from deri.recipes import load_recipe
from deri.store import Store, prepare
from deri.store.measurements import measure_store
from deri.training.log import RunLog, read_metrics
from support import small_run, tiny, windowed
from support.command import run
from support.stores import simulated_store

ROOT = Path(__file__).resolve().parents[1]
_found = importlib.util.spec_from_file_location("bit_flips", ROOT / "benchmarks" / "bit_flips.py")
assert _found is not None
bit_flips = importlib.util.module_from_spec(_found)
sys.modules["bit_flips"] = bit_flips
_found.loader.exec_module(bit_flips)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = simulated_store(tmp_path_factory.mktemp("integrity"), 12, 5).path
    bit_flips.of_store(tiny.text_encoder())(path)  # makes what lies beside it
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("integrity") / "model"
    tiny.model("model.signal.fs=100", "model.signal.samples=1000").save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, draw = tmp_path_factory.mktemp("integrity") / "index", np.random.default_rng(0)
    for number in (0, 1, 1):
        about = pd.DataFrame({"file": [f"/{number}/{i}" for i in range(5)], "age": 50.0 + np.arange(5)})
        build_index(path, tiny.model(), about, draw.normal(size=(5, 32)).astype(np.float32), name="tiny")
    (path / "index.lock").unlink(missing_ok=True)
    return path


@pytest.mark.parametrize("kind", ["store", "model", "index"])
@pytest.mark.parametrize(("n", "least"), [(25, 1), pytest.param(100, 31, marks=pytest.mark.slow)])
def test_flipped_bits(
    kind: str, n: int, least: int, tmp_path: Path, fresh_seed: int, request: pytest.FixtureRequest
) -> None:
    readers = {
        "store": bit_flips.of_store(tiny.text_encoder()), "model": bit_flips.of_model, "index": bit_flips.of_index
    }  # fmt: skip
    outcomes = bit_flips.flip_bits(request.getfixturevalue(kind), readers[kind], tmp_path, n, fresh_seed)
    print(outcomes)
    assert not outcomes.wrong
    assert outcomes.noticed >= least
    assert outcomes.noticed + outcomes.no_effect == n


@pytest.mark.slow
def test_a_round_of_commands_while_the_machine_fails(tmp_path: Path, fresh_seed: int) -> None:
    """The soak is rounds of prepare, pretrain, index, search and serve; here one, outside CI another each time."""
    script = ROOT / "benchmarks" / "soak.py"
    command = [sys.executable, str(script), "--minutes", "0", "--seed", str(fresh_seed)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not done.returncode, (done.stdout, done.stderr[-2000:])
    found = json.loads(done.stdout)
    assert found["rounds"] == 1
    assert found["service"]["requests"] > 10


def test_a_flipped_bit_of_a_checkpoint_ends_the_resume(store: Path, text_dir: Path, tmp_path: Path) -> None:
    content = small_run.recipe(text_dir, "train.epochs=1", "train.batch_size=4")
    copy = shutil.copytree(store, tmp_path / "store")
    damage(copy, int(Store.open(copy).rows("train")[0]))
    rest = Store.open(copy, skip_damaged=True)
    out = small_run.run([rest], tmp_path / "run", content)
    told = json.loads((out / "run.json").read_text())
    assert told["left_out"] == {str(copy): {"train": 1, "val": 0, "test": 0}}
    assert told["store"] == rest.fingerprint
    last = out / "checkpoints" / "last.safetensors"
    whole = last.read_bytes()
    for place in (9, len(whole) // 2, len(whole) - 1):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DeriError, match=r"last\.safetensors (is damaged|cannot be read|was written)"):
            small_run.run([rest], out, content, resume=True)


def damage(store: Path, row: int) -> Path:
    """Flip a bit of the samples of a row; returns the file."""
    where = Store.open(store).index.iloc[row]
    file = store / "signals" / f"shard-{where['shard']:05d}.npy"
    data = bytearray(file.read_bytes())
    data[128 + 120_000 * int(where["row"]) + 77] ^= 16
    file.write_bytes(data)
    return file


def test_skip_damaged_goes_on_with_the_rest_and_counts_what_is_left_out(
    store: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    whole = Store.open(copy)
    row = int(whole.rows("train")[0])
    record = whole.index["record_id"].iloc[row]
    shard = damage(copy, row)
    out = tmp_path / "scores.json"
    ask = ["zeroshot", "--model", model, "--data", copy, "--task", "ptbxl-super", "--split", "train", "--out", out]
    assert run(*ask) == 2
    told = capsys.readouterr().err
    assert shard.name in told
    assert str(record) in told
    assert "--skip-damaged" in told
    assert run(*ask, "--skip-damaged") == 0
    assert f"1 of {len(whole)} recordings are damaged and left out (train 1): {record}" in capsys.readouterr().err
    result = json.loads(out.read_text())
    assert result["n"] == len(whole.task_rows("ptbxl-super", "train")) - 1
    assert result["store"]["left_out"] == {"train": 1, "val": 0, "test": 0}
    assert result["store"]["fingerprint"] != whole.fingerprint
    assert run("embed", copy, "--model", model, "--out", tmp_path / "e.csv", "--skip-damaged") == 0
    assert pd.read_csv(tmp_path / "e.csv", dtype=str)["record_id"].tolist() == [
        name for i, name in enumerate(whole.index["record_id"]) if i != row
    ]

    rest = Store.open(copy, skip_damaged=True)
    measured, before = measure_store(rest), measure_store(whole)
    assert np.isnan(measured[row]).all()
    np.testing.assert_array_equal(np.delete(measured, row, axis=0), np.delete(before, row, axis=0))
    with pytest.raises(DeriError, match="is damaged"):
        rest.signals([row])


def test_all_recordings_of_a_lost_file_are_left_out(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    shard = copy / "signals" / "shard-00000.npy"
    data = shard.read_bytes()
    header = data.replace(b"'shape': (1", b"'shape': (0", 1)
    assert header != data
    for content in (data[:-2], header, None):
        shard.unlink()
        if content is not None:
            shard.write_bytes(content)
        rest = Store.open(copy, skip_damaged=True)
        lost = rest.index["shard"].to_numpy() == 0
        np.testing.assert_array_equal(rest.left_out, np.flatnonzero(lost))
        np.testing.assert_array_equal(rest.rows(), np.flatnonzero(~lost))


def test_a_recording_with_a_damaged_window_is_left_out_whole(tmp_path: Path) -> None:
    prepare(windowed.dataset(tmp_path / "source"), tmp_path / "store", windows=None)
    names = Store.open(tmp_path / "store").index["record_id"]
    damage(tmp_path / "store", int(np.flatnonzero(names == "long")[2]))
    rest = Store.open(tmp_path / "store", skip_damaged=True)
    assert names.iloc[rest.rows(windows=True)].tolist() == [name for name in names if name != "long"]
    assert rest.provenance["left_out"] == {"train": 1, "val": 0, "test": 0}


def test_a_resume_keeps_each_line_before_it_and_never_hides_a_changed_byte(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = RunLog(path, 0)
    for step in (1, 2, 3):
        log.write("train", step, 0, {"loss": 0.125 * step})
    log.close()
    whole, expected, noticed = path.read_bytes(), read_metrics(tmp_path)[:2], list[str]()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :])
            RunLog(path, 2).close()
            try:
                found = read_metrics(tmp_path)
            except DeriError as error:
                noticed.append(str(error))
            else:
                assert found == expected, (place, bit)
            RunLog(path, 0).close()
            assert read_metrics(tmp_path) == []
    assert all("metrics.jsonl is damaged" in text for text in noticed)
    for end in (b"", b'{"crc32": 1, "sp', b"\0" * 40 + b"\n"):
        path.write_bytes(whole + end)
        RunLog(path, 2).close()
        assert read_metrics(tmp_path) == expected


def test_each_changed_byte_of_a_log_and_of_a_recipe_is_noticed(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "metrics.jsonl", 0)
    for step in (1, 2):
        log.write("train", step, 0, {"loss": 0.125 * step})
    log.close()
    recipe = load_recipe("demo")
    write_yaml(tmp_path / "recipe.yaml", recipe.model_dump(mode="json"))
    readers: dict[str, Callable[[], object]] = {
        "metrics.jsonl": lambda: read_metrics(tmp_path),
        "recipe.yaml": lambda: load_recipe(str(tmp_path / "recipe.yaml")),
    }
    for name, read in readers.items():
        whole, expected = (tmp_path / name).read_bytes(), read()
        noticed = []
        for place in range(len(whole)):
            changed = bytes([whole[place] ^ (1 << place % 8)])
            (tmp_path / name).write_bytes(whole[:place] + changed + whole[place + 1 :])
            try:
                assert read() == expected, f"byte {place} of {name}"
            except DeriError as error:
                noticed.append(str(error))
        assert len(noticed) > 0.9 * len(whole)
        assert all(name in text for text in noticed)
        (tmp_path / name).write_bytes(whole + b'{"crc32": 1, "split"' * (name == "metrics.jsonl"))
        assert read() == expected  # the end that a kill left
