"""Memory during the reading of tables: mapped blocks meanwhile, and a heap that keeps them afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from deri.datasets.memory import system_allocator

FAULTS = """
import resource
import numpy as np
from deri.datasets.memory import system_allocator

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.empty(1 << 20, np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with system_allocator():
    inside = faults()
faults()  # the heap grows to its size once
print(inside, faults())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc", reason="glibc's allocator is meant"
)
def test_blocks_are_mapped_anew_meanwhile_and_kept_afterwards() -> None:
    # In a process of its own: the heap of this one has free blocks already.
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    inside, afterwards = map(int, done.stdout.split())
    assert inside >= 50 * (1 << 20) // (64 << 10)  # 256 pages a block, or 16 where a page has 64 KB
    # Training takes and gives such blocks at every step; mapping each anew made it take twice the time.
    assert afterwards < inside / 10


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
