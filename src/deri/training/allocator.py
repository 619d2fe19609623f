"""What the C library does with the memory that a step of training frees."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt(3)
_ROOT = Path("/")
_GROUPS = {  # by the kernel's name of the controller: where groups are, their limits, their use, the cache in it
    "": ("sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "memory": ("sys/fs/cgroup/memory", ("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed for the next step, rather than give it back and fault every page in again.

    glibc maps each tensor above 32 MB anew. Steps of 64 ECGs of 500 Hz are 1.5 times as fast where it does not, and the
    process holds about half as much memory again, since what it keeps is in pieces. So nothing changes unless that room
    is there: the available memory must exceed the most that this process ever held, for each that ``torchrun`` started.

    Returns:
        whether it was done: never without glibc, nor where the environment says how it allocates.

    Source: mallopt(3).
    """
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    from resource import RUSAGE_SELF, getrusage  # not on Windows

    libc = ctypes.CDLL(None)
    processes = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")):
        return False
    if available_memory() < processes * getrusage(RUSAGE_SELF).ru_maxrss * 1024:
        return False
    # Before glibc 2.35 the threshold is 32 MB at most; there, nothing is mapped at all.
    mapped = libc.mallopt(_MMAP_THRESHOLD, 2**31 - 1) or libc.mallopt(_MMAP_MAX, 0)
    return bool(mapped and libc.mallopt(_TRIM_THRESHOLD, -1))


def give_memory_back() -> None:
    """End what :func:`keep_freed_memory` did, for the whole process: with the largest thresholds that glibc finds.

    glibc does not change them any more after that.
    """
    libc = ctypes.CDLL(None)
    for threshold, value in ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26)):
        libc.mallopt(threshold, value)
    libc.malloc_trim(0)


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that this process may still take: of the machine, and within the limits of its control groups."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    machine = next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    return min([machine, *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left under the limit of each control group of this process; a cache of files makes room.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and ../cgroup-v1/memory.html.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if not set(controllers.split(",")) & set(_GROUPS):
            continue
        place, limits, used, cache = _GROUPS["memory" if controllers else ""]
        group = Path(name.lstrip("/"))
        for folder in (root / place / part for part in (group, *group.parents)):
            try:
                bounds = [(folder / limit).read_text().strip() for limit in limits]
                taken = int((folder / used).read_text())
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such controller, or a container's name of another root
                continue
            yield from (int(bound) - taken + int(stat.get(cache, 0)) for bound in bounds if bound != "max")
