"""Memory that is kept for the next step, and how much there is: by page faults that the kernel counts, and by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deri.training.allocator import available_memory

FAULTS = """
import resource, sys, torch
from deri.training.allocator import give_memory_back, keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(n, 2**18) for n in (40, 60, 80, 100)]  # 42 to 105 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, sum([step() for _ in range(6)][1:]))
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
if kept:
    before = held()
    give_memory_back()
    print(before - held(), sum(step() for _ in range(3)))
"""


def faults(way: str, environment: dict[str, str]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_tensors_are_not_faulted_in_again() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    kept, after, given_back, again = faults("keep", environment)
    assert kept == "True"
    assert int(given_back) > 250e6  # of 294 MB
    assert int(again) > int(after)
    _, without = faults("leave", environment)
    assert int(after) < int(without) / 2
    for other in (
        {"MALLOC_ARENA_MAX": "2"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1048576"},
        {"LOCAL_WORLD_SIZE": "1000000"},
    ):
        kept, *_ = faults("keep", environment | other)
        assert kept == "False", other


def machine(root: Path, cgroup: str, groups: dict[str, dict[str, str]]) -> Path:
    files = {
        "proc/meminfo": "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n",
        "proc/self/cgroup": cgroup,
        **{f"sys/fs/cgroup/{name}/{file}": text for name, group in groups.items() for file, text in group.items()},
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "groups", "expected"),
    [
        ("", {}, 20_480_000_000),
        ("0::/\n", {}, 20_480_000_000),
        (
            "0::/job/step\n",  # the limit is that of the job, and its cache of files makes room
            {
                "job": {
                    "memory.max": "4000000000\n",
                    "memory.high": "max\n",
                    "memory.current": "3000000000\n",
                    "memory.stat": "inactive_file 500000000\n",
                },
                "job/step": {
                    "memory.max": "max\n",
                    "memory.high": "max\n",
                    "memory.current": "3000000000\n",
                    "memory.stat": "inactive_file 500000000\n",
                },
            },
            1_500_000_000,
        ),
        (
            "5:cpu,cpuacct:/x\n4:memory:/docker/0a1b\n",  # a container sees its group as the root
            {
                "memory": {
                    "memory.limit_in_bytes": "2000000000\n",
                    "memory.usage_in_bytes": "500000000\n",
                    "memory.stat": "cache 7\ntotal_inactive_file 100000000\n",
                }
            },
            1_600_000_000,
        ),
    ],
)
def test_available_memory_is_what_the_machine_and_the_groups_leave(
    cgroup: str, groups: dict[str, dict[str, str]], expected: int, tmp_path: Path
) -> None:
    assert available_memory(machine(tmp_path, cgroup, groups)) == expected
