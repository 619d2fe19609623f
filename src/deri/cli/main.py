"""``deri``: the entry point. Heavy imports live inside the commands, so that ``deri --help`` answers at once."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, Any

import typer

from deri._version import __version__
from deri.cli import (
    benchmark,
    calibrate,
    data,
    demo,
    evaluate,
    export,
    index,
    inspect,
    models,
    report,
    search,
    serve,
    train,
)
from deri.cli.command import Command
from deri.errors import DeriError, Interrupted, out_of_memory
from deri.files import AGAIN, WriteError, writing

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
    *(calibrate.calibrate, models.embed, models.classify, models.convert, export.export),
    *(index.index, search.search, serve.serve, inspect.info, demo.demo),
):
    app.command()(_command)
app.add_typer(report.app, name="report")
for _registered in (*app.registered_commands, *report.app.registered_commands):
    _registered.cls = Command


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors that a user can cure become one or two lines and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Before torch is imported: its threads would spin where they wait for one another, and keep the processors from
    # readers and from other work, which they wait for in the end.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Accepted anywhere: people add it to the end of the line that failed.
    debug = "--debug" in arguments or bool(os.environ.get("DERI_DEBUG"))
    arguments = [a for a in arguments if a != "--debug"]
    before, hook = _handle_signals(_interrupt), sys.unraisablehook
    sys.unraisablehook = _interrupt_again
    try:
        try:
            app(args=arguments, prog_name="deri")
        finally:
            _flush()
    except (Interrupted, BrokenPipeError) as error:
        number = getattr(error, "signal", signal.SIGINT)
        print(f"deri: interrupted; {getattr(error, 'way_on', '') or AGAIN}", file=sys.stderr)
        sys.exit(128 + number)
    except (DeriError, OSError, MemoryError, RuntimeError) as error:
        text = _told(error)
        if debug or text is None:
            raise
        print(f"deri: {text}", file=sys.stderr)
        sys.exit(2)
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _flush() -> None:
    """Write what was printed, so that a full disk behind ``> FILE`` is told here, not after Python's end."""
    try:
        with writing("the output"):
            sys.stdout.flush()
    except WriteError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries once more at its end
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise in the main thread; once the module is loaded where one is: C++ that loads it would end the process."""
    while frame is not None and frame.f_code is not main.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _send_later(number)
            return
        frame = frame.f_back
    raise Interrupted(number)


def _interrupt_again(swallowed: sys.UnraisableHookArgs) -> None:
    """Send the signal once more whose exception came in a destructor, where Python drops exceptions."""
    if isinstance(swallowed.exc_value, Interrupted):
        _send_later(swallowed.exc_value.signal)
    else:
        sys.__unraisablehook__(swallowed)


def _send_later(number: int) -> None:
    again = threading.Timer(0.01, os.kill, [os.getpid(), number])
    again.daemon = True
    again.start()


def _handle_signals(handler: Any) -> dict[int, Any]:
    """Let ``handler`` receive Ctrl-C and SIGTERM; returns the handlers of before, none outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}


def _told(error: Exception) -> str | None:
    """One or two lines about what a user can cure; None for a defect of this library."""
    if isinstance(error, DeriError):
        return str(error)
    if out_of_memory(error):
        first = (str(error).splitlines() or [""])[0]
        return f"out of memory: lower the batch size, or close what else takes memory\n{first}".rstrip()
    if isinstance(error, OSError):
        if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        return str(WriteError("the output", error)) if error.errno == errno.ENOSPC else str(error)
    return None
