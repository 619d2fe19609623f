"""The page at ``/``, its example recordings, and the documentation of the interface; nothing of it from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from deri.ecg.leads import LEADS
from deri.html import render
from deri.serving.gate import CSP

router = APIRouter()
_FOLDER = Path(__file__).parent / "page"
_FILES = {
    "page.js": "text/javascript; charset=utf-8",
    "paper.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}
_EXAMPLES = {"normal": ("SR",), "afib": ("AFIB",), "lbbb": ("SR", "CLBBB")}
_FS = 250


@router.get("/")
async def page() -> Response:
    """The page."""
    return HTMLResponse((_FOLDER / "index.html").read_bytes())


@router.get("/favicon.ico")
async def icon() -> Response:
    """Browsers ask for it; there is none."""
    return Response(status_code=204)


@router.get("/page/{name}")
async def part(name: Literal["page.js", "paper.js", "page.css"]) -> Response:
    """Its script and style."""
    return Response((_FOLDER / name).read_bytes(), media_type=_FILES[name])


@router.get("/example/{name}")
async def example(name: Literal["normal", "afib", "lbbb"]) -> Response:
    """A simulated recording as CSV, in mV, with a column for the time."""
    return Response(example_csv(name), media_type="text/csv")


@cache
def example_csv(name: str) -> str:
    """A simulated recording of 10 s as text; the same every time."""
    from deri.simulate import generate

    signal = generate(_EXAMPLES[name], np.random.default_rng(7), fs=_FS)
    rows = [",".join(["time_s", *(f"{lead} (mV)" for lead in LEADS)])]
    rows += [",".join([f"{i / _FS:.3f}", *(f"{value:.3f}" for value in column)]) for i, column in enumerate(signal.T)]
    return "\n".join(rows) + "\n"


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The endpoints with their fields, from the schema at ``/openapi.json``."""
    schema = request.app.openapi()
    text = render(
        "serving/page/docs.html", "deri: HTTP interface", schema=schema, parts=schema["components"]["schemas"]
    )
    return HTMLResponse(
        text, headers={"content-security-policy": CSP.replace("style-src 'self'", "style-src 'unsafe-inline'")}
    )
