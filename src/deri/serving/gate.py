"""What every request passes: host, token, rate, size and time of its body; and what is counted and logged of it.

A log line says method, route, status, time and size; never an address, a file name, a text or anything of a recording.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import sys
import time
import traceback
import uuid
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deri.serving.limits import Limits
from deri.serving.metrics import Metrics
from deri.serving.problem import Problem, problem_of, problem_response, too_busy

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "content-security-policy": CSP,
}
_CLIENTS = 10_000  # addresses whose rate is remembered


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: that ``/v1`` and ``/metrics`` ask for; None: nobody needs one.
        hosts: names under which the service answers; empty: any. They keep other sites' pages, which can point a name
            of theirs to this machine, from asking in a browser.
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()


@dataclass
class _Exchange:
    """What is known of a request when it ends."""

    method: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    started: float = field(default_factory=time.perf_counter)
    status: int = 0
    received: int = 0
    sent: int = 0
    error: str | None = None


def log_line(content: dict[str, Any]) -> None:
    """Write one line of JSON on stderr."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    print(json.dumps({"time": now, **content}), file=sys.stderr, flush=True)


class Gate:
    """Middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        access: Access,
        metrics: Metrics,
        log: Callable[[dict[str, Any]], None] = log_line,
    ) -> None:
        self.app, self.limits, self.access, self.metrics, self.log = app, limits, access, metrics, log
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope["method"])
        answer = self._sender(exchange, send)
        try:
            self._check(scope)
            await self.app(scope, self._receiver(exchange, receive), answer)
        except Exception as error:
            problem = problem_of(error)
            if problem is None:
                exchange.error = _where(error)
                problem = Problem(500, "defect", f"a defect of this service; its log has the request {exchange.id}")
            if not exchange.status:
                await problem_response(problem)(scope, receive, answer)
        finally:
            self._tell(scope, exchange)

    def _check(self, scope: Scope) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "").rpartition("@")[2]
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.access.hosts and name.lower() not in self.access.hosts:
            raise Problem(
                421, "wrong_host", "this service does not answer under that name; see --host and --token-file"
            )
        guarded = scope["path"].startswith("/v1/") or scope["path"] == "/metrics"
        if guarded and self.access.token is not None:
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.access.token}".encode()):
                cause = "send the header Authorization: Bearer TOKEN, with the token of the service"
                raise Problem(401, "no_token", cause, {"WWW-Authenticate": "Bearer"})
        if guarded and self.limits.rate is not None:
            self._check_rate((scope.get("client") or ("",))[0], self.limits.rate)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.limits.body_bytes:
            raise self._too_large()

    def _check_rate(self, client: str, rate: float) -> None:
        """A bucket per client that fills with ``rate`` a minute and holds as many."""
        now = time.monotonic()
        left, then = self._seen.pop(client, (rate, now))
        left = min(rate, left + (now - then) * rate / 60)
        self._seen[client] = (left - 1 if left >= 1 else left, now)
        if len(self._seen) > _CLIENTS:
            self._seen.popitem(last=False)
        if left < 1:
            raise too_busy(429, f"more than {rate:g} requests a minute", int((1 - left) * 60 / rate) + 1)

    def _too_large(self) -> Problem:
        most = self.limits.body_bytes
        detail = f"the request is larger than {most} bytes; send fewer or shorter recordings, or see --max-mb"
        return Problem(413, "too_large", detail, {"Connection": "close"})

    def _receiver(self, exchange: _Exchange, receive: Receive) -> Receive:
        deadline, complete = time.monotonic() + self.limits.body_s, False

        async def limited() -> Message:
            nonlocal complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except (TimeoutError, asyncio.TimeoutError):
                cause = f"the body did not arrive within {self.limits.body_s:g} s"
                raise Problem(408, "slow_body", cause, {"Connection": "close"}) from None
            exchange.received += len(message.get("body", b""))
            if exchange.received > self.limits.body_bytes:
                raise self._too_large()
            complete = not message.get("more_body", False)
            return message

        return limited

    def _sender(self, exchange: _Exchange, send: Send) -> Send:
        async def marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                there = {name.lower() for name, _ in message["headers"]}
                own = {**_HEADERS, "x-request-id": exchange.id}
                new = [(k.encode(), v.encode()) for k, v in own.items() if k.encode() not in there]
                message["headers"] = [*message["headers"], *new]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        return marked

    def _tell(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.perf_counter() - exchange.started
        route = getattr(scope.get("route"), "path", "none")
        self.metrics.request(route, exchange.method, exchange.status, seconds)
        line = {
            "id": exchange.id, "method": exchange.method, "route": route, "status": exchange.status,
            "ms": round(1000 * seconds, 1), "bytes_in": exchange.received, "bytes_out": exchange.sent,
        }  # fmt: skip
        self.log(line | ({"error": exchange.error} if exchange.error else {}))


def _where(error: BaseException) -> str:
    """The kind of an error and the lines of code it came through; its message may hold what logs must not."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    lines = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames]
    return f"{type(error).__name__} at {' > '.join(lines)}"
