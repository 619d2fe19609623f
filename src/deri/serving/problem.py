"""Errors as a client sees them: RFC 9457, ``application/problem+json``."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from deri.errors import DeriError, ReadError, out_of_memory

_STATUS = {"too_long": 413, "unsupported_format": 415}


class Problem(HTTPException):
    """A request that is refused. ``reason`` is a short stable code, ``detail`` a sentence."""

    def __init__(self, status: int, reason: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.reason = reason


def too_busy(status: int, detail: str, seconds: int) -> Problem:
    """429 or 503: the client is to come again after ``seconds``."""
    return Problem(status, "too_busy", detail, {"Retry-After": str(seconds)})


def problem_of(error: BaseException) -> Problem | None:
    """What a client is told of an error; None for a defect of this library."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ReadError):
        return Problem(_STATUS.get(error.reason, 422), error.reason, str(error))
    if isinstance(error, DeriError):
        return Problem(422, "bad_request", str(error))
    if out_of_memory(error):
        return too_busy(503, "the service is out of memory; try again, or send less at once", 5)
    return None


def problem_response(problem: StarletteHTTPException) -> JSONResponse:
    """The answer that tells it."""
    title = HTTPStatus(problem.status_code).phrase
    reason = getattr(problem, "reason", title.lower().replace(" ", "_"))
    content = {"title": title, "status": problem.status_code, "detail": str(problem.detail), "reason": reason}
    return JSONResponse(
        content, problem.status_code, headers=dict(problem.headers or {}), media_type="application/problem+json"
    )


async def on_http(_: Request, error: Exception) -> JSONResponse:
    """Handler of what the framework refuses: no such path, no such method, a malformed body."""
    assert isinstance(error, StarletteHTTPException)
    return problem_response(error)


async def on_deri(_: Request, error: Exception) -> JSONResponse:
    """Handler of this library's own errors."""
    problem = problem_of(error)
    assert problem is not None
    return problem_response(problem)


async def on_validation(_: Request, error: Exception) -> JSONResponse:
    """Handler of fields that are missing, unknown or no such value; the values themselves are not repeated."""
    assert isinstance(error, RequestValidationError)
    told = [f"{_place(item['loc'])}: {item['msg']}" for item in error.errors()[:5]]
    return problem_response(Problem(422, "bad_field", "; ".join(told)))


def _place(location: Any) -> str:
    return ".".join(str(part) for part in location[1:]) or str(location[0])
