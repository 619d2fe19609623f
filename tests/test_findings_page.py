"""The page of findings in docs/ is what its script gives, and each finding has a picture of its size on ECG paper."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from deri.simulate import FINDINGS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
spec = importlib.util.spec_from_file_location("findings_page", ROOT / "tools" / "findings_page.py")
findings_page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(findings_page)
draw, file_name, page = findings_page.draw, findings_page.file_name, findings_page.page


def test_page_is_up_to_date() -> None:
    assert (DOCS / "findings.md").read_text() == page(), "run python tools/findings_page.py"
    assert page().count("![") == len(FINDINGS) >= 40


def test_each_finding_has_a_small_picture() -> None:
    pictures = {path.name: path.stat().st_size for path in (DOCS / "pictures").glob("*.png")}
    assert pictures.keys() >= {file_name(code) for code in FINDINGS}
    assert len({file_name(code) for code in FINDINGS}) == len(FINDINGS)
    assert sum(pictures.values()) < 4_000_000


def test_picture_shows_a_signal(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    draw("CRBBB", tmp_path / "a.png")
    draw("CRBBB", tmp_path / "b.png", seed=6)
    first, second = (np.asarray(image.open(tmp_path / name).convert("L"), dtype=float) for name in ("a.png", "b.png"))
    assert first.shape[1] == second.shape[1]  # as wide as the paper; rows are as high as their traces
    rows = min(len(first), len(second))
    assert (first < 100).mean() > 0.005  # ink
    assert (np.abs(first[:rows] - second[:rows]) > 60).mean() > 0.005  # another patient
