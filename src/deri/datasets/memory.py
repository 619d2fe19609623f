"""How much memory tables take on their way through Arrow."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_M_MMAP_THRESHOLD = -3  # malloc.h of glibc
_MMAP_BYTES = 128 << 10


@contextmanager
def system_allocator() -> Iterator[None]:
    """Let Arrow (and pandas' text columns) take memory from the system's allocator meanwhile.

    Arrow's own one is faster and keeps what is given back: preparing a large data set would take some 40 MB more.
    """
    import pyarrow as pa

    _map_large_blocks()
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)


@cache
def _map_large_blocks() -> None:
    """Keep glibc from moving blocks of 128 KB and more to its heap, which it does after a few of them were freed.

    On the heap a column that is gone leaves a hole that nothing fills; mapped blocks go back to the system. Other C
    libraries are left alone.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
