"""Writing files so that a killed process never leaves half of one under its final name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from deri.errors import DeriError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two writers apart; remove_leftovers finds that of a killed one.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_file():
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def remove_leftovers(folder: str | Path) -> None:
    """Remove what writers left under ``folder`` when they were killed: temporary files of processes that are gone."""
    for path in Path(folder).rglob(".*.tmp"):
        process = path.name.split(".")[-2]
        if process.isdecimal() and path.is_file() and not _runs(int(process)):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name == "nt":  # where signal 0 is one that ends a process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        return True
    return True


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises:
        yaml.YAMLError: the text is not valid, or has a key twice: PyYAML would keep the last one in silence.
    """
    import yaml

    return yaml.load(text, Loader=_yaml_loader())


def read_yaml(path: Path, what: str) -> Any:
    """The plain values of the YAML file ``path``; ``what`` it is begins an error.

    Raises:
        DeriError: it cannot be read, or is not valid.
    """
    import yaml

    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise DeriError(f"{what} {path} cannot be read: {getattr(error, 'strerror', error)}") from None
    except yaml.YAMLError as error:
        raise DeriError(f"{what} {path} is not valid YAML: {str(error).splitlines()[0]}") from None


@cache
def _yaml_loader() -> type:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads ten times as fast, and is not everywhere

    class UniqueKeyLoader(base):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if len(set(keys)) < len(keys):
                raise yaml.YAMLError(f"key twice: {', '.join(sorted({str(k) for k in keys if keys.count(k) > 1}))}")
            return super().construct_mapping(node, deep)

    return UniqueKeyLoader
