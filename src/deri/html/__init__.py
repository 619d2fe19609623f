"""Pages of HTML that stand for themselves: one frame, one stylesheet, no scripts, nothing fetched.

A page is a Jinja template beside the module that fills it. It extends ``html/base.html`` and imports tables, tiles and
figures from ``html/parts.html``. What it is given is escaped, but for the SVGs of :func:`inline_svg`.
"""

from __future__ import annotations

import io
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deri._version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure


def render(template: str, title: str, **values: Any) -> str:
    """The page of a template, which is named from the root of the package (``"store/page.html"``).

    The template sees ``values``, the ``title``, and the ``version`` of the package.
    """
    return _environment().get_template(template).render(title=title, version=__version__, **values)


def inline_svg(figure: Figure, prefix: str) -> Markup:
    """A figure as SVG for a page. ``prefix`` tells its ids from those of other figures: a page has one set of ids."""
    from markupsafe import Markup

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    return Markup(re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parents[1]
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
