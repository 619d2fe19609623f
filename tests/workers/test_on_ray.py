"""A Ray cluster of two nodes does what one process does; one node is lost, some files are corrupt, one is deadly."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deri.datasets import open_dataset
from deri.errors import DeriError
from deri.generation.memory import memory_shape
from deri.generation.writer import ReportWriter
from deri.store import Store, prepare
from deri.workers import on_ray, open_engine
from deri.workers.pool import LostError
from support import deadly, tiny, writers
from support.command import run
from support.told import Told

CORRUPT, DEADLY = (3, 100, 199), (77,)


def test_a_missing_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DeriError, match=r"--engine ray needs Ray: pip install '.*\[ray\]'"), open_engine("ray"):
        pass


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two nodes of one processor each, which know the format of :mod:`support.deadly`; ``RAY_ADDRESS`` names them."""
    site = tmp_path_factory.mktemp("ray") / "site"
    source, tests = (Path(__file__).resolve().parents[i] for i in (2, 1))
    paths = [str(site), str(source / "src"), str(tests)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        deadly.install(site, patch)
        pytest.importorskip("ray", reason="Ray is not installed")
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=small)
        cluster.lost = cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rejected(store: Path) -> dict[str, str]:
    table = Store.open(store).rejects
    return dict(zip(table["file"], table["reason"], strict=True))


@pytest.mark.slow
def test_embed_index_and_reports_are_the_same(cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = tiny.model("model.signal.fs=100", "model.signal.samples=1000")
    encoder.save_pretrained(tmp_path / "model")
    config = writers.config()
    decoder = writers.decoder(config, memory_shape(encoder, config.memory))
    ReportWriter(config, encoder, *decoder).save_pretrained(tmp_path / "writer")
    files = deadly.archive(tmp_path / "files", 40, corrupt=(3, 7))
    killing = deadly.archive(tmp_path / "killing", 40, corrupt=(3,), deadly=(7,))
    model = ("--model", tmp_path / "model")
    tables = []
    for name, source, engine in (("here", files, ()), ("ray", killing, ("--engine", "ray", "--workers", 1))):
        out = tmp_path / name
        assert run("embed", source, *model, "--out", out / "e.parquet", *engine) == 0
        told = capsys.readouterr().err
        assert "2 of 40 recordings could not be used" in told
        assert ("r007.json: the process that read it was killed by SIGKILL, twice" in told) == bool(engine)
        assert run("index", files, *model, "--out", out / "index", *engine) == 0
        generate = ("report", "generate", files, "--writer", tmp_path / "writer", "--out", out / "r.parquet")
        assert run(*generate, "--batch-size", 16, *engine) == 0
        embedded, reports = pd.read_parquet(out / "e.parquet"), pd.read_parquet(out / "r.parquet")
        embedded["file"] = [Path(file).name for file in embedded["file"]]
        assert embedded["file"].tolist() == [f"r{i:03d}.json" for i in range(40) if i not in (3, 7)]
        tables.append((embedded, reports))
    for here, ray in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(here, ray)
    assert content(tmp_path / "here" / "index") == content(tmp_path / "ray" / "index")


@pytest.mark.slow
def test_a_node_is_lost_while_a_store_is_prepared(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []

    def lose(done: int, total: int) -> None:
        if done > 40 and cluster.lost is not None:
            cluster.remove_node(cluster.lost, allow_graceful=False)
            cluster.lost = None

    def count(name: str) -> LostError:
        losses.append(name)
        return LostError(name)

    monkeypatch.setattr(on_ray, "LostError", count)
    source = deadly.archive(tmp_path / "source", 200, corrupt=CORRUPT, deadly=DEADLY, seconds=0.02)
    dataset = open_dataset("folder", source)
    summary = prepare(dataset, tmp_path / "ray", engine="ray", progress=Told(lose))
    assert losses, "the node had nothing to do"
    assert prepare(dataset, tmp_path / "local", workers=2) == summary
    expected = {f"r{i:03d}.json": "worker_died" if i in DEADLY else "unreadable_file" for i in CORRUPT + DEADLY}
    assert rejected(tmp_path / "local") == expected
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    assert json.loads((tmp_path / "ray" / "store.json").read_text())["n"] == 196
