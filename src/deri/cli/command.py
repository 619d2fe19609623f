"""What all commands check before their work: options given twice, places that cannot be written, devices."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperOption

from deri.errors import DeriError
from deri.files import WriteError, check_place

_WRITTEN = ("out", "to", "save", "plot", "html")
_FOLDERS = frozenset(
    {"simulate", "download", "prepare", "merge", "pretrain", "train", "finetune", "benchmark", "calibrate", "convert"}
    | {"index", "demo"}
)
"""Commands whose ``--out`` is a folder; that of the others is a file."""


class Command(TyperCommand):
    """A command of the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse two values of an option that takes one, of which the first would be dropped."""
        end = args.index("--") if "--" in args else len(args)
        for option in self.params:
            if isinstance(option, TyperOption) and not (option.multiple or option.is_flag):
                values = list(_values(args[:end], option.opts))
                if len(set(values)) > 1:
                    cure = " (several stores become one by deri merge)" if option.name == "data" else ""
                    raise DeriError(f"{option.opts[0]} is given twice, {' and '.join(values)}: name one{cure}")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Check, then work."""
        for name in _WRITTEN:
            path = ctx.params.get(name)
            if isinstance(path, Path):
                check_place(path)
                folder = name == "save" or (self.name in _FOLDERS and name in ("out", "to"))
                if path.is_dir() and not folder:
                    raise WriteError(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
                if path.is_file() and folder:
                    raise WriteError(path, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        there = ctx.params.get("engine") == "ray"  # where a device is another machine's
        if ctx.params.get("device") not in (None, "cpu") and not there:
            from deri.models.device import choose_device

            choose_device(ctx.params["device"])
        return super().invoke(ctx)


def _values(args: list[str], names: list[str]) -> Any:
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name in names:
            if equals:
                yield value
            elif i + 1 < len(args):
                yield args[i + 1]
