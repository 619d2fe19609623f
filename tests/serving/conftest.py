"""A service of a tiny model, with an index of simulated recordings, behind a client that needs no socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from deri.ecg import read_ecg
from deri.evaluation.search import Index, build_index
from deri.models import EcgTextModel
from deri.serving import Limits, Service, create_app
from deri.serving.gate import Access
from deri.serving.pages import example_csv
from support import tiny

Made = Callable[..., TestClient]


@pytest.fixture(scope="session")
def model() -> EcgTextModel:
    return tiny.model(pooling="mean")


@pytest.fixture(scope="session")
def ecg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of 10 s as CSV."""
    path = tmp_path_factory.mktemp("ecg") / "simulated.csv"
    path.write_text(example_csv("normal"))
    return path


@pytest.fixture(scope="session")
def index(model: EcgTextModel, tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("index")
    files = []
    for name in ("normal", "afib", "lbbb"):
        path = folder / f"{name}.csv"
        path.write_text(example_csv(name))
        files.append(str(path))
    vectors = model.encode_ecg([read_ecg(file) for file in files])
    about = pd.DataFrame({"file": files, "record_id": ["normal", "afib", "lbbb"], "age": [40.0, 70.0, np.nan]})
    return build_index(folder / "index", model, about, vectors, name="tiny")


@pytest.fixture(scope="session")
def logged() -> list[dict[str, Any]]:
    return []


@pytest.fixture(scope="session")
def made(model: EcgTextModel, index: Index, logged: list[dict[str, Any]]) -> Iterator[Made]:
    """Makes a client of a service with the given limits, access and writer."""
    clients: list[TestClient] = []

    def make(access: Access | None = None, writer: Any = None, with_index: bool = True, **limits: Any) -> TestClient:
        service = Service(model, "tiny", index=index if with_index else None, writer=writer, limits=Limits(**limits))
        app = create_app(service, access, logged.append)
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        clients.append(client.__enter__())
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="session")
def client(made: Made) -> TestClient:
    return made()


@pytest.fixture(scope="session")
def address(model: EcgTextModel, index: Index) -> Iterator[str]:
    """Where a service of the tiny model answers, behind a socket."""
    with served(create_app(Service(model, "tiny", index=index), log=lambda _: None)) as found:
        yield found


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Yield the address of an application behind a socket."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
