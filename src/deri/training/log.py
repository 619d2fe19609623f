"""What a run says: lines of JSON in a file, TensorBoard scalars where it is installed, and lines for people."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from deri.errors import DeriError
from deri.files import atomic_path
from deri.progress import SILENT, Progress

_SUM = "crc32"  # first key of a line: the checksum of the line without it


@dataclass
class Tally:
    """Losses and amounts of steps: since the last line of the log, or of an epoch. The first amount weighs a mean."""

    last: Tensor | float = float("nan")
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    weighted: Tensor | float = 0.0
    weight: int = 0
    amounts: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.perf_counter)

    def add(self, loss: Tensor, terms: Mapping[str, Tensor], amounts: Counter[str]) -> None:
        """Count a step. Losses stay on their device, which need not be waited for."""
        self.last, self.terms = loss, terms
        weight = next(iter(amounts.values()))
        self.weighted, self.weight = self.weighted + loss * weight, self.weight + weight
        self.amounts.update(amounts)

    @property
    def mean(self) -> float:
        """Mean loss of the steps."""
        return float(self.weighted) / self.weight

    def rates(self) -> dict[str, float]:
        """Amounts per second."""
        seconds = time.perf_counter() - self.began
        return {f"{unit}_per_s": amount / seconds for unit, amount in self.amounts.items()}


class RunLog:
    """Appends metrics of a run. After a resume, lines past the restored step are dropped: they will come again.

    Args:
        path: file of the lines.
        step: where the run stands.
        board: folder of TensorBoard's files; None: none are written.
        progress: receives every line in words.
        first_epoch: number of the first epoch in the lines.
    """

    def __init__(
        self, path: Path, step: int, *, board: Path | None = None, progress: Progress = SILENT, first_epoch: int = 0
    ) -> None:
        self._progress, self._first_epoch = progress, first_epoch
        drop_lines(path, step)
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by close)
        self._board: Any = None
        if board is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # optional: the extra `track`
            return
        self._board = SummaryWriter(str(board), purge_step=step + 1 if step else None)

    def write(self, split: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log ``values`` of ``split`` (train or val) at ``step``. A number that is not finite is written as null."""
        epoch += self._first_epoch
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        text = json.dumps({"split": split, "step": step, "epoch": epoch, **clean})
        self._file.write(f'{{"{_SUM}": {zlib.crc32(text.encode())}, {text[1:]}\n')
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{split}/{name}", value, step)
        main = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._progress.message(f"{split} step {step} epoch {epoch}: {main}")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's ``metrics.jsonl``, without one that a kill cut short at the end.

    Raises:
        DeriError: a line is not what was written.
    """
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(_lines(path), 1):
        try:
            found.append(_parsed(line))
        except ValueError:
            raise DeriError(f"{path} is damaged (line {number}): copy the run again, or train it again") from None
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a log, without one that a kill cut short at the end; bytes that are no UTF-8 as surrogates."""
    *lines, rest = path.read_bytes().decode(errors="surrogateescape").split("\n")
    return [*lines, rest] if "}" in rest else lines  # a line that is whole ends with a line break


def _parsed(line: str) -> dict[str, Any]:
    """The values of a line; ValueError where it is not what was written. Earlier lines begin without a checksum."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError
    if not line.startswith('{"split"') and values.pop(_SUM, None) != zlib.crc32(json.dumps(values).encode()):
        raise ValueError
    return values


def drop_lines(path: Path, step: int) -> None:
    """Remove from a file of metrics, if it is there, the lines past ``step``, which will come again.

    A line that a kill cut short goes too. One that is damaged stays for :func:`read_metrics` to tell of: it may be one
    that does not come again.
    """
    if not path.exists():
        return
    kept = []
    for line in _lines(path) if step else []:
        with suppress(ValueError, KeyError, TypeError):
            if _parsed(line)["step"] > step:
                break
        if "{" in line or "}" in line:  # zeros, say, are what a loss of power leaves at the end
            kept.append(line)
    with atomic_path(path) as temporary:
        temporary.write_bytes("".join(f"{line}\n" for line in kept).encode(errors="surrogateescape"))
