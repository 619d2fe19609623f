"""What all commands check before their work: options given twice, places that cannot be written, devices."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperOption

from deri.cli.console import first_process, progress, say
from deri.errors import DeriError
from deri.files import WriteError, address_of, check_place, remove_leftovers_of
from deri.remote import Address, check_address, send, stage

_WRITTEN = ("out", "to", "save", "plot", "html")
_GO_ON = frozenset({"download", "prepare", "pretrain", "train", "benchmark"})
"""Commands that go on with what an earlier try left in ``--out``."""
_FOLDERS = frozenset(
    {"simulate", "download", "prepare", "merge", "pretrain", "train", "finetune", "benchmark", "calibrate", "convert"}
    | {"index", "demo"}
)
"""Commands whose ``--out`` is a folder; that of the others is a file."""


class Command(TyperCommand):
    """A command of the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse two values of an option that takes one, of which the first would be dropped."""
        for arg in args:
            if "://" in arg:
                check_address(arg)
        end = args.index("--") if "--" in args else len(args)
        for option in self.params:
            if isinstance(option, TyperOption) and not (option.multiple or option.is_flag):
                values = list(_values(args[:end], option.opts))
                if len(set(values)) > 1:
                    cure = " (several stores become one by deri merge)" if option.name == "data" else ""
                    raise DeriError(f"{option.opts[0]} is given twice, {' and '.join(values)}: name one{cure}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Check, then work; what was made for an address is uploaded at the end."""
        with ExitStack() as held:
            return self._work(ctx, self._stage(ctx.params, held))

    def _work(self, ctx: Any, sent: list[Address]) -> Any:
        for name in _WRITTEN:
            given = ctx.params.get(name)
            if isinstance(given, (str, Path)):  # text in typer below 0.16
                path = Path(given)
                check_place(path)
                folder = name == "save" or (self.name in _FOLDERS and name in ("out", "to"))
                if path.is_dir() and not folder:
                    raise WriteError(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
                if path.is_file() and folder:
                    raise WriteError(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
                if not folder:
                    remove_leftovers_of(path)
        there = ctx.params.get("engine") == "ray"  # where a device is another machine's
        if ctx.params.get("device") not in (None, "cpu") and not there:
            from deri.models.device import choose_device

            choose_device(ctx.params["device"])
        result = super().invoke(ctx)
        for address in sent if first_process() else ():
            with progress(f"upload to {address}") as show:
                send(address, show)
            say(f"uploaded: {address}")
        return result

    def _stage(self, params: dict[str, Any], held: ExitStack) -> list[Address]:
        """Put local places where ``params`` name an address to write to, and return these addresses, outer ones first.

        The places are this command's until ``held`` is closed.
        """
        found = {name: url for name, path in params.items() if (url := address_of(path))}
        for name, url in found.items():
            if name not in _WRITTEN:
                raise DeriError(f"{name} {url}: is read from the disk; copy it here first")
            if params.get("shard", "1/1") != "1/1":
                raise DeriError(f"--{name} {url}: the parts of --shard share a folder; prepare there, then upload it")
            target = stage(Address(url), anew=self.name not in _GO_ON, alone=first_process())
            params[name] = held.enter_context(target)
            say(f"{url}: is made in {params[name].parent}, and uploaded when it is whole")
        return [Address(url) for url in sorted(found.values(), key=len)]


def _values(args: list[str], names: list[str]) -> Any:
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in names:
            if equals:
                yield value
            elif i + 1 < len(args):
                yield args[i + 1]
