"""Pages: what they are given is escaped, tables show numbers and shares, and figures do not share ids."""

from __future__ import annotations

import re

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

import deri.html
from deri.html import inline_svg, render


def drawing() -> Figure:
    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], label="<line>")
    axes.legend()
    return figure


def test_ids_of_two_figures_differ_and_their_references_follow() -> None:
    first, second = inline_svg(drawing(), "a"), inline_svg(drawing(), "b")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg))
        assert used
        assert {a or b for a, b in used} <= own
        assert svg.startswith("<svg")


def page(monkeypatch: pytest.MonkeyPatch, body: str, **values: object) -> str:
    """Render ``body`` as a page of its own."""
    from jinja2 import ChoiceLoader, DictLoader

    frame = '{% extends "html/base.html" %}{% from "html/parts.html" import figure, table, tiles %}'
    environment = deri.html._environment().overlay()
    pages = DictLoader({"own.html": f"{frame}{{% block body %}}{body}{{% endblock %}}"})
    environment.loader = ChoiceLoader([pages, environment.loader])
    monkeypatch.setattr(deri.html, "_environment", lambda: environment)
    return render("own.html", "a <title>", **values)


def test_a_page_is_whole_and_escapes_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "{{ tiles([(12345, text)]) }}{{ figure('QUJD', text, png=true) }}{{ figure(drawing, text) }}"
    html = page(monkeypatch, body, text='<b> & "quotes"', drawing=inline_svg(drawing(), "x"))
    assert "<title>a &lt;title&gt;</title>" in html
    assert "<b>12,345</b>" in html
    assert "&lt;b&gt; &amp; &#34;quotes&#34;" in html
    assert "<b> &" not in html
    assert 'src="data:image/png;base64,QUJD"' in html
    assert "<svg" in html  # a figure is not escaped
    assert "--ink:" in html  # the stylesheet is in the page
    assert not re.search(r"<script|<link|https?://(?!www\.w3\.org|purl\.org|creativecommons|matplotlib)", html)


def test_cells_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    body = "{{ table(['code', 'n', '', 'text'], [('x<y', 1234, 0.5, 'plain')], right=[3], codes=true) }}"
    html = page(monkeypatch, body)
    assert '<th class="n">n</th>' in html
    cells = (
        '<tr><td><code>x&lt;y</code></td><td class="n">1,234</td><td class="bar"><i style="width:50.00%" title="50 %">'
    )
    assert cells in html
    assert '<td class="n">plain</td></tr>' in html


def test_a_name_that_is_not_given_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UndefinedError):
        page(monkeypatch, "{{ forgotten }}")
