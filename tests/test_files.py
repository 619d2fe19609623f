from __future__ import annotations

import json
from pathlib import Path

import pytest

from deri.files import atomic_path, write_json, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_json_refuses_what_json_has_not(tmp_path: Path) -> None:
    write_json(tmp_path / "b" / "x.json", {"a": [1, None, "ü"]})
    assert json.loads((tmp_path / "b" / "x.json").read_text(encoding="utf-8")) == {"a": [1, None, "ü"]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "y.json", float("nan"))
    assert not (tmp_path / "y.json").exists()
