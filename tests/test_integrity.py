"""A byte that changes on the disk is noticed, or changes no result: stores, what lies beside them, models, runs."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from deri.errors import DeriError
from deri.evaluation.search import Index, build_index
from deri.models import load_model
from deri.store import Store, TextFeatures
from deri.store.measurements import measure_store
from support import small_run, tiny
from support.stores import simulated_store


def of_store(path: Path) -> list[Any]:
    """All that a store gives."""
    store = Store.open(path)
    rows = store.rows("all", windows=True)
    labels = [store.labels(task, store.task_rows(task)) for task in store.tasks]
    encoder = tiny.text_encoder()
    features = TextFeatures.build(store, encoder)
    ids = np.arange(len(store.reports))
    return [
        store.signals_int16(rows), store.fs, store.reports, store.report_ids, labels, store.index.to_csv(),
        store.rejects.to_csv(), store.lead_mask(rows), measure_store(store), features.pooled(ids), features.tokens(ids),
    ]  # fmt: skip


def of_index(path: Path) -> list[Any]:
    """What an index knows, and what it finds."""
    index = Index.open(path)
    return [index.table.to_pydict(), index.search(np.ones(index.meta["model"]["dim"])).to_dict()]


def of_model(path: Path) -> list[Any]:
    """What a model says of a recording and a text."""
    model = load_model(path)
    ecg = torch.linspace(-1, 1, 12 * model.config.signal.samples).sin().reshape(1, 12, -1)
    with torch.inference_mode():
        return [model.ecg_embedding(ecg).numpy(), model.encode_text(["sinus rhythm", "atrial fibrillation"])]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = simulated_store(tmp_path_factory.mktemp("integrity"), 12, 5).path
    of_store(path)  # makes what lies beside it
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


def flips(folder: Path, result: Callable[[Path], list[Any]], tmp_path: Path, n: int) -> Counter[str]:
    """Flip a bit ``n`` times, each in a file drawn at random, and compare the result with the undamaged one."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    expected = result(copy)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    outcomes: Counter[str] = Counter()
    for _ in range(n):
        name = draw.choice(files)
        data = bytearray((folder / name).read_bytes())
        place = draw.randrange(len(data))
        data[place] ^= 1 << draw.randrange(8)
        (copy / name).write_bytes(data)
        try:
            found = result(copy)
        except DeriError:
            outcomes["noticed"] += 1
        else:
            np.testing.assert_equal(found, expected, err_msg=f"bit {place} of {name} was not noticed")
            outcomes["no effect"] += 1
        shutil.rmtree(copy)
        shutil.copytree(folder, copy)
    return outcomes


@pytest.mark.parametrize("kind", ["store", "model", "index"])
@pytest.mark.parametrize(("n", "least"), [(25, 1), pytest.param(100, 31, marks=pytest.mark.slow)])
def test_flipped_bits(kind: str, n: int, least: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    result = {"store": of_store, "model": of_model, "index": of_index}[kind]
    outcomes = flips(request.getfixturevalue(kind), result, tmp_path, n)
    print(dict(outcomes))
    assert outcomes["noticed"] >= least


def test_a_flipped_bit_of_a_checkpoint_ends_the_resume(store: Path, text_dir: Path, tmp_path: Path) -> None:
    content = small_run.recipe(text_dir, "train.epochs=1", "train.batch_size=4")
    out = small_run.run(store, tmp_path / "run", content)
    last = out / "checkpoints" / "last.safetensors"
    whole = last.read_bytes()
    for place in (9, len(whole) // 2, len(whole) - 1):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(DeriError, match=r"last\.safetensors (is damaged|cannot be read|was written)"):
            small_run.run(store, out, content, resume=True)
