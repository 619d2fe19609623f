"""Items that a thread makes while others are used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

T = TypeVar("T")


def read_ahead(items: Iterator[T], depth: int = 1) -> Iterator[T]:
    """The items in their order, up to ``depth`` of them made in a thread before they are asked for; 0: no thread."""
    if depth < 1:
        yield from items
        return
    end = object()
    with ThreadPoolExecutor(1, "deri-ahead") as pool:
        pending = deque(pool.submit(next, items, end) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(pool.submit(next, items, end))
                yield cast(T, item)
        finally:
            for future in pending:
                future.cancel()
