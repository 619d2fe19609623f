"""What a run says: lines in ``metrics.jsonl``, TensorBoard scalars where it is installed, and a line for people."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deri.files import write_text


class RunLog:
    """Appends metrics of a run. After a resume, lines past the restored step are dropped: they will come again."""

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]) -> None:
        self.path = folder / "metrics.jsonl"
        self._say = say
        drop_lines(self.path, step)
        self._file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed by close)
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # optional: pip install 'deri[track]'
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, split: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Log ``values`` of ``split`` (train or val) at ``step``. A number that is not finite is written as null."""
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"split": split, "step": step, "epoch": epoch, **clean}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{split}/{name}", value, step)
        main = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._say(f"{split} step {step} epoch {epoch}: {main}")

    def close(self) -> None:
        """Flush and close."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def read_metrics(run: str | Path) -> list[dict[str, Any]]:
    """All lines of a run's ``metrics.jsonl``."""
    path = Path(run) / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def drop_lines(path: Path, step: int) -> None:
    """Remove from a file of JSON lines, if it is there, those past ``step``: they will come again."""
    if path.exists():
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
        write_text(path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> float:
    # A line cut short by a kill belongs to no step and is dropped.
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
