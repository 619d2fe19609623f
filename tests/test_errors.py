"""Install hints name a command that works where they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deri import errors

ROOT = Path(__file__).resolve().parents[1]


def test_install_names_the_checkout_or_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert errors.install("formats") == f"pip install '{ROOT}[formats]'"
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "lib" / "site-packages" / "deri" / "errors.py"))
    assert errors.install("formats") == "pip install 'deri[formats]'"


def test_no_error_names_an_install_command_of_its_own() -> None:
    for file in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"pip install '(deri|\.)\[", file.read_text(encoding="utf-8")), file


def test_all_is_every_extra_for_users() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(re.split(r"[\[\],]", everything)[1:-1]) == extras.keys() - {"all", "dev", "docs"}
