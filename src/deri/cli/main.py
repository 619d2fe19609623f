"""``deri``: the entry point. Heavy imports live inside the commands, so that ``deri --help`` answers at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from deri._version import __version__
from deri.cli import benchmark, data, demo, evaluate, inspect, models, report, train
from deri.errors import DeriError

app = typer.Typer(
    name="deri",
    help="Learn ECG representations from clinical reports. For research; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deri {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ["DERI_DEBUG"] = "1"


for _command in (
    *(data.simulate, data.download, data.prepare, data.merge, train.pretrain),
    *(evaluate.zeroshot, evaluate.probe, evaluate.retrieval, evaluate.finetune, benchmark.benchmark),
    *(models.embed, models.classify, models.convert, inspect.info, demo.demo),
):
    app.command()(_command)
app.add_typer(report.app, name="report")


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors that a user can cure become one or two lines and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Accepted anywhere: people add it to the end of the line that failed.
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        app(args=arguments, prog_name="deri")
    except DeriError as error:
        if debug or os.environ.get("DERI_DEBUG"):
            raise
        print(f"deri: {error}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, BrokenPipeError):
        print("deri: interrupted", file=sys.stderr)
        sys.exit(130)
