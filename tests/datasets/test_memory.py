"""Memory during the reading of tables: mapped blocks meanwhile, and a heap that keeps them afterwards."""

from __future__ import annotations

import platform
import sys

import numpy as np
import pytest

from deri.datasets.memory import system_allocator


def page_faults(blocks: int = 50) -> int:
    """Pages that are new to the process while ``blocks`` arrays of 1 MB are made and dropped, one at a time."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(blocks):
        np.empty(1 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant"
)
def test_blocks_are_mapped_anew_meanwhile_and_kept_afterwards():
    with system_allocator():
        inside = page_faults()
    page_faults()  # the heap grows to its size once
    assert inside >= 50 * (1 << 20) // (64 << 10)  # 256 pages a block, or 16 where a page has 64 KB
    # Training takes and gives such blocks at every step; mapping each anew made it take twice the time.
    assert page_faults() < inside / 10


def test_arrow_has_its_own_pool_again_after_an_error():
    import pyarrow as pa

    before = pa.default_memory_pool().backend_name

    def stop() -> None:
        with system_allocator():
            assert pa.default_memory_pool().backend_name == "system"
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert pa.default_memory_pool().backend_name == before
