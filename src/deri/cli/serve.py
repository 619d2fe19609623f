"""``deri serve``: the HTTP interface and the page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from deri.cli import options
from deri.cli.console import say
from deri.errors import DeriError, install


def serve(
    model: Annotated[
        str | None, typer.Option(help=f"{options.MODEL} [default: that of --index, else deri-open]")
    ] = None,
    index: Annotated[Path | None, typer.Option(help="folder made by deri index; /v1/search looks through it")] = None,
    writer: Annotated[str | None, typer.Option(help="directory or hub id of a report writer, for /v1/report")] = None,
    host: Annotated[str, typer.Option(help="address to listen at; others reach 0.0.0.0")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="file with the token that clients must send")] = None,
    no_token: Annotated[bool, typer.Option("--no-token", help="others may ask without a token")] = False,
    max_mb: Annotated[float, typer.Option(min=0.001, help="MiB of a request")] = 64,
    max_files: Annotated[int, typer.Option(min=1, help="files of a request")] = 32,
    max_duration: Annotated[float, typer.Option(min=1, help="s of recording in a request")] = 1800,
    body_timeout: Annotated[float, typer.Option(min=0.1, help="s until a request must have arrived")] = 30,
    timeout: Annotated[float, typer.Option(min=0.1, help="s of work on a request")] = 60,
    queue: Annotated[int, typer.Option(min=1, help="requests that may wait; the next one is told to come again")] = 256,
    rate: Annotated[
        float | None, typer.Option(min=1, help="requests a minute and client [default: any number]")
    ] = None,
    device: options.Device = None,
    precision: options.Precision = options.PrecisionName.fp32,
) -> None:
    """Answer over HTTP, and show a page for people: findings, report drafts, search, measurements, drawings.

    It listens on this machine alone unless --host says otherwise. Nothing that is sent is kept. For research.
    """
    needed = [
        name for name in ("fastapi", "uvicorn", "prometheus_client", "python_multipart") if find_spec(name) is None
    ]
    if needed:
        raise DeriError(f"deri serve needs {', '.join(needed)}: {install('serve')}")
    from deri.evaluation.search import Index
    from deri.generation.writer import ReportWriter
    from deri.models import load_model
    from deri.models.builtin import DEFAULT_MODEL
    from deri.serving import Limits, Service, create_app
    from deri.serving.run import access_of
    from deri.serving.run import serve as run

    access = access_of(host, token_file, no_token)
    limits = Limits(
        body_bytes=round(max_mb * 2**20), files=max_files, duration_s=max_duration, body_s=body_timeout, work_s=timeout,
        waiting=queue, rate=rate,
    )  # fmt: skip
    opened = None if index is None else Index.open(index)
    name = model or (DEFAULT_MODEL if opened is None else opened.meta["model"]["name"])
    loaded = load_model(name, device=device) if opened is None else opened.model(model, device=device)
    loaded.compute_in(precision.value)
    writes = None if writer is None else ReportWriter.from_pretrained(writer, device=device)
    service = Service(loaded, Path(name).name, index=opened, writer=writes, limits=limits)
    service.warm()
    app = create_app(service, access)
    run(
        app,
        host,
        port,
        connections=max(1000, 4 * queue),
        started=lambda url: say(f"{name} answers at {url}; stop with Ctrl-C"),
    )
