"""Results of all commands that give numbers are those that are committed, digit by digit.

``python tests/golden/make.py tests/golden/expected.json`` writes what is expected; a commit that changes it says which
number moves and why. The digits of a network depend on the processor and the libraries: on the processor that made the
file the tolerance is 0, on another one figures that come from the network may move.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROUGH = 0.1
"""On another processor: a sample that changes its rank moves a figure of these small sets by a few hundredths."""


def differences(expected: Any, found: Any, tolerance: float, where: str = "") -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in [*expected, *(k for k in found if k not in expected)]:
            if key not in expected or key not in found:
                yield f"{where}/{key}: {'missing' if key in expected else 'new'}"
            else:
                yield from differences(expected[key], found[key], tolerance, f"{where}/{key}")
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for i, (a, b) in enumerate(zip(expected, found, strict=True)):
            yield from differences(a, b, tolerance, f"{where}[{i}]")
    elif tolerance and isinstance(expected, float) and isinstance(found, float):
        if abs(expected - found) > tolerance * max(1, abs(expected)):
            yield f"{where}: {found!r} instead of about {expected!r}"
    elif tolerance and isinstance(expected, (str, int)) and type(expected) is type(found):
        return  # texts that a network writes, ranks, chosen strengths
    elif expected != found:
        yield f"{where}: {str(found)[:80]!r} instead of {str(expected)[:80]!r}"


@pytest.mark.slow
def test_results_are_the_committed_ones(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    subprocess.run([sys.executable, HERE / "make.py", out], check=True, env=os.environ, timeout=550)
    expected, found = (json.loads(file.read_text(encoding="utf-8")) for file in (HERE / "expected.json", out))
    made, here = expected.pop("made with"), found.pop("made with")
    tolerance = 0.0 if made == here else ROUGH
    stores, found_stores = expected.pop("stores"), found.pop("stores")
    problems = list(differences(expected, found, tolerance))
    # Digests have no tolerance: elsewhere, where a sine may end in another bit, only the files are the same.
    problems += differences(stores, found_stores, tolerance, "stores")
    assert not problems, f"{len(problems)} differences (tolerance {tolerance}):\n" + "\n".join(problems[:40])
