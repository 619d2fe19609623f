"""How much memory tables take on their way through Arrow."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_SMALLEST_MAPPED = 128 << 10
_LARGEST_MAPPED = 32 << 20  # glibc's own upper limit on 64 bits


@contextmanager
def system_allocator() -> Iterator[None]:
    """Let Arrow (and pandas' text columns) take memory from the system's allocator meanwhile.

    Arrow's own one is faster and keeps what is given back: preparing a large data set would take some 40 MB more.
    """
    import pyarrow as pa

    before = pa.default_memory_pool()
    _map_blocks_from(_SMALLEST_MAPPED)
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
        _map_blocks_from(_LARGEST_MAPPED)


def _map_blocks_from(size: int) -> None:
    """Let glibc map blocks of ``size`` bytes and more, and keep smaller ones on its heap.

    By itself glibc moves blocks to its heap after a few of them were freed, up to 32 MB. There a column that is gone
    leaves a hole that nothing fills, where mapped blocks go back to the system. But a network trained in the same
    process takes and gives tens of such blocks at every step, at twice the time if each is mapped anew: so this is for
    a while only. What glibc had come to by itself cannot be asked; afterwards it is where it ends up in a training.
    Other C libraries are left alone.
    """
    if sys.platform.startswith("linux"):
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(_M_MMAP_THRESHOLD, size)
            library.mallopt(_M_TRIM_THRESHOLD, 2 * size)
