"""Stores of simulated recordings."""

from __future__ import annotations

from pathlib import Path

from deri.datasets import open_dataset
from deri.simulate import simulate
from deri.store import Store, prepare


def simulated_store(folder: Path, records: int, seed: int, layout: str = "ptb-xl") -> Store:
    """The store of a simulated data set, in ``folder/store``."""
    simulate(layout, records, folder / "source", seed=seed)
    prepare(open_dataset(layout, folder / "source"), folder / "store")
    return Store.open(folder / "store")
