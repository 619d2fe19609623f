"""The conda recipe, the lock and the constraints say what pyproject.toml says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deri._version import __version__

ROOT = Path(__file__).resolve().parents[1]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def test_the_conda_recipe_has_the_dependencies_of_the_package(project: dict[str, Any]) -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    about, needs = project["project"], recipe["requirements"]
    expected = {}
    for text in about["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)(>=[\d.]+)", text).groups()  # type: ignore[union-attr]
        expected[CONDA_NAMES.get(name, name)] = version
    python = about["requires-python"]
    assert dict(line.split(" ") for line in needs["run"]) == {"python": python, **expected}
    host = dict((line + " ").split(" ", 1) for line in needs["host"])
    assert host == {"python": f"{python} ", "pip": "", "setuptools": f"{project['build-system']['requires'][0][10:]} "}
    assert recipe["context"]["version"] == __version__
    assert recipe["build"]["python"]["entry_points"] == [f"{k} = {v}" for k, v in about["scripts"].items()]
    assert recipe["about"]["license"] == about["license"]
    assert recipe["about"]["license_file"] == about["license-files"]


def test_the_lock_has_the_versions_of_the_constraints_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    locked = dict(re.findall(r"^([\w.-]+)==([^ +]+)", text, re.MULTILINE))
    assert len(re.findall(r"^[\w.-]+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)) == len(locked)
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}
    assert {name: version for name, version in locked.items() if pinned.get(name, version) != version} == {}


def test_the_lock_has_what_the_package_needs(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    needed = [*project["project"]["dependencies"], *(text for name in extras if name != "all" for text in extras[name])]
    locked = set(re.findall(r"^([\w.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.MULTILINE))
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[>=]", text)[0]).lower() for text in needed}
    assert names <= locked
