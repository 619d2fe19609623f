"""``deri`` as a user calls it, in this process."""

from __future__ import annotations

import pytest

from deri.cli.main import main


def run(*arguments: object) -> int:
    """The exit code of ``deri ARGUMENTS``."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)
