"""Items made ahead of their use."""

from __future__ import annotations

import time

import pytest

from deri.ahead import read_ahead


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_it_keeps_the_order_and_raises_what_an_item_raises(ahead: int) -> None:
    assert list(read_ahead((s * s for s in range(5, 12)), ahead)) == [s * s for s in range(5, 12)]

    def fail(step: int) -> int:
        if step == 3:
            raise ValueError("bad row")
        return step

    with pytest.raises(ValueError, match="bad row"):
        list(read_ahead(map(fail, range(6)), ahead))


def test_it_reads_no_further_than_it_may() -> None:
    made: list[int] = []
    iterator = read_ahead((made.append(s) or s for s in range(100)), 2)
    next(iterator)
    time.sleep(0.1)
    assert max(made) <= 3
    iterator.close()  # type: ignore[attr-defined]
