"""Who may ask: this machine alone, holders of a token, or everyone where that was said."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from fastapi import FastAPI

from deri.errors import DeriError
from deri.serving.run import access_of, is_loopback, serve


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_others_need_a_token_or_the_word_that_they_do_not(tmp_path: Path) -> None:
    with pytest.raises(DeriError, match="--token-file"):
        access_of("0.0.0.0", None, False)
    assert access_of("0.0.0.0", None, True).hosts == frozenset()
    assert "localhost" in access_of("127.0.0.1", None, False).hosts
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    assert access_of("0.0.0.0", token, False).token == "0123456789abcdef"


@pytest.mark.parametrize("content", ["", "short", "with a space in the middle", "é" * 20])
def test_a_token_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(DeriError, match="holds no token"):
        access_of("127.0.0.1", tmp_path / "token", False)


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeriError, match="name another port"):
            serve(FastAPI(), "127.0.0.1", port, connections=1, started=lambda _: None)
