"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# In CI the examples are the same every time: a change is judged by itself, not by luck. Elsewhere they explore. How
# long an example takes says how busy the machine is, and fails nothing.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("deri", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "deri")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        # Whole walks take minutes each: they begin first, so that no process is left alone with one at the end.
        walks = ("tests", "demo", "golden")
        items.sort(key=lambda item: item.path.parent.name not in walks)
        return
    skip = pytest.mark.skip(reason="slow: run with --slow (`make test` does)")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def find_shared() -> Path | None:
    """The folder with real recordings: $DERI_REAL_DATA, else ../shared beside the checkout."""
    candidates = [os.environ.get("DERI_REAL_DATA"), ROOT.parent / "shared"]
    for candidate in candidates:
        if candidate and Path(candidate).is_dir():
            return Path(candidate)
    return None


@pytest.fixture
def fresh_seed() -> int:
    """A seed for random accidents, printed; in CI it is 0, as its examples are the same every time."""
    seed = 0 if os.environ.get("CI") else random.randrange(10**6)
    print("seed", seed)
    return seed


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = find_shared()
    if folder is None:
        pytest.skip("no real recordings: set DERI_REAL_DATA to the folder that holds ecg-real/ and parity/")
    return folder


def _within(shared: Path, name: str, what: str) -> Path:
    folder = shared / name
    if not folder.is_dir():
        pytest.skip(f"no {what} in {folder}")
    return folder


@pytest.fixture(scope="session")
def ecg_real(shared: Path) -> Path:
    return _within(shared, "ecg-real", "real recordings")


@pytest.fixture(scope="session")
def faults(shared: Path) -> Path:
    """Inputs with faults that users of such tools reported."""
    return _within(shared, "faults", "reported faults")


@pytest.fixture(scope="session")
def ptbxl_part(shared: Path) -> Path:
    """3,175 recordings of PTB-XL in its own layout, unpacked once into a cache folder."""
    script = shared / "ptb-xl-part" / "unpack"
    if not script.is_file():
        pytest.skip(f"no part of PTB-XL in {script.parent}")
    return Path(subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip())


@pytest.fixture(scope="session")
def mimic_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 96 simulated recordings in the MIMIC-IV-ECG layout; every fifth patient is held out."""
    from deri.datasets import open_dataset
    from deri.simulate import simulate
    from deri.store import prepare

    folder = tmp_path_factory.mktemp("mimic")
    simulate("mimic-iv-ecg", 96, folder / "source", seed=1)
    dataset = open_dataset("mimic-iv-ecg", folder / "source")
    dataset.val_fraction = 0.2
    prepare(dataset, folder / "store")
    return folder / "store"


@pytest.fixture(scope="session")
def text_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support import tiny

    folder = tmp_path_factory.mktemp("bert") / "bert"
    encoder = tiny.text_encoder()
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder
