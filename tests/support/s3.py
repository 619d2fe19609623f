"""An S3 server of this machine (moto, over real HTTP) that tells what it was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest


class Request(NamedTuple):
    method: str
    path: str
    sent: int  # bytes of the answer


class Server:
    """Notes requests in ``log``; calls ``before`` with the method and path of each; forbids what ``forbids`` is of."""

    def __init__(self, app: Any, url: str) -> None:
        self.app, self.url = app, url
        self.log: list[Request] = []
        self.before: Callable[[str, str], None] = lambda method, path: None
        self.forbids: Callable[[str, str], bool] = lambda method, path: False

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.before(method, path)
        if self.forbids(method, path):
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if method == "HEAD" else [body]
        body = b"".join(self.app(environ, start))
        self.log.append(Request(method, path, len(body)))
        return [body]

    def asked(self, method: str, part: str = "") -> list[Request]:
        """The requests of a method whose path has ``part`` in it."""
        return [request for request in self.log if request.method == method and part in request.path]


@contextmanager
def s3_server() -> Iterator[Server]:
    """Run a server with the bucket ``ecg``, and let s3fs of this process and its children ask it."""
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    server = Server(running._server.app, "http://{}:{}".format(*running.get_host_and_port()))
    running._server.app = server
    with pytest.MonkeyPatch.context() as patch:
        settings = {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key-of-tests",
            "AWS_SECRET_ACCESS_KEY": "secret-of-tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }
        for name, value in settings.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("ecg")
        yield server
    s3fs.S3FileSystem.clear_instance_cache()
    running.stop()
