"""The service as a process: where it listens, who may ask, and its orderly end."""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from deri.errors import DeriError
from deri.serving.gate import Access, log_line

_SHORTEST_TOKEN = 16
_LAST_S = 30  # for requests that are under way when the end is asked for


class _JsonHandler(logging.Handler):
    """The server's own warnings, as lines like the others."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        log_line({"level": record.levelname.lower(), "message": record.getMessage()})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def access_of(host: str, token_file: Path | None, no_token: bool) -> Access:
    """Who may ask of a service at ``host``.

    Raises:
        DeriError: a host that others reach, and neither a token nor the word that none is wanted; a token that is none.
    """
    if token_file is not None:
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DeriError(f"--token-file {token_file}: cannot be read ({error})") from None
        if len(token) < _SHORTEST_TOKEN or not token.isascii() or any(c.isspace() for c in token):
            cure = f"write {_SHORTEST_TOKEN} characters of ASCII or more into it, e.g. openssl rand -hex 24"
            raise DeriError(f"--token-file {token_file}: holds no token; {cure}")
        return Access(token)
    if is_loopback(host):
        return Access(hosts=frozenset({"localhost", "127.0.0.1", "[::1]", host}))
    if no_token:
        return Access()
    raise DeriError(
        f"--host {host}: others reach this address; give --token-file FILE, or --no-token where something in front "
        "of it asks who they are"
    )


def serve(app: FastAPI, host: str, port: int, *, connections: int, started: Callable[[str], None]) -> None:
    """Answer until SIGINT or SIGTERM; requests that are under way are finished first.

    Args:
        app: the application.
        host: address to listen at.
        port: 0: any free one.
        connections: at once.
        started: is told the address of the page.

    Raises:
        DeriError: the address cannot be had.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise DeriError(f"--host {host} --port {port}: cannot listen there ({error}); name another port") from None
    log = logging.getLogger("uvicorn.error")
    log.handlers, log.propagate = [_JsonHandler()], False
    config = uvicorn.Config(
        app, log_config=None, log_level="warning", access_log=False, limit_concurrency=connections,
        timeout_graceful_shutdown=_LAST_S, server_header=False,
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    started(f"http://{shown}:{listening.getsockname()[1]}/")
    uvicorn.Server(config).run(sockets=[listening])
